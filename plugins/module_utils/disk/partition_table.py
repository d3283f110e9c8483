# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the partition table of a disk with ``sfdisk --json`` (sfdisk(8)), and finds the places of the table itself."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import Any, Iterator, Mapping

from ..errors import ImagingError
from .blkid import detect
from .command import RunCommand
from .gpt import BOOT_SIGNATURE, MBR_ENTRIES, MBR_ENTRY, PROTECTIVE_TYPE, GptHeader, Read, unannounced_partitions
from .raw_io import logical_sector_size

NO_TABLE = "does not contain a recognized partition table"
PARTITION_LIMIT = 4096

BOOT_RECORD = 512
"""Bytes of a boot record."""

EXTENDED_TYPES = ("5", "f", "85")
"""Types of a DOS partition that holds others, in hexadecimal."""

ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")
"""Types of the EFI system partition, in a GPT and in a DOS table (UEFI 2.10, sections 5.2.2 and 5.3.3)."""


def is_esp(kind: str) -> bool:
    """Return whether a type in a table is that of the EFI system partition."""
    return _plain(kind) in ESP_TYPES


def _plain(kind: str) -> str:
    """Return a type in small letters, a number without leading zeros: sfdisk writes what it was given."""
    return kind.lower().lstrip("0")


@dataclass(frozen=True)
class Partition:
    """An entry of a table. ``start`` and ``size`` are in bytes; ``type`` is a GUID, or a hexadecimal number in DOS tables."""

    number: int
    node: str
    start: int
    size: int
    type: str
    uuid: str = ""
    name: str = ""

    def place(self) -> dict[str, Any]:
        """Return the fields that a description of its content repeats."""
        return {name: getattr(self, name) for name in ("number", "node", "start", "size", "type")}

    @property
    def end(self) -> int:
        """The byte after the last one."""
        return self.start + self.size


@dataclass(frozen=True)
class PartitionTable:
    """A partition table; its partitions are sorted by start.

    ``raw`` is sfdisk's JSON. ``metadata_ranges`` are the bytes of the table itself: the headers and entries of a GPT, the boot records of logical
    partitions in a DOS table. ``backup_ranges`` are those of the backup GPT. ``hybrid_ranges`` are the entries of a hybrid MBR. ``faults`` say why
    the table can't be a true description of the disk.
    """

    label: str
    sector_size: int
    disk_size: int
    partitions: tuple[Partition, ...]
    raw: Mapping[str, Any]
    metadata_ranges: tuple[tuple[int, int], ...] = ()
    backup_ranges: tuple[tuple[int, int], ...] = ()
    hybrid_ranges: tuple[tuple[int, int], ...] = ()
    faults: tuple[str, ...] = ()

    def is_extended(self, partition: Partition) -> bool:
        """Return whether a partition only contains other ones."""
        return self.label == "dos" and _plain(partition.type) in EXTENDED_TYPES

    def is_logical(self, partition: Partition) -> bool:
        """Return whether a partition lies in an extended one."""
        return self.label == "dos" and partition.number > 4

    def id_of(self, partition: Partition) -> str:
        """Return the kernel's PARTUUID of a partition; empty when the table has none."""
        if self.label == "dos":
            signature = str(self.raw.get("id") or "")
            known = re.fullmatch("0x[0-9a-f]{1,8}", signature)
            return f"{int(signature, 16):08x}-{partition.number:02x}" if known else ""
        return partition.uuid.lower()


def read_partition_table(run: RunCommand, path: str) -> PartitionTable | None:
    """Return the table of the disk at ``path``; None when sfdisk knows none, or it is a volume that only looks like one.

    Raises MissingTool without sfdisk, and ImagingError when sfdisk fails or its output is not valid.
    """
    device = os.path.realpath(path)
    result = run(["sfdisk", "--json", device])
    if result.rc and NO_TABLE in result.err:
        return None
    if result.rc:
        raise ImagingError(f"sfdisk can't read the partition table of {path}: {result.complaint()}.")
    try:
        with open(device, "rb", buffering=0) as disk:
            size = disk.seek(0, os.SEEK_END)
            descriptor = disk.fileno()
            sector_size = logical_sector_size(descriptor)
            table = parse_partition_table(
                result.out, device, size, sector_size, lambda offset, length: os.pread(descriptor, length, offset)
            )
    except OSError as error:
        raise ImagingError(f"The partition table of {path} can't be read: {error.strerror}.") from error
    return None if table.label == "dos" and _is_volume(run, path, table) else table


