# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fits an image to a disk of another size: whether it fits, and which chunks of the disk then differ from the image.

The backup of a GPT moves to the end of the disk. Everything else in the last 2 MiB (backups of older GPTs, metadata of RAID) becomes zeros.
A smaller disk must have room for all partitions, and for all used space outside of them except the image's last 2 MiB.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, Iterator, Mapping

from ..disk.gpt import ENTRIES_LIMIT, MIN_ENTRY_SIZE, USUAL_ENTRIES, Read, relocate, reserve, unannounced_partitions
from ..disk.image_fit import ImageFacts
from ..disk.ranges import ByteRanges
from ..disk.signatures import TAIL
from ..errors import ImagingError
from ..image.geometry import Geometry
from ..image.header import ImageHeader
from ..image.index import Index, Row
from ..image.record import USED, ZERO, pack_ranges, unpack_ranges
from .goal import PatchedChunk
from .partition_names import content_and_label, known_partitions

DYNAMIC_DISK = "42"
"""Type of the DOS partitions of Windows' dynamic disks, whose database is at the very end."""

MAX_ENTRIES = ENTRIES_LIMIT // MIN_ENTRY_SIZE

NOT_MOVED = "Use a disk of exactly the same size"


@dataclass(frozen=True)
class Extent:
    """The minimum size in bytes of a disk for an image, where the image's content ends, and a description of what ends there."""

    least: int
    end: int
    last: str


