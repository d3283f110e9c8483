# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, rates and durations as text for people: the one form of each, for messages, tables, progress and the report.

A laptop may report anything, so each function takes any value, and shows one that is not a number of zero or more as ``UNKNOWN``.
"""

from __future__ import annotations

import math
from typing import Any

UNKNOWN = "-"

UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def number(value: Any) -> float | None:
    """A finite number of zero or more, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        known = float(value)
    except OverflowError:
        return None
    return known if math.isfinite(known) and known >= 0 else None


def size(value: Any, of: float | None = None) -> str:
    """Bytes, such as "12.6 GiB"; with ``of`` as "5.2 of 12.6 GiB"."""
    known = number(value)
    if known is None:
        return UNKNOWN
    factor, unit = next(((factor, unit) for factor, unit in UNITS if (of or known) >= factor), (1, "B"))
    digits = 1 if factor > 1 else 0
    whole = "" if of is None else f" of {of / factor:.{digits}f}"
    return f"{known / factor:.{digits}f}{whole} {unit}"


def rate(value: Any) -> str:
    """Bytes per second as MB/s, the unit in which networks and disks are sold."""
    known = number(value)
    if known is None:
        return UNKNOWN
    return f"{known / 1e6:.{0 if known >= 9.95e6 else 1}f} MB/s"


def duration(value: Any) -> str:
    """Seconds, such as "9.5 s", "12 min 08 s" or "1 h 02 min"."""
    known = number(value)
    if known is None:
        return UNKNOWN
    if known < 59.95:
        return f"{known:.1f} s"
    minutes, seconds = divmod(round(known), 60)
    return f"{minutes} min {seconds:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def clock(value: Any) -> str:
    """Seconds where there is little room, such as 0:35, 12:08 or 1:02:03."""
    known = number(value)
    if known is None:
        return "-:--"
    minutes, seconds = divmod(round(known), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