def _is_volume(run: RunCommand, path: str, table: PartitionTable) -> bool:
    """Return whether a disk holds one volume, such as BitLocker's, whose boot sector sfdisk takes for a DOS table.

    blkid distinguishes the two. A RAID's signature does not count: it lies at the end of the disk and may be stale, and blkid then looks for no
    table.
    """
    try:
        content = detect(run, path)
    except ImagingError:
        return False  # callers that need the disk's content call detect() themselves, and get this error
    unlikely = not content.partition_table or bool(table.faults)
    return bool(content.type) and content.usage != "raid" and unlikely


def parse_partition_table(text: str, device: str, disk_size: int, sector_size: int, read: Read) -> PartitionTable:
    """Parse the untrusted output of sfdisk; raises ImagingError.

    ``sector_size`` is that of the device: before util-linux 2.35, sfdisk does not say its unit.
    """
    raw = _parse_json(text, device)
    label = _text(raw, "label")
    if raw.get("sectorsize", sector_size) != sector_size or raw.get("unit", "sectors") != "sectors":
        raise ImagingError(
            f"sfdisk counts {raw.get('unit')} of {raw.get('sectorsize')} bytes on {device}: expected sectors of {sector_size}."
        )
    entries = raw.get("partitions", [])
    if not isinstance(entries, list) or len(entries) > PARTITION_LIMIT:
        raise ImagingError(f"sfdisk gave no list of at most {PARTITION_LIMIT} partitions for {device}.")
    partitions = sorted((_partition(entry, device, sector_size) for entry in entries), key=lambda each: each.start)
    table = PartitionTable(
        label=label, sector_size=sector_size, disk_size=disk_size, partitions=tuple(partitions), raw=raw
    )
    faults = list(_faults(table))
    if label == "gpt":
        main, backup = _gpt_ranges(read, disk_size, sector_size)
        table = replace(
            table,
            metadata_ranges=(*main, *backup),
            backup_ranges=tuple(backup),
            hybrid_ranges=tuple(_hybrid_ranges(read, disk_size, sector_size)),
        )
    elif label == "dos":
        boot_records = list(_boot_records(read, table))
        table = replace(table, metadata_ranges=tuple((place, place + sector_size) for place in boot_records))
        named = unannounced_partitions(read, sector_size)
        if named:
            faults.append(
                f"Its MBR has no entry of type EE, and yet there is a valid GPT, which names {named} partitions: some systems go by the MBR, "
                "others by the GPT."
            )
    return replace(table, faults=tuple(faults))


def _parse_json(text: str, device: str) -> Mapping[str, Any]:
    try:
        # Names may contain control characters, which sfdisk passes on.
        answer = json.loads(text, strict=False)
        raw = answer["partitiontable"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ImagingError(f"The output of sfdisk for {device} can't be read: {text[:200]!r}.") from error
    if not isinstance(raw, dict):
        raise ImagingError(f"The output of sfdisk for {device} has no partition table: {text[:200]!r}.")
    return raw


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name, "")
    if not isinstance(text, str):
        raise ImagingError(f"sfdisk gave {text!r} as {name}: expected text.")
    return text