def extent(header: ImageHeader, index: Index) -> Extent:
    """Return how far the content of an image reaches."""
    size, sector_size = header.geometry.disk_size, header.geometry.logical_sector_size
    label = _label(header)
    if label not in ("gpt", "dos") or not any(_entries(header)):
        return Extent(size, size, "its content, whose end no partition table gives")
    ends = [
        (each["start"] + each["size"], f"the end of {_name(each)} at {each['start'] + each['size']}")
        for each in known_partitions(header.source.get("partitions"))
    ]
    used = _last_used(index, size - TAIL, ByteRanges(_backup_ranges(header)) if label == "gpt" else ByteRanges())
    ends.append((used, f"used space outside of partitions up to {used}"))
    # Of several that end together, max() takes the first: a partition, which has a name.
    end, last = max(ends, key=lambda each: each[0])
    entries = _count(header.partition_table, "table-length", USUAL_ENTRIES)
    least = -(-end // sector_size) * sector_size + (reserve(sector_size, entries) if label == "gpt" else 0)
    return Extent(min(least, size), end, last)


def image_facts(header: ImageHeader, index: Index, name: str = "") -> ImageFacts:
    """Return the facts of an image that decide whether a disk can hold it."""
    reach = extent(header, index)
    serial, wwn, host, device = (str(header.source.get(each) or "") for each in ("serial", "wwn", "host", "device"))
    return ImageFacts(
        name=name,
        minimum_size=reach.least,
        minimum_reason=reach.last,
        logical_sector_size=header.geometry.logical_sector_size,
        source_serial=serial,
        source_wwn=wwn,
        source_host=host,
        source_device=device,
    )


def patched_chunks(header: ImageHeader, index: Index, target_size: int, read: Read) -> dict[int, PatchedChunk]:
    """Return the chunks in which a target differs from the image; none on a disk of the same size. ``read`` gives the image's content.

    Raises ImagingError when the image can't be moved to that size.
    """
    geometry = header.geometry
    if target_size == geometry.disk_size:
        return {}
    writes = []
    if _label(header) == "gpt":
        try:
            writes = relocate(read, geometry.disk_size, target_size, geometry.logical_sector_size)
        except ImagingError as error:
            raise ImagingError(
                f"The image's partition table can't be moved to a disk of another size: {error} {NOT_MOVED}, or repair "
                "the table of the reference (sgdisk -v shows its problems) and capture again."
            ) from error
    elif unannounced_partitions(read, geometry.logical_sector_size):
        raise ImagingError(
            "The image's disk has an MBR and a GPT that say different things, and only one of them could be moved to a disk of another size. "
            f"{NOT_MOVED}, or remove the one that is not meant on the reference (sgdisk --zap or gdisk) and capture again."
        )
    elif any(each.get("type") == DYNAMIC_DISK for each in _entries(header)):
        raise ImagingError(
            "The image is of a dynamic disk of Windows, whose database lies at the end of exactly that disk. "
            f"{NOT_MOVED}, or convert the reference's into a basic disk."
        )
    target = replace(geometry, disk_size=target_size)
    kept = min(geometry.disk_size, target_size)
    end = kept if kept == geometry.disk_size else min(extent(header, index).end, kept)
    tail = (max(end, target_size - TAIL), target_size)
    places = [tail, *((start, start + len(data)) for start, data in writes)]
    chunks = {chunk for low, high in places for chunk in range(low // target.chunk_size, -(-high // target.chunk_size))}
    # The image's last chunk may be longer or shorter than it is on the target.
    last = kept // target.chunk_size
    if last < min(geometry.chunk_count, target.chunk_count) and geometry.length(last) != target.length(last):
        chunks.add(last)
    return {chunk: _patched_chunk(chunk, index, target, kept, tail, writes, read) for chunk in sorted(chunks)}


def _patched_chunk(
    chunk: int,
    index: Index,
    target: Geometry,
    kept: int,
    tail: tuple[int, int],
    writes: list[tuple[int, bytes]],
    read: Read,
) -> PatchedChunk:
    begin, length = target.offset(chunk), target.length(chunk)
    content = bytearray(read(begin, max(0, min(length, kept - begin))).ljust(length, b"\0"))
    row = index.find(chunk)
    stored = unpack_ranges(row.ranges, index.geometry.length(chunk)) if row else []
    places = [(begin + low, begin + min(high, kept - begin)) for low, high in stored if low < kept - begin]
    for start, data in [(tail[0], bytes(max(0, min(tail[1], begin + length) - tail[0]))), *writes]:
        low, high = max(start, begin), min(start + len(data), begin + length)
        if low < high:
            content[low - begin : high - begin] = data[low - start : high - start]
            places.append((low, high))
    ranges = ((low - begin, high - begin) for low, high in ByteRanges(places))
    flags = USED if any(content) else USED | ZERO
    hashed = hashlib.sha256(content).digest()
    return PatchedChunk(
        Row(
            chunk=chunk,
            flags=flags,
            ranges=pack_ranges(ranges, length),
            content_hash=hashed,
        ),
        memoryview(content),
    )


def _last_used(index: Index, below: int, moved: ByteRanges) -> int:
    """Return the end of the last byte below ``below`` that is not zero. Every used map contains the end of the disk, so it doesn't count.

    ``moved`` are the ranges whose content moves on a disk of another size.
    """
    stays = moved.complement(below)
    for position in range(len(index) - 1, -1, -1):
        row = index.row_at(position)
        begin = index.geometry.offset(row.chunk)
        if row.flags & ZERO or begin >= below:
            continue
        ranges = unpack_ranges(row.ranges, index.geometry.length(row.chunk))
        ends = [high for start, end in ranges for _low, high in stays.within(begin + start, begin + end)]
        if ends:
            return ends[-1]
    return 0


def _backup_ranges(header: ImageHeader) -> Iterator[tuple[int, int]]:
    """Return the ranges of the backup GPT that the header names, without those that are impossible."""
    noted = header.source.get("backup_gpt")
    behind = max(
        (each["start"] + each["size"] for each in known_partitions(header.source.get("partitions"))), default=0
    )
    for each in noted if isinstance(noted, list) else ():
        if (
            isinstance(each, list)
            and len(each) == 2
            and all(isinstance(place, int) and not isinstance(place, bool) for place in each)
        ):
            start, end = each
            if behind <= start < end <= header.geometry.disk_size:
                yield start, end


def _label(header: ImageHeader) -> str:
    return str((header.partition_table or {}).get("label", ""))


def _entries(header: ImageHeader) -> Iterator[Mapping[str, Any]]:
    entries = (header.partition_table or {}).get("partitions")
    yield from (each for each in (entries if isinstance(entries, list) else []) if isinstance(each, Mapping))


def _name(partition: Mapping[str, Any]) -> str:
    words = " ".join(content_and_label(partition))
    return f"partition {partition['number']}" + (f" ({words})" if words else "")


def _count(value: Mapping[str, Any] | None, name: str, default: int) -> int:
    """Return a count from the output of sfdisk, which writes some numbers as text."""
    found = (value or {}).get(name)
    if isinstance(found, str) and re.fullmatch("[0-9]{1,9}", found):
        found = int(found)
    return found if isinstance(found, int) and found is not True and 0 < found <= MAX_ENTRIES else default
