# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress table of all laptops: the slowest first, as many as fit, and a line for the whole fleet."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable
from ansible_collections.fleet.imaging.plugins.module_utils.quantities import clock, rate

from .line import RECONNECTING, News, limited, rows

GREEN, YELLOW, FAINT, PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class Board:
    """The latest progress of every laptop."""

    def __init__(self) -> None:
        self._news: dict[str, News] = {}

    def hear(self, news: News) -> None:
        """Take the latest progress of a laptop."""
        self._news[news.host] = news

    def clear(self) -> None:
        """Remove all laptops."""
        self._news.clear()

    @property
    def going(self) -> list[News]:
        """The progress of the laptops that are still working, the slowest first."""
        return sorted((news for news in self._news.values() if not news.ended), key=_slowness)

    def picture(self, columns: int, most: int, colour: bool) -> list[str]:
        """Return at most ``most`` rows of ``columns`` columns for a terminal; none when no laptop is working."""
        going = self.going
        if not going or most < 1:
            return []
        fleet = len(self._news) > 1
        shown = going if len(going) + fleet <= most else going[: max(0, most - fleet - 1)]
        lines = [
            _coloured(news, line) if colour else line for news, line in zip(shown, rows(shown, columns), strict=True)
        ]
        if len(shown) < len(going):
            lines.append(f"and {len(going) - len(shown)} more"[:columns])
        if fleet:
            lines.append(self.total()[:columns])
        return lines[:most]

    def total(self) -> str:
        """Return the line for the whole fleet."""
        everybody = list(self._news.values())
        going = [news for news in everybody if not news.ended]
        parts = [
            f"{len(everybody)} laptops",
            f"{len(everybody) - len(going)} done" if len(going) < len(everybody) else "",
        ]
        parts.append(f"{sum(1.0 if news.ended else news.whole for news in everybody) / len(everybody):.0%}")
        rates = [news.now for news in going if news.now is not None]
        if rates:
            parts.append(rate(sum(rates)))
        etas = [news.eta for news in going if news.eta is not None]
        if etas and len(etas) == len([news for news in going if news.total]):
            parts.append(f"eta {clock(max(etas))}")
        return "  ".join(part for part in [*parts, _commonest(going)] if part)


def _slowness(news: News) -> tuple[float, float, str]:
    """Return a sort key: laptops whose end is unknown come first, then those that take longest."""
    return -(math.inf if news.eta is None else news.eta), news.whole, news.host


def _commonest(going: Iterable[News]) -> str:
    """Return the limit of most laptops."""
    limits = [news.limit for news in going if news.limit]
    if not limits:
        return ""
    limit = max(sorted(set(limits)), key=limits.count)
    shares = [news.share for news in going if news.limit == limit]
    return limited(News(host="", state="", limit=limit, share=sum(shares) / len(shares)))


def _coloured(news: News, line: str) -> str:
    host = printable(news.host)
    rest = line[len(host) :]
    if news.state == RECONNECTING:
        return f"{host}{YELLOW}{rest}{PLAIN}"
    full = rest.count("#")
    if not full:
        return host + rest
    start = rest.index("#")
    return f"{host}{rest[:start]}{GREEN}{rest[start : start + full]}{PLAIN}{rest[start + full :]}"
