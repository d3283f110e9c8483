# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk is to hold: an image, changed by patches that follow from the image and the size of the target alone.

Scan, write and read-back use the same goal, so that what is changed on purpose is never a difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator

from ..image.index import Index, Row
from ..image.record import USED, ZERO, unpack_ranges, zeros_hash

DISCARD = "discard"
LEAVE = "leave"
ZERO_UNUSED = "zero"

UNUSED = (DISCARD, LEAVE, ZERO_UNUSED)
"""What becomes of the bytes of a target that the image does not use: given back to the device, left alone, or made zeros."""

TAIL = 1 << 20
"""Bytes at the end of a larger disk that are made zeros: where old backup GPTs and the metadata of RAID lie."""

WORTH_DISCARDING = 1 << 20
"""Bytes. A smaller gap costs more to name than it is worth to the device."""


class Goal:
    """The content of a target. Rows are those of the image's index, but with ``zero`` unused bytes are content too: zeros."""

    def __init__(self, index: Index, target_size: int, unused: str) -> None:
        self.geometry = index.geometry
        self._index = index
        self._target_size = target_size
        self._all = unused == ZERO_UNUSED
        end = self.geometry.disk_size
        self.tail = (end if self._all else max(end, target_size - TAIL), target_size)
        """The range beyond the image's disk that is to be zeros; empty on a disk of the same size."""

    def __len__(self) -> int:
        """How many chunks matter."""
        return self.geometry.chunk_count if self._all else len(self._index)

    def row(self, chunk: int) -> Row | None:
        """What a chunk is to hold; None when that does not matter."""
        row = self._index.find(chunk)
        if not self._all:
            return row
        if row is not None:
            return replace(row, ranges=b"")  # what is hashed has zeros in its unused bytes
        return Row(chunk, USED | ZERO, b"", 0, 0, zeros_hash(self.geometry.length(chunk)))

    def rows(self) -> Iterator[Row]:
        """All chunks that matter, in disk order."""
        if not self._all:
            return iter(self._index)
        return (row for row in map(self.row, range(self.geometry.chunk_count)) if row is not None)

    def ranges(self, row: Row) -> list[tuple[int, int]]:
        """The bytes of a chunk that matter, counted from its start."""
        return unpack_ranges(row.ranges, self.geometry.length(row.chunk))

    def bytes_in(self, row: Row) -> int:
        """How many bytes of a chunk matter."""
        return sum(end - start for start, end in self.ranges(row))

    def unused_ranges(self) -> Iterator[tuple[int, int]]:
        """The ranges of the target, worth discarding, whose content does not matter."""
        position = 0
        for row in self.rows():
            offset = self.geometry.offset(row.chunk)
            for start, end in self.ranges(row):
                if offset + start - position >= WORTH_DISCARDING:
                    yield position, offset + start
                position = offset + end
        if self.tail[0] - position >= WORTH_DISCARDING:
            yield position, self.tail[0]