def _partition(entry: Any, device: str, sector_size: int) -> Partition:
    if not isinstance(entry, dict):
        raise ImagingError(f"sfdisk gave {entry!r} as a partition of {device}.")
    node = _text(entry, "node")
    number = re.fullmatch(r"(?:p|-part)?([1-9][0-9]{0,4})", node[len(device) :] if node.startswith(device) else "")
    if number is None:
        raise ImagingError(f"sfdisk gave {node!r} as a partition of {device}.")
    return Partition(
        number=int(number.group(1)),
        node=node,
        start=_sectors(entry, "start", node) * sector_size,
        size=_sectors(entry, "size", node, least=1) * sector_size,
        type=_text(entry, "type"),
        uuid=_text(entry, "uuid"),
        name=_text(entry, "name"),
    )


def _sectors(entry: Mapping[str, Any], name: str, node: str, least: int = 0) -> int:
    count = entry.get(name)
    if not isinstance(count, int) or isinstance(count, bool) or not least <= count < 1 << 54:
        raise ImagingError(f"sfdisk gave {count!r} as {name} of {node}: expected a number of sectors.")
    return count


def _gpt_ranges(read: Read, disk_size: int, sector_size: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the ranges of a GPT's headers and entries, and those of its backups: at the end of the disk, and where the primary header says."""
    sectors = disk_size // sector_size
    primary = GptHeader.read(read, 1, sector_size)
    places = {1, sectors - 1} | ({primary.backup} if primary else set())
    main: list[tuple[int, int]] = []
    backup: list[tuple[int, int]] = []
    for place in sorted(place for place in places if 0 < place < sectors):
        header = GptHeader.read(read, place, sector_size)
        if header is None:
            continue
        ranges = main if place == 1 else backup
        ranges.append((place * sector_size, (place + 1) * sector_size))
        start, end = header.entries_range(sector_size)
        # A header that claims more than the disk has is damaged, and is ignored.
        if start < end <= disk_size:
            ranges.append((start, end))
    return main, backup


def _boot_records(read: Read, table: PartitionTable) -> Iterator[int]:
    """Yield the offsets of the boot records that describe the logical partitions.

    Each names a partition and the next record, relative to the extended partition, and may lie anywhere in it, also in the free space of a file
    system. Source: the kernel's block/partitions/msdos.c, parse_extended.
    """
    for extended in filter(table.is_extended, table.partitions):
        place = extended.start
        seen: set[int] = set()
        while place not in seen and len(seen) < PARTITION_LIMIT and place + table.sector_size <= table.disk_size:
            record = read(place, BOOT_RECORD)
            if record[510:512] != BOOT_SIGNATURE:
                break
            yield place
            seen.add(place)
            entries = (MBR_ENTRY.unpack_from(record, offset) for offset in MBR_ENTRIES)
            link = next(
                (start for kind, start, count in entries if _plain(f"{kind:x}") in EXTENDED_TYPES and count), None
            )
            if link is None:
                break
            place = extended.start + link * table.sector_size


def _hybrid_ranges(read: Read, disk_size: int, sector_size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the MBR's entries, without the protective one."""
    boot_sector = read(0, BOOT_RECORD)
    if boot_sector[510:512] != BOOT_SIGNATURE:
        return
    for offset in MBR_ENTRIES:
        kind, start, count = MBR_ENTRY.unpack_from(boot_sector, offset)
        if kind and kind != PROTECTIVE_TYPE and count:
            yield min(start * sector_size, disk_size), min((start + count) * sector_size, disk_size)


def _faults(table: PartitionTable) -> Iterator[str]:
    numbers = set()
    extended = [partition for partition in table.partitions if table.is_extended(partition)]
    for partition in table.partitions:
        if partition.number in numbers:
            yield f"There are two partitions {partition.number}."
        numbers.add(partition.number)
        if table.label == "dos" and partition.type == f"{PROTECTIVE_TYPE:x}":
            yield "The MBR is that of a GPT disk, and there is no valid GPT."
        if partition.end > table.disk_size:
            yield (
                f"Partition {partition.number} ends at {partition.end}, beyond the end of the disk at {table.disk_size}."
            )
        holders = [holder for holder in extended if holder.start <= partition.start and partition.end <= holder.end]
        if table.is_logical(partition) and not holders:
            yield f"The logical partition {partition.number} lies outside of the extended one."
