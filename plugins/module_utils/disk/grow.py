# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Grows a partition and its file system into the free space behind it, with sfdisk and the tools of the file system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Mapping

from ..errors import ImagingError
from ..printable import printable
from ..reasons import refuse_for
from ..timeouts import DEFAULTS
from .blkid import detect
from .command import RunCommand
from .devices import Disk
from .filesystems.base import Grower
from .filesystems.registry import FILE_SYSTEMS, distrust, file_system, file_system_size
from .identity import selected_disk
from .partition_node import flush, partition_node
from .partition_table import Partition, PartitionTable, read_partition_table
from .raw_io import RawDisk
from .signatures import TAIL
from .udev import settle

ALIGNMENT = 1 << 20
"""Bytes to which partitions are aligned on current disks. A smaller gain is not worth growing for."""

LAST = "last"
MAX_DOS_SECTORS = 1 << 32

GROWABLE = tuple(name for kind in FILE_SYSTEMS if kind.grower for name in kind.names)
"""blkid's names of the file systems that can be grown."""


@dataclass(frozen=True)
class Growth:
    """What was grown or, in check mode, would be grown. Sizes are in bytes."""

    partition: int
    content: str
    old_size: int
    new_size: int
    changed: bool


def grow(
    run: RunCommand,
    device: str,
    which: str,
    write: bool,
    expect: Mapping[str, Any] | None = None,
    patience: float = DEFAULTS.held_disk,
) -> Growth:
    """Grow a partition and its file system as far as possible; raises ImagingError, if possible before anything is changed.

    ``which`` is "last", or the name or number of a partition; ``expect`` identifies the disk (``identity.selected_disk``). A disk that another
    program holds is waited for, for ``patience`` seconds each time.
    """
    settle(run, patience)
    with selected_disk(run, device, expect) as disk:
        return _grow(run, disk, which, write, patience)


def _grow(run: RunCommand, disk: Disk, which: str, write: bool, patience: float) -> Growth:
    refuse_for(disk.target_refusals, f"{disk.path} can't be changed:")
    table = _sound_table(run, disk.path)
    partition = _choose(table, which)
    _refuse_what_is_behind(table, partition)
    content = detect(run, disk.path, partition.start, partition.size)
    kind = file_system(content.type)
    grower = kind.grower
    if grower is None:
        raise ImagingError(
            f"Partition {partition.number} of {disk.path} holds {content.type or 'nothing known'}, which can't be grown. "
            f"Expected one of {', '.join(GROWABLE)}. Nothing was changed."
        )
    end = _room(table) // ALIGNMENT * ALIGNMENT
    grown = replace(partition, size=max(partition.size, end - partition.start))
    enlarge = grown.size - partition.size >= ALIGNMENT
    if not enlarge:
        grown = partition
    behind = _lags_behind(disk.path, grown, content.type)
    growth = Growth(
        partition=partition.number,
        content=content.type,
        old_size=partition.size,
        new_size=grown.size,
        changed=enlarge or behind,
    )
    if not growth.changed:
        return growth
    if kind.check:
        with partition_node(run, disk.path, partition) as node:
            doubt = distrust(run, content.type, node)
        if doubt:
            raise ImagingError(
                f"Partition {partition.number} of {disk.path} can't be grown: {doubt.reason}. Nothing was changed."
            )
    for program in ("sfdisk", *grower.programs):
        run([program, "-V"])  # raises when it is missing, before anything is changed
    if write:
        if enlarge:
            _enlarge(run, disk.path, table, grown, patience)
        try:
            _grow_content(run, disk.path, grown, content.type, grower)
        except (ImagingError, OSError) as error:
            raise ImagingError(
                f"{error} Partition {grown.number} was enlarged and its file system was not: run again with the same imaging_grow to go on, "
                "or restore this laptop again without it."
            ) from error
    return growth


