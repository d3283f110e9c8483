# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress table of all laptops: the slowest first, as many as fit, and a line for the whole fleet."""

import math
from collections.abc import Sequence

from ...module_utils.printable import printable
from ...module_utils.quantities import clock, rate
from .limits import OTHER_LAPTOPS
from .line import RECONNECTING, ProgressEvent, limited, rows

GREEN, YELLOW, FAINT, PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class Table:
    """The latest progress of every laptop."""

    def __init__(self) -> None:
        self._events: dict[str, ProgressEvent] = {}

    def update(self, event: ProgressEvent) -> None:
        """Take the latest progress of a laptop."""
        self._events[event.host] = event

    def clear(self) -> None:
        """Remove all laptops."""
        self._events.clear()

    @property
    def running(self) -> list[ProgressEvent]:
        """The progress of the laptops that are still working, the slowest first."""
        return sorted((event for event in self._events.values() if not event.ended), key=_slowness)

    def render(self, columns: int, most: int, colour: bool) -> list[str]:
        """Return at most ``most`` rows of ``columns`` columns for a terminal; none when no laptop is working."""
        running = self.running
        if not running or most < 1:
            return []
        fleet = len(self._events) > 1
        shown = running if len(running) + fleet <= most else running[: max(0, most - fleet - 1)]
        lines = [
            _coloured(event, line) if colour else line for event, line in zip(shown, rows(shown, columns), strict=True)
        ]
        if len(shown) < len(running):
            lines.append(f"and {len(running) - len(shown)} more"[:columns])
        if fleet:
            lines.append(self.total()[:columns])
        return lines[:most]

    def total(self) -> str:
        """Return the line for the whole fleet."""
        everybody = list(self._events.values())
        running = [event for event in everybody if not event.ended]
        parts = [
            f"{len(everybody)} laptops",
            f"{len(everybody) - len(running)} done" if len(running) < len(everybody) else "",
        ]
        parts.append(f"{sum(1.0 if event.ended else event.whole for event in everybody) / len(everybody):.0%}")
        rates = [event.now for event in running if event.now is not None]
        if rates:
            parts.append(rate(sum(rates)))
        etas = [event.eta for event in running if event.eta is not None]
        if etas and len(etas) == len([event for event in running if event.total]):
            parts.append(f"eta {clock(max(etas))}")
        return "  ".join(part for part in [*parts, _commonest(running)] if part)


def _slowness(event: ProgressEvent) -> tuple[float, float, str]:
    """Return a sort key: laptops whose end is unknown come first, then those that take longest."""
    return -(math.inf if event.eta is None else event.eta), event.whole, event.host


def _commonest(running: Sequence[ProgressEvent]) -> str:
    """Return the limit of most laptops. What limits those that do not wait for others limits all."""
    limits = [event.limit for event in running if event.limit]
    if not limits:
        return ""
    limits = [limit for limit in limits if limit != OTHER_LAPTOPS] or limits
    limit = max(sorted(set(limits)), key=limits.count)
    shares = [event.share for event in running if event.limit == limit]
    return limited(ProgressEvent(host="", state="", limit=limit, share=sum(shares) / len(shares)))


def _coloured(event: ProgressEvent, line: str) -> str:
    host = printable(event.host)
    rest = line[len(host) :]
    if event.state == RECONNECTING:
        return f"{host}{YELLOW}{rest}{PLAIN}"
    full = rest.count("#")
    if not full:
        return host + rest
    start = rest.index("#")
    return f"{host}{rest[:start]}{GREEN}{rest[start : start + full]}{PLAIN}{rest[start + full :]}"
