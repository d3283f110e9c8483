# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the allocation bitmap of an NTFS contains every cluster that the records of its MFT refer to.

``ntfsresize --info`` exits with 1 also when the bitmap contains unused clusters, which lose no data: Windows leaves some, and chkdsk does not clear
them (tuxera/ntfs-3g#204).

Source of the format: ntfs-3g, include/ntfs-3g/layout.h: NTFS_BOOT_SECTOR, MFT_RECORD, ATTR_RECORD.
"""

from __future__ import annotations

import struct
from typing import Iterator, List, Tuple

from ..gpt import Read
from .allocation_check import Clusters, Damaged

MFT, BITMAP = 0, 6
"""Numbers of records."""

DATA = 0x80
END = 0xFFFFFFFF
"""Types of attributes."""

IN_USE = 0x0001
STRIDE = 512
"""Bytes. The last two of every so many bytes were replaced by a check value, whatever the sector size is."""

MAX_CLUSTER_SIZE = 2 << 20

RECORD_NUMBER = (1 << 48) - 1
"""The bits of a reference to a record that contain its number."""

HEAD = struct.Struct("<4sHH12xHHI4xQ")
ATTRIBUTE = struct.Struct("<II")
EXTENT = struct.Struct("<Q8xH")
SIZES = struct.Struct("<QQ")

READ_SIZE = 4 << 20

Runs = List[Tuple[int, int]]
"""First cluster and number of clusters of each piece, in the order of the content."""


class Allocation:
    """The clusters that the records of the MFT refer to, and the volume's bitmap."""

    def __init__(self, read: Read, size: int) -> None:
        """``read`` reads at an offset of the volume's partition, which has ``size`` bytes; raises Damaged."""
        self._read = read
        boot = read(0, STRIDE)
        if boot[3:11] != b"NTFS    ":
            raise Damaged("its boot sector is damaged")
        (sector_size,) = struct.unpack_from("<H", boot, 11)
        per_cluster = boot[13] if boot[13] <= 0x80 else 1 << (256 - boot[13])
        sectors, self._mft_cluster, _mirror, per_record = struct.unpack_from("<QQQb", boot, 40)
        self._cluster_size = sector_size * per_cluster
        self._record_size: int = per_record * self._cluster_size if per_record > 0 else 1 << -per_record
        if sector_size not in (512, 1024, 2048, 4096) or not per_cluster or not 0 < sectors <= size // sector_size:
            raise Damaged("its boot sector is damaged")
        if self._cluster_size > MAX_CLUSTER_SIZE or self._mft_cluster >= sectors // per_cluster:
            raise Damaged("its boot sector is damaged")
        if not STRIDE <= self._record_size <= 65536 or self._record_size % STRIDE:
            raise Damaged(f"its MFT records have {self._record_size} bytes")
        self._claimed = Clusters(sectors // per_cluster)
        self._pieces: dict[int, dict[int, Runs]] = {MFT: {}, BITMAP: {}}
        """The pieces of these records' content, by the number of the first cluster in the content."""
        self._sizes: dict[int, tuple[int, int]] = {}
        """The size of that content, and how much of it was written."""

    def lacking(self) -> int:
        """Return how many clusters are in use but not in the bitmap; raises Damaged, OSError."""
        first = bytearray(self._read(self._mft_cluster * self._cluster_size, self._record_size))
        self._claim_all(first, 0)
        number = 0
        for records in self._mft():
            number += self._claim_all(records, number)
        return self._claimed.lacking(b"".join(self._content(BITMAP)))

    def _content(self, number: int) -> Iterator[bytes]:
        """Yield the written content of a record. More pieces may become known meanwhile."""
        if number not in self._sizes:
            raise Damaged(f"MFT record {number} has no content")
        size, written = self._sizes[number]
        left = min(size, written)
        place = 0
        while left > 0:
            runs = self._pieces[number].get(place)
            if not runs:
                raise Damaged(f"where a part of MFT record {number} lies is not known")
            for first, count in runs:
                place += count
                offset, length = first * self._cluster_size, min(left, count * self._cluster_size)
                left -= length
                for at in range(0, length, READ_SIZE):
                    yield self._read(offset + at, min(READ_SIZE, length - at))

    def _mft(self) -> Iterator[bytearray]:
        """Yield the MFT in pieces of whole records."""
        rest = bytearray()
        for piece in self._content(MFT):
            rest += piece
            whole = len(rest) - len(rest) % self._record_size
            yield rest[:whole]
            del rest[:whole]

    def _claim_all(self, records: bytearray, first: int) -> int:
        """Claim the clusters of the records in a piece of the MFT, from this number on; returns the number of records."""
        size = self._record_size
        checks = size // STRIDE
        number = first
        try:
            for start in range(0, len(records), size):
                number = first + start // size
                magic, update, count, attribute, flags, used, base = HEAD.unpack_from(records, start)
                if magic != b"FILE":
                    if any(records[start : start + 4]):
                        raise Damaged(f"MFT record {number} is damaged")
                    continue
                if not flags & IN_USE:
                    continue
                if count != checks + 1 or update + 2 * count > size or used > size:
                    raise Damaged(f"MFT record {number} is damaged")
                update += start
                value = records[update : update + 2]
                for end in range(start + STRIDE, start + size + 1, STRIDE):
                    update += 2
                    if records[end - 2 : end] != value:
                        raise Damaged(f"MFT record {number} was written in part")
                    records[end - 2 : end] = records[update : update + 2]
                owner = base & RECORD_NUMBER if base else number
                self._claim(records, start + attribute, start + used, owner)
        except (struct.error, IndexError):
            raise Damaged(f"MFT record {number} is damaged") from None
        return len(records) // size

    def _claim(self, records: bytearray, position: int, end: int, owner: int) -> None:
        while True:
            kind, length = ATTRIBUTE.unpack_from(records, position)
            if kind == END:
                return
            if length < 16 or position + length > end:
                raise struct.error
            if records[position + 8]:
                first, pairs = EXTENT.unpack_from(records, position + 16)
                runs = self._runs(records, position + pairs, position + length)
                if owner in self._pieces and kind == DATA and not records[position + 9]:
                    self._pieces[owner][first] = runs
                    if first == 0:
                        self._sizes[owner] = SIZES.unpack_from(records, position + 48)
            position += length

    def _runs(self, records: bytearray, position: int, end: int) -> Runs:
        """Claim and return the clusters in mapping pairs, without sparse ones."""
        runs = []
        cluster = 0
        while position < end and records[position]:
            sizes = records[position]
            position += 1
            middle = position + (sizes & 15)
            stop = middle + (sizes >> 4)
            count = int.from_bytes(records[position:middle], "little", signed=True)
            if stop > end or count <= 0:
                raise struct.error
            if stop > middle:
                cluster += int.from_bytes(records[middle:stop], "little", signed=True)
                self._claimed.claim(cluster, cluster + count)
                runs.append((cluster, count))
            position = stop
        return runs
