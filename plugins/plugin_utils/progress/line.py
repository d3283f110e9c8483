# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One laptop's progress: the message from its worker to the callback, and the line that is shown."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from ...module_utils.printable import printable
from ...module_utils.quantities import clock, rate, size
from .limits import LIMITS

RECONNECTING = "reconnecting"
"""The state of a transfer whose link broke and is being made again."""

BAR = 24
MIN_BAR = 8
MAX_EVENT_SIZE = 2000
"""Bytes. Some systems do not support larger datagrams."""


@dataclass(frozen=True)
class ProgressEvent:
    """The progress of a transfer. Sizes are in bytes, rates in bytes a second, times in seconds; None is unknown.

    ``state`` is a phase (``engine.status``) or a condition (``transfer``), and ``detail`` explains it to the user. ``done`` and ``total`` refer to
    the phase; ``whole`` is the completed share of all phases, from 0 to 1. ``ended`` marks the last message.
    """

    host: str
    state: str
    done: int = 0
    total: int = 0
    whole: float = 0.0
    now: float | None = None
    mean: float | None = None
    eta: float | None = None
    limit: str = ""
    share: float = 0.0
    ended: bool = False
    detail: str = ""

    def pack(self) -> bytes:
        """Return the datagram."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, data: bytes) -> ProgressEvent:
        """Read a datagram; raises ValueError when it is not valid."""
        try:
            value: dict[str, Any] = json.loads(data)
            event = cls(**value)
            numbers = (event.done, event.total, event.whole, event.now, event.mean, event.eta, event.share)
            if any(
                number is not None and not (isinstance(number, (int, float)) and math.isfinite(number))
                for number in numbers
            ):
                raise ValueError("no number")
            if not all(isinstance(text, str) for text in (event.host, event.state, event.limit, event.detail)):
                raise ValueError("no text")
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        return event

    @property
    def share_done(self) -> float:
        """From 0 to 1."""
        return max(0.0, min(1.0, self.done / self.total)) if self.total > 0 else 0.0


def drawn_bar(share: float, width: int) -> str:
    """Return a bar of that many ASCII characters."""
    full = int(share * width)
    return "#" * full + "-" * (width - full)


def limited(event: ProgressEvent) -> str:
    """Return the text that names the limit."""
    return f"limited by: {event.limit} {event.share:.0%}" if event.limit else ""


def plain_line(event: ProgressEvent) -> str:
    """Return a line without a bar, for a log."""
    cells = _cells(event)
    return "  ".join(cells[name].strip() for name in COLUMNS if cells[name] and name not in ("bar", "short"))


COLUMNS = ("host", "bar", "percent", "size", "now", "mean", "eta", "state", "limit", "short")
RIGHT = ("percent", "size", "now")
SACRIFICES = ("mean", "limit", "size", "now", "state", "short", "eta", "bar")
"""The columns that are dropped when the line is too long, the least important first. "short" replaces "limit" in fewer characters."""


def _cells(event: ProgressEvent) -> dict[str, str]:
    known = event.total > 0
    return {
        "host": printable(event.host),
        "bar": "",
        "percent": f"{int(100 * event.share_done):3d} %" if known else "",
        "size": size(event.done, event.total) if known else "",
        "now": rate(event.now) if known and event.now is not None else "",
        "mean": f"mean {rate(event.mean)}" if known and event.mean is not None else "",
        "eta": f"eta {clock(event.eta)}" if known and event.eta is not None else "",
        "state": printable(f"{event.state} {event.detail}".rstrip()),
        "limit": limited(event),
        "short": f"{LIMITS[event.limit].short} {event.share:.0%}" if event.limit in LIMITS else "",
    }


def rows(many: list[ProgressEvent], width: int) -> list[str]:
    """Return a line with a bar for each, in aligned columns, none longer than ``width``.

    When there is too little room, the bar gets shorter first; then columns are dropped.
    """
    cells = [_cells(event) for event in many]
    columns = {name: max((len(row[name]) for row in cells), default=0) for name in COLUMNS}
    short, columns["short"] = columns["short"], 0
    columns["bar"] = MIN_BAR
    for sacrifice in SACRIFICES:
        if _length(columns) <= width:
            break
        columns[sacrifice] = 0
        if sacrifice == "limit":
            columns["short"] = short
    if columns["bar"]:
        columns["bar"] = min(BAR, MIN_BAR + max(0, width - _length(columns)))
    lines = []
    for row, event in zip(cells, many, strict=True):
        row["bar"] = drawn_bar(event.share_done, columns["bar"]) if event.total > 0 else ""
        parts = [
            f"{row[name]:>{length}}" if name in RIGHT else f"{row[name]:<{length}}"
            for name, length in columns.items()
            if length
        ]
        lines.append("  ".join(parts)[:width].rstrip())
    return lines


def _length(columns: dict[str, int]) -> int:
    return sum(length + 2 for length in columns.values() if length) - 2
