# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Selects the one disk that is safe to use, or explains why there is none."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Sequence

from ..errors import ImagingError
from ..quantities import size
from ..reasons import NO_DISK, NO_SUCH_DISK, SEVERAL_DISKS, refuse_for
from .devices import Disk

SOURCE = "source"
TARGET = "target"
PURPOSES = {SOURCE: "captured", TARGET: "restored"}

HIDDEN_DISK = (
    "No internal disk was found. When the firmware runs the storage controller as RAID (Intel RST or VMD), Linux may not see an "
    "NVMe disk: switch it to AHCI in the firmware's setup. If Windows is installed, start it once in safe mode right after that."
)


@dataclass(frozen=True)
class Wanted:
    """The description of a disk. Sizes are in bytes; ``model`` is a shell pattern. Empty values match everything."""

    serial: str = ""
    wwn: str = ""
    model: str = ""
    transport: str = ""
    min_size: int = 0
    max_size: int = 0

    def mismatch(self, disk: Disk) -> str:
        """Return why a disk does not match; empty when it does."""
        for name in ("serial", "wwn", "transport"):
            wanted, found = getattr(self, name), getattr(disk, name)
            if wanted and found.lower() != wanted.lower():
                return f"Its {name} is {found or 'unknown'}, not {wanted}."
        if self.model and not fnmatch.fnmatchcase(disk.model.lower(), self.model.lower()):
            return f"Its model is {disk.model or 'unknown'}, which does not match {self.model}."
        if disk.size < self.min_size:
            return f"It has {disk.size} bytes, less than {self.min_size}."
        if self.max_size and disk.size > self.max_size:
            return f"It has {disk.size} bytes, more than {self.max_size}."
        return ""

    @property
    def names(self) -> bool:
        """Whether the description is specific enough for a disk that must be named."""
        return bool(self.serial or self.wwn or self.transport)


def select_disk(
    disks: Sequence[Disk],
    requested: str | None,
    purpose: str,
    release: bool = False,
    wanted: Wanted | None = None,
) -> Disk:
    """Return the requested disk (its path or a link by id), or the only suitable one; ``purpose`` is "source" or "target".

    With ``release``, uses that ``disk.release`` can end do not matter. ``wanted`` narrows the choice. Raises ImagingError with a table of all disks
    and the reasons against each.
    """
    if requested is not None:
        return _requested(disks, requested, purpose, release)
    against = [_reasons_against(disk, purpose, release, wanted or Wanted()) for disk in disks]
    usable = [disk for disk, reasons in zip(disks, against) if not reasons]
    # Of two disks that match, the free one need not be the intended one.
    described = [disk for disk in disks if wanted and _is_meant(disk, wanted)]
    if len(usable) == 1 and len(described) <= 1:
        return usable[0]
    if len(described) > 1:
        names = ", ".join(disk.path for disk in described)
        problem = f"Several disks match the description in imaging_disk ({names}): add to the description, for example the serial."
    elif usable:
        names = ", ".join(disk.path for disk in usable)
        problem = f"Several disks could be {PURPOSES[purpose]} ({names}): set imaging_disk to the one that is meant."
    elif wanted:
        problem = f"No disk that can be {PURPOSES[purpose]} matches the description in imaging_disk."
    else:
        problem = f"No disk can be {PURPOSES[purpose]} unless imaging_disk names it."
        if not any(disk.kind == "disk" and not disk.not_default and disk.size for disk in disks):
            problem += " " + HIDDEN_DISK
    code = SEVERAL_DISKS if usable or len(described) > 1 else NO_DISK
    raise ImagingError(f"{problem}\n{disk_table(disks, against)}", [code])


def _requested(disks: Sequence[Disk], requested: str, purpose: str, release: bool) -> Disk:
    for disk in disks:
        if requested == disk.path or requested in disk.by_id:
            refuse_for(disk.refusals(purpose == TARGET, release), f"{disk.path} can't be {PURPOSES[purpose]}:")
            return disk
    against = [_reasons_against(disk, purpose, release, Wanted()) for disk in disks]
    raise ImagingError(f"There is no disk {requested}.\n{disk_table(disks, against)}", [NO_SUCH_DISK])


def _is_meant(disk: Disk, wanted: Wanted) -> bool:
    """Return whether a description matches a disk, whether it is in use or not."""
    return not wanted.mismatch(disk) and not disk.live_medium and (wanted.names or not disk.not_default)


def _reasons_against(disk: Disk, purpose: str, release: bool, wanted: Wanted) -> list[str]:
    mismatch = wanted.mismatch(disk)
    if mismatch:
        return [mismatch]
    by_name = [] if wanted.names else [f"Only when named: {reason.message}." for reason in disk.not_default]
    return [*(refusal.message for refusal in disk.refusals(purpose == TARGET, release)), *by_name]


def disk_table(disks: Sequence[Disk], against: Sequence[Sequence[str]]) -> str:
    """Return a table of disks with the reasons against each."""
    rows = [("DISK", "SIZE", "CONNECTED", "MODEL", "SERIAL", "AGAINST IT")]
    for disk, reasons in zip(disks, against):
        said = " ".join(reasons) or "nothing"
        rows.append((disk.path, size(disk.size), disk.transport or "-", disk.model or "-", disk.serial or "-", said))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    if len(rows) == 1:
        return "This machine has no disks."
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]) for row in rows)
