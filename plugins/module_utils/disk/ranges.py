# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sorted byte ranges, packed into 16 bytes each, so that the millions of a large used map fit in memory."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from typing import Iterable, Iterator


class ByteRanges:
    """Half-open byte ranges [start, end): sorted, not empty, neither overlapping nor adjacent."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        """Make the union of ``pairs``, in any order; see :meth:`from_sorted` for many."""
        self._starts = array("Q")
        self._ends = array("Q")
        for start, end in sorted(pairs):
            self.append(start, end)

    @classmethod
    def from_sorted(cls, pairs: Iterable[tuple[int, int]]) -> ByteRanges:
        """Return the union of ``pairs`` that are sorted by start, without making a list."""
        ranges = cls()
        for start, end in pairs:
            ranges.append(start, end)
        return ranges

    @classmethod
    def union(cls, parts: Iterable[ByteRanges]) -> ByteRanges:
        """Return every byte that is in any of ``parts``."""
        return cls.from_sorted(heapq.merge(*parts))

    def append(self, start: int, end: int) -> None:
        """Add [start, end), which must not begin before the last range; an empty range adds nothing. Raises ValueError."""
        if not 0 <= start <= end:
            raise ValueError(f"[{start}, {end}) is no byte range")
        if start == end:
            return
        if not self._ends or start > self._ends[-1]:
            self._starts.append(start)
            self._ends.append(end)
        elif start < self._starts[-1]:
            raise ValueError(f"[{start}, {end}) begins before the last range, which begins at {self._starts[-1]}")
        elif end > self._ends[-1]:
            self._ends[-1] = end

    def complement(self, size: int) -> ByteRanges:
        """Return every byte of [0, size) that is not in these ranges."""
        result = ByteRanges()
        position = 0
        for start, end in self:
            if start >= size:
                break
            result.append(position, start)
            position = end
        if position < size:
            result.append(position, size)
        return result

    def total(self) -> int:
        """Return the number of bytes."""
        return sum(self._ends) - sum(self._starts)

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges between two offsets, clipped to them."""
        result: list[tuple[int, int]] = []
        if start >= end:
            return result
        for position in range(bisect_right(self._ends, start), len(self._starts)):
            low, high = self._starts[position], self._ends[position]
            if low >= end:
                break
            result.append((max(low, start), min(high, end)))
        return result

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByteRanges):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    def __repr__(self) -> str:
        shown = ", ".join(f"[{start}, {end})" for start, end in self.within(0, 1 << 63)[:8])
        return f"ByteRanges({shown}{', ...' if len(self) > 8 else ''})"
