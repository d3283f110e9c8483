# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts and numbers for the report."""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.fleet.imaging.plugins.plugin_utils import quantities

SPACE = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"


def number(value: Any) -> float | None:
    """A number that is none below zero, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        known = float(value)
    except OverflowError:
        return None
    return known if math.isfinite(known) and known >= 0 else None


def size(value: Any) -> str:
    """Bytes as KiB, MiB, GiB or TiB."""
    known = number(value)
    return NOTHING if known is None else quantities.size(known).replace(" ", SPACE)


def rate(value: Any) -> str:
    """Bytes per second as MB/s."""
    known = number(value)
    return NOTHING if known is None else quantities.rate(known).replace(" ", SPACE)


def duration(value: Any) -> str:
    """Seconds as people say them."""
    known = number(value)
    if known is None:
        return NOTHING
    if known < 9.95:
        return f"{known:.1f}{SPACE}s"
    whole = round(known)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60:02d}{SPACE}s".replace(" ", SPACE)
    return f"{whole // 3600}{SPACE}h{SPACE}{whole % 3600 // 60:02d}{SPACE}min"


def percent(share: float) -> str:
    """A share of one."""
    return f"{share * 100:.0f}{SPACE}%" if share >= 0.005 or share == 0 else f"<{SPACE}1{SPACE}%"


def laptops(count: int) -> str:
    """So many laptops, in words that fit."""
    return f"{count} laptop{'' if count == 1 else 's'}"