def _sound_table(run: RunCommand, path: str) -> PartitionTable:
    table = read_partition_table(run, path)
    if table is None or table.label not in ("gpt", "dos") or table.faults:
        raise ImagingError(f"{path} has no sound partition table of the kinds gpt and dos: there is nothing to grow.")
    return table


def _choose(table: PartitionTable, which: str) -> Partition:
    candidates = [each for each in table.partitions if not table.is_extended(each)]
    meant = [each for each in candidates if which.lower() in (each.name.lower(), str(each.number))]
    chosen = candidates[-1:] if which == LAST else meant
    if len(chosen) != 1:
        there = ", ".join(f"{each.number} ({printable(each.name) or 'no name'})" for each in candidates) or "none"
        raise ImagingError(
            f"{'No' if not chosen else 'More than one'} partition is {which}: expected last, or the name or number of one. There are: {there}."
        )
    if table.is_logical(chosen[0]):
        raise ImagingError(
            f"Partition {chosen[0].number} lies in an extended partition, where growing is not supported."
        )
    return chosen[0]


def _refuse_what_is_behind(table: PartitionTable, partition: Partition) -> None:
    behind = [each for each in table.partitions if each.start >= partition.end]
    if behind:
        names = ", ".join(f"{each.number}{f' ({printable(each.name)})' if each.name else ''}" for each in behind)
        raise ImagingError(
            f"Partition {partition.number} can't be grown, because partition {names} lies behind it. It is not moved: Windows notes where its "
            "recovery partition lies, and does not find it elsewhere. On the reference, make the partition that is to grow the last one "
            "(Windows: reagentc /disable, and delete the recovery partition or create it again before the others), and capture again. "
            "Nothing was changed."
        )


def _room(table: PartitionTable) -> int:
    """Return the end of the space for partitions, in bytes."""
    last = table.raw.get("lastlba")
    if table.label == "gpt" and isinstance(last, int):
        return min((last + 1) * table.sector_size, table.disk_size)
    return min(table.disk_size, MAX_DOS_SECTORS * table.sector_size)


def _enlarge(run: RunCommand, path: str, before: PartitionTable, grown: Partition, patience: float) -> None:
    line = f"size={grown.size // before.sector_size}"
    old_end = next(each.end for each in before.partitions if each.number == grown.number)
    tail = max(old_end, grown.end - TAIL)
    script = 'printf "%s\\n" "$3" | sfdisk --quiet --no-reread --no-tell-kernel -N "$2" "$1"'
    # Hold the disk until the kernel has read the new table, so that nobody examines the disk or removes its partitions meanwhile.
    with RawDisk(path, writable=True, patience=patience) as disk:
        # Remains of a former owner at the new end would identify the partition: a signature of a RAID would make it a member.
        disk.zero(tail, grown.end - tail)
        result = run(["sh", "-c", script, "sh", path, str(grown.number), line])
        if result.rc:
            raise ImagingError(f"sfdisk could not enlarge partition {grown.number} of {path}: {result.complaint()}.")
        after = read_partition_table(run, path)
        expected = [grown if each.number == grown.number else each for each in before.partitions]
        if after is None or list(after.partitions) != expected:
            raise ImagingError(
                f"After sfdisk the partition table of {path} is not what it should be: look at it with sfdisk --dump, or restore this laptop "
                "again."
            )
        disk.flush()
        disk.reread_partition_table()
    settle(run, patience)


def _grow_content(run: RunCommand, path: str, partition: Partition, content: str, grower: Grower) -> None:
    with partition_node(run, path, partition, writable=True) as node:
        for command, good in grower.commands:
            result = run([*command, node])
            if result.rc not in good:
                raise ImagingError(
                    f"{command[0]} could not grow the file system in partition {partition.number} of {path}: {result.complaint()}."
                )
    flush(path)
    if _lags_behind(path, partition, content):
        raise ImagingError(f"The file system in partition {partition.number} of {path} did not grow with it.")


def _lags_behind(path: str, partition: Partition, content: str) -> bool:
    size = file_system_size(path, partition.start, content)
    return size is not None and partition.size - size >= ALIGNMENT
