# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and writes files of an unmounted FAT12, FAT16 or FAT32.

mtools 4.0.32 rejects a FAT32 with few clusters, such as many EFI system partitions have, or takes it for an empty FAT16. Firmware, Linux, Windows and
this module go by the boot sector, which has no 16-bit size of the table in a FAT32.

Source: Microsoft, "FAT32 File System Specification" 1.03; for long names also Linux, fs/fat/namei_vfat.c.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
from dataclasses import dataclass
from typing import Iterator

from ...errors import ImagingError

BOOT = struct.Struct("<11xHBHBHHBH8xII")
"""Bytes of a sector, sectors of a cluster, reserved sectors, tables, entries of the root, sectors (16 bits), medium, sectors of a table
(16 bits), sectors (32 bits), sectors of a table (32 bits)."""

BOOT_32 = struct.Struct("<40xH2xIH")
"""Flags, first cluster of the root, sector with the counts of free clusters. Only in a FAT32."""

ENTRY = struct.Struct("<11sBB7xHHHHI")
WHERE_OFFSET, WHERE = 20, struct.Struct("<HHHHI")
"""Short name, attributes, case of letters; and the place: high half of the first cluster, time, date, low half of the cluster, size."""

ENTRY_SIZE = 32
SECTOR_SIZES = (512, 1024, 2048, 4096)
LABEL, FOLDER, LONG_NAME = 0x08, 0x10, 0x0F
"""Attributes; a part of a long name has a unique combination."""

LOWER_NAME, LOWER_ENDING = 0x08, 0x10
"""Flags of Windows NT and Linux for small letters in a short name."""

END, DELETED, STANDS_FOR_DELETED = 0x00, 0xE5, 0x05
LAST_PART = 0x40
UNITS = 13
"""Characters of a long name in each of its entries."""

DATE = 1 << 5 | 1
"""1980-01-01, so that the result does not depend on the machine or the time."""

MIN_FAT16 = 4085
"""The minimum number of clusters of a FAT16; a FAT12 has fewer (specification, section 3.5; MAX_FAT12 of linux/msdos_fs.h is the number before)."""

CERTAIN_FAT16 = 1 << 12
"""From this number of clusters on, no program takes it for a FAT12, whose entries have 12 bits. Below, programs disagree."""

MAX_CLUSTERS = 1 << 24
"""Maximum number of clusters that is supported; an EFI system partition has some 100,000."""

MAX_FOLDER_SIZE = 65536 * ENTRY_SIZE
SHORT = re.compile(r"([A-Z0-9!#$%&'()@^_`{}~-]{1,8})(?:\.([A-Z0-9!#$%&'()@^_`{}~-]{1,3}))?")
NOT_SHORT = re.compile(r"[^A-Z0-9!#$%&'()@^_`{}~-]")
FREE_COUNT, FREE_MAGIC = 488, b"rrAa"
"""Offset of the counts of free clusters in their sector, and the magic before them."""


class BadFat(ImagingError):
    """A FAT is damaged, or full."""


@dataclass(frozen=True)
class Entry:
    """An entry of a folder: its name, its stored short name, its first cluster, and its offset in the folder."""

    name: str
    short: bytes
    folder: bool
    cluster: int
    size: int
    place: int


