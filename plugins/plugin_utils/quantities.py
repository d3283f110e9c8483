# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, rates and durations as people read them."""

from __future__ import annotations

UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def size(value: float, of: float | None = None) -> str:
    """A size as people read it; with ``of`` as "5.2 of 12.6 GiB"."""
    factor, unit = next(((factor, unit) for factor, unit in UNITS if (of or value) >= factor), (1, "B"))
    digits = 1 if factor > 1 else 0
    whole = f"{value / factor:.{digits}f}"
    return f"{whole} {unit}" if of is None else f"{whole} of {of / factor:.{digits}f} {unit}"


def rate(value: float | None) -> str:
    """A rate in MB/s, as networks and disks are sold."""
    if value is None:
        return "- MB/s"
    return f"{value / 1e6:.0f} MB/s" if value >= 9.95e6 else f"{value / 1e6:.1f} MB/s"


def clock(seconds: float | None) -> str:
    """A duration as 0:35, 12:08 or 1:02:03."""
    if seconds is None:
        return "-:--"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
