# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and changes the boot entries of UEFI firmware and their order with efibootmgr.

Sources: efibootmgr(8); UEFI specification 2.10, section 3.1.3 (an entry that is not active is not started by itself) and 10.3.5.1 (HD).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Sequence

from ..errors import ImagingError
from .command import MissingTool, RunCommand
from .loaders import MAX_CHOICES, BootChoice, boot_choices
from .partition_table import PartitionTable

FIRMWARE = "/sys/firmware/efi"
"""A folder that exists when this system was started by UEFI."""

ENTRY = re.compile(r"^Boot([0-9A-F]{4})(\*?) *[^\t\n]*(?:\t(.*))?$", re.M)
ON_DISK = re.compile(r"\bHD\((\d+),(GPT|MBR),([0-9a-fx-]+),[^)]*\)/(?:File\()?(\\[^)]*?\.efi)", re.I)
"""A line of ``efibootmgr -v``, and in it the path on a disk, in the forms of versions up to 17 and from 18 on: number of the partition, kind of
table, GUID of the partition or signature of the MBR, path."""

ORDER = re.compile(r"^BootOrder: *([0-9A-F,]+)", re.M)


@dataclass(frozen=True)
class Entry:
    """An entry: its number, whether the firmware may start it, and what it starts (None when that does not lie on a disk)."""

    number: str
    active: bool
    choice: BootChoice | None


@dataclass(frozen=True)
class BootList:
    """All entries, and the numbers of those that the firmware tries, in order."""

    entries: tuple[Entry, ...]
    order: tuple[str, ...]

    def in_order(self) -> list[Entry]:
        """Return the entries that the firmware tries, in order."""
        by_number = {entry.number: entry for entry in self.entries}
        return [by_number[number] for number in dict.fromkeys(self.order) if number in by_number]

    def starting(self, choice: BootChoice) -> list[Entry]:
        """Return the entries that start a loader; the one that is tried first comes first."""
        tried = self.in_order()
        place = (choice.partition, choice.loader.lower())
        there = [(entry, entry.choice) for entry in self.entries if entry.choice]
        ours = [entry for entry, starts in there if (starts.partition, starts.loader.lower()) == place]
        return sorted(ours, key=lambda entry: (not entry.active, tried.index(entry) if entry in tried else len(tried)))

    def is_first(self, entry: Entry) -> bool:
        """Return whether an entry is active and is tried before all others."""
        return entry.active and self.in_order()[:1] == [entry]


@dataclass
class Change:
    """The change, done or planned: the entry's number, whether it was made, whether it was activated or put first, and the removed entries."""

    entry: str = ""
    entry_made: bool = False
    entry_put_first: bool = False
    removed: list[str] = field(default_factory=list)


def obstacle(firmware: str = FIRMWARE, write: bool = True) -> str:
    """Return why the firmware's variables can't be read or written, with the way out; empty when they can."""
    variables = os.path.join(firmware, "efivars")
    if not os.path.isdir(variables) or not os.listdir(variables):
        return f"the firmware's variables are not visible in {variables} (mount -t efivarfs efivarfs {variables})"
    if write and os.statvfs(variables).f_flag & os.ST_RDONLY:
        return f"the firmware's variables are read-only (mount -o remount,rw {variables})"
    return ""


def parse_boot_list(text: str) -> BootList:
    """Parse the output of ``efibootmgr -v``."""
    order = ORDER.search(text)
    entries = [Entry(number, active == "*", _choice(place)) for number, active, place in ENTRY.findall(text)]
    return BootList(tuple(entries), tuple(order.group(1).split(",")) if order else ())


def _choice(place: str) -> BootChoice | None:
    found = ON_DISK.search(place)
    if found is None:
        return None
    number, kind, identity, path = found.groups()
    try:
        partition = f"{int(identity, 16):08x}-{int(number):02x}" if kind.upper() == "MBR" else identity.lower()
    except ValueError:
        return None
    return BootChoice(partition, path.replace("\\", "/"))


def read_boot_list(run: RunCommand) -> BootList:
    """Return the firmware's entries; raises MissingTool, ImagingError."""
    result = run(["efibootmgr", "-v"])
    if result.rc:
        raise ImagingError(f"efibootmgr can't list the firmware's entries: {result.complaint()}.")
    return parse_boot_list(result.out)


def boot_order(run: RunCommand, table: PartitionTable, firmware: str = FIRMWARE) -> list[BootChoice] | None:
    """Return the loaders on a disk that this machine's firmware starts by itself, in order; None when that can't be determined."""
    if not os.path.isdir(firmware) or obstacle(firmware, write=False):
        return None
    try:
        tried = read_boot_list(run).in_order()
    except (MissingTool, ImagingError):
        return None
    partitions = {table.id_of(partition) for partition in table.partitions} - {""}
    ours = [entry.choice for entry in tried if entry.active and entry.choice and entry.choice.partition in partitions]
    return list(boot_choices([choice.to_json() for choice in ours[:MAX_CHOICES]]))


def ensure_entry(run: RunCommand, disk: str, partition: int, choice: BootChoice, write: bool, change: Change) -> None:
    """Make the firmware start ``choice`` from a partition of ``disk`` first, by one entry; raises MissingTool, ImagingError.

    All other entries and their order are kept. ``change`` notes what is changed, which is read back.
    """
    there = read_boot_list(run)
    if not there.starting(choice):
        change.entry_made = True
        if not write:
            return
        label = _label(choice.loader)
        path = choice.loader.replace("/", "\\")
        _change(run, f"make an entry for {disk}", "-c", "-d", disk, "-p", str(partition), "-L", label, "-l", path)
        there = read_boot_list(run)
    ours = there.starting(choice)
    if ours:
        change.entry = ours[0].number
        change.removed = [entry.number for entry in ours[1:]]
        change.entry_put_first = not change.entry_made and not there.is_first(ours[0])
        if write:
            _repair_entry(run, there, ours)
    if write and (change.entry_made or change.entry_put_first or change.removed):
        after = read_boot_list(run)
        ours = after.starting(choice)
        if len(ours) != 1 or not after.is_first(ours[0]):
            state = "" if len(ours) != 1 else ", not active" if not ours[0].active else ", not the first"
            raise ImagingError(
                f"efibootmgr succeeded, but the firmware's list is not as expected: it should begin with one active entry for {choice.loader} on "
                f"partition {partition} of {disk}, and has {len(ours)} entries{state}. Some firmware does not keep entries. Choose the disk in the "
                "firmware's menu to start it."
            )


def _repair_entry(run: RunCommand, there: BootList, ours: Sequence[Entry]) -> None:
    """Keep only the first of several entries for one loader, activate it and put it first."""
    kept, *others = ours
    for entry in others:
        _change(run, f"remove entry {entry.number}", "-b", entry.number, "-B")
    if not kept.active:
        _change(run, f"activate entry {kept.number}", "-b", kept.number, "-a")
    if there.in_order()[:1] != [kept]:
        rest = [entry.number for entry in there.in_order() if entry not in ours]
        _change(run, f"put entry {kept.number} first", "-o", ",".join([kept.number, *rest]))


def _change(run: RunCommand, what: str, *options: str) -> None:
    result = run(["efibootmgr", "-q", *options])
    if result.rc:
        raise ImagingError(f"efibootmgr can't {what}: {result.complaint()}.")


def _label(loader: str) -> str:
    """Return the entry's name in the firmware's menu: that which Windows uses itself, otherwise the name of the loader's folder."""
    folder = loader.strip("/").split("/")[1]
    return "Windows Boot Manager" if folder.lower() == "microsoft" else folder
