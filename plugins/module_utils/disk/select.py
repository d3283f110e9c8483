# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses the one disk that is safe to use, or says why there is none."""

from __future__ import annotations

from typing import Sequence

from ..errors import ImagingError
from .devices import Disk

SOURCE = "source"
TARGET = "target"
PURPOSES = {SOURCE: "captured", TARGET: "restored"}

HIDDEN_DISK = (
    "No internal disk is seen at all. When the firmware runs the storage controller as RAID (Intel RST or VMD), Linux may not see an "
    "NVMe disk: switch it to AHCI in the firmware's setup. If Windows is installed, have it start once in safe mode right after that."
)


def select_disk(disks: Sequence[Disk], requested: str | None, purpose: str) -> Disk:
    """The requested disk (its path or a link by id), or else the only one that may be chosen by default; purpose "source" or "target".

    Raises ImagingError with a table of all disks and what is against each.
    """
    if requested is not None:
        return _requested(disks, requested, purpose)
    usable = [disk for disk in disks if not refusals(disk, purpose) and not disk.not_default]
    if len(usable) == 1:
        return usable[0]
    if usable:
        names = ", ".join(disk.path for disk in usable)
        problem = f"Several disks could be {PURPOSES[purpose]} ({names}): name the one that is meant."
    else:
        problem = f"There is no disk that can be {PURPOSES[purpose]} without being named."
        if not any(_is_internal(disk) for disk in disks):
            problem += " " + HIDDEN_DISK
    raise ImagingError(f"{problem}\n{disk_table(disks, purpose)}")


def _requested(disks: Sequence[Disk], requested: str, purpose: str) -> Disk:
    for disk in disks:
        if requested == disk.path or requested in disk.by_id:
            against = refusals(disk, purpose)
            if against:
                raise ImagingError(f"{disk.path} can't be {PURPOSES[purpose]}: {' '.join(against)}")
            return disk
    raise ImagingError(f"There is no disk {requested}.\n{disk_table(disks, purpose)}")


def refusals(disk: Disk, purpose: str) -> tuple[str, ...]:
    """What is in the way of a purpose."""
    return disk.source_refusals if purpose == SOURCE else disk.target_refusals


def disk_table(disks: Sequence[Disk], purpose: str) -> str:
    """A table of disks, each with what is against it."""
    rows = [("DISK", "SIZE", "CONNECTED", "MODEL", "SERIAL", "AGAINST IT")]
    for disk in disks:
        against = " ".join((*refusals(disk, purpose), *(f"Only when named: {reason}." for reason in disk.not_default)))
        rows.append((disk.path, _size(disk.size), disk.transport, disk.model, disk.serial, against or "nothing"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    if len(rows) == 1:
        return "This machine has no disks."
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]) for row in rows)


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _is_internal(disk: Disk) -> bool:
    return disk.kind == "disk" and not disk.not_default and bool(disk.size)
