# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired content of a disk: an image with patches, which depend on the image and the size of the target only.

Scan, write and read-back use the same goal, so an intended change never counts as a difference.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Iterator, Mapping

from ..image.index import Index, Row
from ..image.record import USED, ZERO, unpack_ranges, zeros_hash

DISCARD = "discard"
LEAVE = "leave"
ZERO_UNUSED = "zero"

UNUSED = (DISCARD, LEAVE, ZERO_UNUSED)
"""What happens to bytes of the target that the image does not use: they are discarded, left alone, or overwritten with zeros."""

WORTH_DISCARDING = 512 << 10
"""Bytes. Discarding a smaller gap costs more than it gains. The gaps between the places where programs look for signatures at the start of a
partition are almost 1 MiB."""


@dataclass(frozen=True)
class PatchedChunk:
    """A chunk that differs from the image on purpose: its full content, and ``row``, its entry as in an index."""

    row: Row
    content: memoryview


class Goal:
    """The desired content of a target. Rows are those of the image's index; with ``zero``, unused bytes are content too: zeros.

    ``patched`` are the chunks in which a target differs from the image on purpose (``engine.resize``). ``geometry`` is the target's.
    """

    def __init__(
        self, index: Index, target_size: int, unused: str, patched: Mapping[int, PatchedChunk] | None = None
    ) -> None:
        self.geometry = replace(index.geometry, disk_size=target_size)
        self._index = index
        self._patched = patched or {}
        self._all = unused == ZERO_UNUSED

    def __len__(self) -> int:
        """Return the number of chunks that have desired content."""
        if self._all:
            return self.geometry.chunk_count
        others = sum(1 for chunk in self._patched if self._index.position(chunk) is None)
        return self._index.count_before(self.geometry.chunk_count) + others

    def patched(self, chunk: int) -> PatchedChunk | None:
        """Return a chunk whose content this end knows without requesting it; None for all others."""
        return self._patched.get(chunk)

    def row(self, chunk: int) -> Row | None:
        """Return the desired content of a chunk; None when its content does not matter."""
        patched = self._patched.get(chunk)
        row = patched.row if patched else self._index.find(chunk)
        if not self._all:
            return row
        if row is not None:
            return replace(row, ranges=b"")  # the hashed content has zeros in its unused bytes
        return Row(
            chunk=chunk,
            flags=USED | ZERO,
            ranges=b"",
            content_hash=zeros_hash(self.geometry.length(chunk)),
        )

    def rows(self) -> Iterator[Row]:
        """Return all chunks that have desired content, in disk order."""
        if self._all:
            return (row for row in map(self.row, range(self.geometry.chunk_count)) if row is not None)
        stored = self._index.rows_between(0, self.geometry.chunk_count)
        if not self._patched:
            return stored
        others = (row for row in stored if row.chunk not in self._patched)
        return heapq.merge(
            others, (self._patched[chunk].row for chunk in sorted(self._patched)), key=lambda row: row.chunk
        )

    def ranges(self, row: Row) -> list[tuple[int, int]]:
        """Return the byte ranges of a chunk that have desired content, relative to its start."""
        return unpack_ranges(row.ranges, self.geometry.length(row.chunk))

    def bytes_in(self, row: Row) -> int:
        """Return how many bytes of a chunk have desired content."""
        return sum(end - start for start, end in self.ranges(row))

    def unused_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the unused ranges of the target that are large enough to be discarded."""
        position = 0
        for row in self.rows():
            offset = self.geometry.offset(row.chunk)
            for start, end in self.ranges(row):
                if offset + start - position >= WORTH_DISCARDING:
                    yield position, offset + start
                position = offset + end
        if self.geometry.disk_size - position >= WORTH_DISCARDING:
            yield position, self.geometry.disk_size