class Fat:
    """The file system on a block device or in a regular file, by its descriptor. All methods raise BadFat and OSError.

    Folders are given by their first cluster; the root's is ``ROOT``.
    """

    ROOT = 0

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        boot = os.pread(descriptor, 512, 0).ljust(512, b"\0")
        self._sector, per_cluster, reserved, self._tables, roots, small, _medium, table_16, large, table_32 = (
            BOOT.unpack_from(boot)
        )
        table = table_16 or table_32
        total = small or large
        if self._sector not in SECTOR_SIZES or not (per_cluster and reserved and self._tables and table):
            raise BadFat("its boot sector is damaged")
        self._cluster_size = self._sector * per_cluster
        self._table_start = reserved * self._sector
        self._table_size = table * self._sector
        self._root_start = self._table_start + self._tables * self._table_size
        self._root_size = -(-roots * ENTRY_SIZE // self._sector) * self._sector
        self._data_start = self._root_start + self._root_size
        clusters = (total * self._sector - self._data_start) // self._cluster_size
        if not 0 < clusters < MAX_CLUSTERS:
            raise BadFat(f"it has {clusters} clusters, and 1 to {MAX_CLUSTERS - 1} were expected")
        flags, root, self._counts = BOOT_32.unpack_from(boot) if not table_16 else (0, 0, 0)
        self._bits = 32 if not table_16 else 12 if clusters < MIN_FAT16 else 16
        if -(-(clusters + 2) * self._bits // 8) > self._table_size:
            raise BadFat("its allocation table is shorter than its clusters need")
        if os.lseek(descriptor, 0, os.SEEK_END) < total * self._sector:
            raise BadFat("it is larger than what it lies in")
        if self._bits == 32 and root < 2:
            raise BadFat("its boot sector is damaged: it has no root folder")
        self._root = root
        self._end = clusters + 2
        # Flag 0x80: only one of the tables is in use, whose number is in the flags.
        used = range(flags & 0x0F, (flags & 0x0F) + 1) if flags & 0x80 else range(self._tables)
        if used[-1] >= self._tables:
            raise BadFat("its boot sector is damaged: the allocation table in use is not there")
        self._used = used
        self._table = bytearray(
            self._read(self._table_start + used[0] * self._table_size, -(-self._end * self._bits // 8))
        )

    def entries(self, folder: int = ROOT) -> list[Entry]:
        """Return the entries of a folder."""
        return list(self._parse(self._folder(folder)))

    def content(self, entry: Entry) -> Iterator[bytes]:
        """Yield the content of a file, in pieces."""
        clusters = self._chain(entry.cluster) if entry.cluster else []
        left = entry.size
        if left > len(clusters) * self._cluster_size:
            raise BadFat(f"its {entry.name} is damaged: it has fewer clusters than its {left} bytes need")
        for cluster in clusters:
            if not left:
                return
            piece = self._read(self._place(cluster), min(left, self._cluster_size))
            left -= len(piece)
            yield piece

    def _read(self, place: int, length: int) -> bytes:
        content = os.pread(self._descriptor, length, place)
        if len(content) != length:
            raise BadFat(
                f"it ends at byte {place + len(content)}, and {length - len(content)} bytes more were expected"
            )
        return content

    def _place(self, cluster: int) -> int:
        return int(self._data_start + (cluster - 2) * self._cluster_size)

    def _next(self, cluster: int) -> int:
        """Return the table's value for a cluster."""
        if self._bits == 12:
            (pair,) = struct.unpack_from("<H", self._table, cluster * 3 // 2)
            return int(pair >> 4 if cluster & 1 else pair & 0xFFF)
        if self._bits == 16:
            return int(struct.unpack_from("<H", self._table, cluster * 2)[0])
        return int(struct.unpack_from("<I", self._table, cluster * 4)[0] & 0x0FFFFFFF)

    def _chain(self, cluster: int) -> list[int]:
        mark = (1 << min(self._bits, 28)) - 8
        clusters: list[int] = []
        while cluster < mark:
            if not 2 <= cluster < self._end or len(clusters) > self._end:
                raise BadFat(f"its allocation table is damaged: a chain leads to cluster {cluster}")
            clusters.append(cluster)
            cluster = self._next(cluster)
        return clusters

    def _folder_clusters(self, folder: int) -> list[int]:
        """Return the clusters of a folder; none for the root of a FAT12 or FAT16, which lies elsewhere."""
        start = folder or self._root
        clusters = self._chain(start) if start else []
        if len(clusters) * self._cluster_size > MAX_FOLDER_SIZE + self._cluster_size:
            raise BadFat(f"its folder at cluster {start} is larger than one can be")
        return clusters

    def _folder(self, folder: int) -> bytes:
        clusters = self._folder_clusters(folder)
        if clusters:
            return b"".join(self._read(self._place(cluster), self._cluster_size) for cluster in clusters)
        return self._read(self._root_start, self._root_size)

    @staticmethod
    def _parse(content: bytes) -> Iterator[Entry]:
        long: list[bytes] = []
        for place in range(0, len(content) - ENTRY_SIZE + 1, ENTRY_SIZE):
            raw = content[place : place + ENTRY_SIZE]
            short, attributes, case, high, _time, _date, low, size = ENTRY.unpack(raw)
            if short[0] == END:
                return
            if short[0] == DELETED:
                long = []
            elif attributes & 0x3F == LONG_NAME:
                long = [raw] if short[0] & LAST_PART else [*long, raw]
            else:
                if not attributes & LABEL and short[:2] not in (b". ", b".."):
                    name = _long_name(long, short) or _short_name(short, case)
                    yield Entry(
                        name=name,
                        short=short,
                        folder=bool(attributes & FOLDER),
                        cluster=high << 16 | low,
                        size=size,
                        place=place,
                    )
                long = []


class WritableFat(Fat):
    """The file system on a writable descriptor. Content is written before the references to it."""

    def make_folder(self, parent: int, name: str) -> int:
        """Make a folder, and return its first cluster."""
        (cluster,) = self._allocate(1)
        own = ENTRY.pack(b".          ", FOLDER, 0, cluster >> 16, 0, DATE, cluster & 0xFFFF, 0)
        above = ENTRY.pack(b"..         ", FOLDER, 0, parent >> 16, 0, DATE, parent & 0xFFFF, 0)
        self._write(self._place(cluster), (own + above).ljust(self._cluster_size, b"\0"))
        self._link([cluster])
        self._add(parent, name, FOLDER, cluster, 0)
        return cluster

    def write(self, folder: int, name: str, content: bytes) -> None:
        """Make or replace a file. Its entry is written last, so that a power failure leaves the old file intact."""
        there = [entry for entry in self.entries(folder) if entry.name.lower() == name.lower()]
        if there and there[0].folder:
            raise BadFat(f"{name} is a folder, where a file was to be written")
        clusters = self._allocate(-(-len(content) // self._cluster_size))
        for number, cluster in enumerate(clusters):
            part = content[number * self._cluster_size : (number + 1) * self._cluster_size]
            self._write(self._place(cluster), part.ljust(self._cluster_size, b"\0"))
        self._link(clusters)
        first = clusters[0] if clusters else 0
        if not there:
            self._add(folder, name, 0, first, len(content))
            return
        old = self._chain(there[0].cluster) if there[0].cluster else []
        os.fsync(self._descriptor)
        place = self._folder_place(folder, there[0].place)
        self._write(place + WHERE_OFFSET, WHERE.pack(first >> 16, 0, DATE, first & 0xFFFF, len(content)))
        os.fsync(self._descriptor)
        for cluster in old:
            self._set(cluster, 0)
        self._count()

    def _write(self, place: int, content: bytes) -> None:
        while content:
            written = os.pwrite(self._descriptor, content, place)
            place, content = place + written, content[written:]

    def _folder_place(self, folder: int, offset: int) -> int:
        clusters = self._folder_clusters(folder)
        if not clusters:
            return int(self._root_start + offset)
        return int(self._place(clusters[offset // self._cluster_size]) + offset % self._cluster_size)

    def _allocate(self, count: int) -> list[int]:
        """Return the first free clusters, as many as needed; nothing is written yet."""
        every = (cluster for cluster in range(2, self._end) if not self._next(cluster))
        free = list(itertools.islice(every, count))
        if len(free) < count:
            raise BadFat(
                f"it has no room: {count} clusters of {self._cluster_size} bytes are needed, {len(free)} are free"
            )
        return free

    def _link(self, clusters: list[int]) -> None:
        last = (1 << min(self._bits, 28)) - 1
        for cluster, following in zip(clusters, [*clusters[1:], last]):
            self._set(cluster, following)
        self._count()

    def _set(self, cluster: int, value: int) -> None:
        if self._bits == 12:
            place = cluster * 3 // 2
            (pair,) = struct.unpack_from("<H", self._table, place)
            pair = pair & 0x000F | value << 4 if cluster & 1 else pair & 0xF000 | value
            changed = struct.pack("<H", pair)
        elif self._bits == 16:
            place, changed = cluster * 2, struct.pack("<H", value)
        else:
            place = cluster * 4
            (old,) = struct.unpack_from("<I", self._table, place)
            changed = struct.pack("<I", old & 0xF0000000 | value)
        self._table[place : place + len(changed)] = changed
        for number in self._used:
            self._write(self._table_start + number * self._table_size + place, changed)

    def _count(self) -> None:
        """Update the count of free clusters, if a FAT32 has one."""
        place = self._counts * self._sector
        if not 0 < place < self._table_start or self._read(place + FREE_COUNT - 4, 4) != FREE_MAGIC:
            return
        free = sum(1 for cluster in range(2, self._end) if not self._next(cluster))
        self._write(place + FREE_COUNT, struct.pack("<I", free))

    def _add(self, folder: int, name: str, attributes: int, cluster: int, size: int) -> None:
        """Write an entry, after its content."""
        os.fsync(self._descriptor)
        short, parts = _names(name, {entry.short for entry in self.entries(folder)})
        entry = ENTRY.pack(short, attributes, 0, cluster >> 16, 0, DATE, cluster & 0xFFFF, size)
        place = self._free_place(folder, len(parts) + 1)
        for number, part in enumerate([*parts, entry]):
            self._write(self._folder_place(folder, place + number * ENTRY_SIZE), part)

    def _free_place(self, folder: int, count: int) -> int:
        """Return the offset in a folder of so many adjacent free entries; the folder is enlarged if necessary."""
        content = self._folder(folder)
        run = 0
        ended = False
        for place in range(0, len(content), ENTRY_SIZE):
            ended = ended or content[place] == END
            run = run + 1 if ended or content[place] == DELETED else 0
            if run == count:
                return place - (count - 1) * ENTRY_SIZE
        clusters = self._folder_clusters(folder)
        if not clusters or len(content) >= MAX_FOLDER_SIZE:
            raise BadFat("the folder has no room for another name")
        (more,) = self._allocate(1)
        self._write(self._place(more), bytes(self._cluster_size))
        self._link([*clusters, more])
        return self._free_place(folder, count)


def _short_name(short: bytes, case: int) -> str:
    name, ending = short[:8], short[8:]
    if name[0] == STANDS_FOR_DELETED:
        name = bytes([DELETED]) + name[1:]
    texts = [part.decode("cp437").rstrip(" ") for part in (name, ending)]
    texts = [text.lower() if case & flag else text for text, flag in zip(texts, (LOWER_NAME, LOWER_ENDING))]
    return ".".join(text for text in texts if text)


def _long_name(parts: list[bytes], short: bytes) -> str:
    """Return the name in the entries before a short one; empty when these belong to another one."""
    numbers = [part[0] & ~LAST_PART for part in parts]
    if not parts or numbers != list(range(len(parts), 0, -1)) or any(part[13] != _sum(short) for part in parts):
        return ""
    units = b"".join(part[1:11] + part[14:26] + part[28:32] for part in reversed(parts))
    return units.decode("utf-16-le", "replace").partition("\0")[0]


def _sum(short: bytes) -> int:
    number = 0
    for byte in short:
        number = ((number & 1) << 7 | number >> 1) + byte & 0xFF
    return number


def _names(name: str, taken: set[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the short name of a new entry, and the entries of its long name; none when the short name suffices."""
    found = SHORT.fullmatch(name)
    if found:
        return found[1].ljust(8).encode() + (found[2] or "").ljust(3).encode(), []
    stem, _dot, ending = name.upper().rpartition(".")
    stem, ending = (stem, ending) if stem else (ending, "")
    stem, ending = NOT_SHORT.sub("", stem)[:6] or "_", NOT_SHORT.sub("", ending)[:3]
    for number in range(1, 1000):
        tail = f"~{number}"
        short = (stem[: 8 - len(tail)] + tail).ljust(8).encode() + ending.ljust(3).encode()
        if short not in taken:
            break
    else:
        raise BadFat(f"there is no short name left for {name}")
    units = name.encode("utf-16-le")
    count = -(-len(units) // (2 * UNITS))
    units = (units + b"\0\0").ljust(2 * UNITS * count, b"\xff")[: 2 * UNITS * count]
    parts = []
    for number in range(count, 0, -1):
        part = units[2 * UNITS * (number - 1) : 2 * UNITS * number]
        order = number | (LAST_PART if number == count else 0)
        head = bytes([order]) + part[:10] + bytes([LONG_NAME, 0, _sum(short)])
        parts.append(head + part[10:22] + b"\0\0" + part[22:])
    return short, parts
