# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the allocation table of a FAT16 or FAT32 contains every cluster that its directories refer to.

``fsck.fat -n`` exits with 1 also for lost files, a wrong count of free clusters and differing tables, which lose no data; and it knows at most two
tables.

Source of the format: Microsoft, FAT32 File System Specification 1.03.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Iterator

from ..gpt import Read
from .allocation_check import Damaged
from .fat_volume import BOOT, DELETED, END, ENTRY_SIZE, FOLDER, LABEL, SECTOR_SIZES

ENTRY = struct.Struct("<11sB8xH4xH4x")
"""Of a directory entry: name, attributes, upper and lower half of the first cluster."""

DOT = 0x2E
"""First byte of the names "." and ".."."""

FIRST = 2
"""The number of the first cluster."""


class Allocation:
    """The clusters that the directories of a volume refer to, and its table."""

    def __init__(self, read: Read, size: int) -> None:
        """``read`` reads at an offset of the volume's partition, which has ``size`` bytes; raises Damaged."""
        self._read = read
        boot = read(0, 512)
        sector, per_cluster, reserved, tables, roots, small, _medium, small_table, large, large_table = (
            BOOT.unpack_from(boot)
        )
        table_size = (small_table or large_table) * sector
        total = small or large
        if sector not in SECTOR_SIZES or not per_cluster or not reserved or not tables or not table_size:
            raise Damaged("its boot sector is damaged")
        if total * sector > size:
            raise Damaged("it is larger than its partition")
        self._root_start = reserved * sector + tables * table_size
        self._root_size = roots * ENTRY_SIZE
        self._data = self._root_start + -(-self._root_size // sector) * sector
        self._cluster_size = per_cluster * sector
        clusters = max(0, (total * sector - self._data) // self._cluster_size)
        self._large = not small_table
        (self._root,) = struct.unpack_from("<I", boot, 44)
        self._mask, self._chain_end = (0x0FFFFFFF, 0x0FFFFFF8) if self._large else (0xFFFF, 0xFFF8)
        self._table = array("I" if self._large else "H")
        entries = min(clusters + FIRST, table_size // self._table.itemsize)
        self._table.frombytes(read(reserved * sector, entries * self._table.itemsize))
        if sys.byteorder != "little":
            self._table.byteswap()
        self._claimed = bytearray(entries)
        self._lacking = 0

    def lacking(self) -> int:
        """Return how many clusters are in use but free in the table; raises Damaged, OSError."""
        folders = [self._chain(self._root)] if self._large else []
        if not self._large:
            self._claim_entries([self._read(self._root_start, self._root_size)], folders)
        while folders:
            self._claim_entries(self._content(folders.pop()), folders)
        return self._lacking

    def _claim_entries(self, content: Iterator[bytes] | list[bytes], folders: list[list[int]]) -> None:
        """Claim the clusters of a directory's entries, and add those of its subdirectories to ``folders``."""
        for piece in content:
            for name, attributes, high, low in ENTRY.iter_unpack(piece):
                if name[0] == END:
                    return
                # The parts of a long name have the attribute of a label, too.
                if name[0] in (DELETED, DOT) or attributes & LABEL:
                    continue
                first = low | high << 16 if self._large else low
                chain = self._chain(first) if first else []
                if attributes & FOLDER:
                    folders.append(chain)

    def _chain(self, cluster: int) -> list[int]:
        """Claim and return the clusters that follow one another from this one on."""
        chain = []
        table, claimed, mask = self._table, self._claimed, self._mask
        while True:
            if not FIRST <= cluster < len(table):
                raise Damaged(f"something lies in cluster {cluster}, which there is not")
            if claimed[cluster]:
                raise Damaged(f"cluster {cluster} is in use twice")
            claimed[cluster] = 1
            chain.append(cluster)
            following = table[cluster] & mask
            if not following:
                self._lacking += 1
                return chain
            if following >= self._chain_end:
                return chain
            cluster = following

    def _content(self, chain: list[int]) -> Iterator[bytes]:
        for cluster in chain:
            yield self._read(self._data + (cluster - FIRST) * self._cluster_size, self._cluster_size)
