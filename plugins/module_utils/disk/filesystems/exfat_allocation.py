# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the allocation bitmap of an exFAT contains every cluster that its directories refer to.

``fsck.exfat -n`` (exfatprogs 1.2.0) exits with 0 when the bitmap lacks the clusters of the root directory or its own; some versions check only
contiguous files.

Source of the format: Microsoft, exFAT file system specification 1.00, sections 3.1, 4.1, 6 and 7.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Iterator, Tuple

from ..gpt import Read
from .allocation_check import Clusters, Damaged

BOOT = struct.Struct("<I4xIII8xBB")
"""At byte 80: start of the allocation table and of the clusters (sectors), number of clusters, first cluster of the root, two binary logarithms."""

ENTRY_SIZE = 32
STREAM = struct.Struct("<I Q")
"""At byte 20 of an entry that has clusters: the first one, and the size in bytes."""

END, BITMAP, UPCASE, FILE, DATA, VENDOR = 0x00, 0x81, 0x82, 0x85, 0xC0, 0xE1
"""Types of entries. An entry without the bit 0x80 is not in use."""

FOLDER = 0x10
IN_ONE_PIECE = 0x02
"""The flag of a contiguous file, in its attributes and in entries that have clusters."""

FIRST = 2
"""The number of the first cluster."""

CHAIN_END = 0xFFFFFFFF
READ_SIZE = 1 << 20

MAX_CLUSTER_SIZE = 25
"""Binary logarithm of the maximum cluster size, 32 MiB."""

Extent = Tuple[int, int]
"""Contiguous clusters: the place of the first one (0 for cluster 2), and their number."""


class Allocation:
    """The clusters that the directories of a volume refer to, and its bitmap."""

    def __init__(self, read: Read, size: int) -> None:
        """``read`` reads at an offset of the volume's partition, which has ``size`` bytes; raises Damaged."""
        self._read = read
        boot = read(0, 512)
        table, heap, self._count, self._root, sector, cluster = BOOT.unpack_from(boot, 80)
        if boot[3:11] != b"EXFAT   " or not 9 <= sector <= 12 or sector + cluster > MAX_CLUSTER_SIZE:
            raise Damaged("its boot sector is damaged")
        self._heap = heap << sector
        self._cluster_size = 1 << (sector + cluster)
        if not self._count or self._heap + self._count * self._cluster_size > size:
            raise Damaged("it is larger than its partition")
        self._table = array("I")
        self._table.frombytes(read(table << sector, (self._count + FIRST) * 4))
        if sys.byteorder != "little":
            self._table.byteswap()
        self._claimed = Clusters(self._count)
        self._bitmap: bytes | None = None

    def lacking(self) -> int:
        """Return how many clusters are in use but not in the bitmap; raises Damaged, OSError."""
        folders = [self._chain(self._root)]
        while folders:
            self._claim_entries(self._content(folders.pop()), folders)
        if self._bitmap is None:
            raise Damaged("it has no allocation bitmap")
        return self._claimed.lacking(self._bitmap)

    def _claim_entries(self, content: Iterator[bytes], folders: list[list[Extent]]) -> None:
        """Claim the clusters of a directory's entries, and add its subdirectories to ``folders``."""
        attributes = 0
        for piece in content:
            for at in range(0, len(piece), ENTRY_SIZE):
                kind = piece[at]
                if kind == END:
                    return
                if kind == FILE:
                    (attributes,) = struct.unpack_from("<H", piece, at + 4)
                elif kind in (BITMAP, UPCASE, DATA, VENDOR):
                    first, size = STREAM.unpack_from(piece, at + 20)
                    if not size:
                        continue
                    row = kind in (DATA, VENDOR) and piece[at + 1] & IN_ONE_PIECE
                    extents = self._row(first, size) if row else self._chain(first)
                    if kind == DATA and attributes & FOLDER:
                        folders.append(extents)
                    elif kind == BITMAP:
                        self._bitmap = b"".join(self._content(extents))[:size]

    def _row(self, first: int, size: int) -> list[Extent]:
        """Claim and return contiguous clusters."""
        extent = (first - FIRST, -(-size // self._cluster_size))
        self._claim(*extent)
        return [extent]

    def _chain(self, cluster: int) -> list[Extent]:
        """Claim and return the clusters that the table lists from this one on."""
        extents: list[Extent] = []
        while cluster != CHAIN_END:
            if not FIRST <= cluster < self._count + FIRST:
                raise Damaged(f"something lies in cluster {cluster}, which there is not")
            first = cluster
            following = self._table[cluster]
            while following == cluster + 1 < self._count + FIRST:
                cluster, following = following, self._table[following]
            extents.append((first - FIRST, cluster + 1 - first))
            self._claim(*extents[-1])
            cluster = following
        return extents

    def _claim(self, first: int, count: int) -> None:
        if 0 <= first < self._count and self._claimed.has(first):
            raise Damaged(f"cluster {first + FIRST} is in use twice")
        self._claimed.claim(first, first + count)

    def _content(self, extents: list[Extent]) -> Iterator[bytes]:
        for first, count in extents:
            start, end = first * self._cluster_size, (first + count) * self._cluster_size
            for at in range(start, end, READ_SIZE):
                yield self._read(self._heap + at, min(READ_SIZE, end - at))
