# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.imaging.plugins.module_utils.disk.ranges import ByteRanges

SIZE = 40
PAIRS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair))))


def positions(pairs: list[tuple[int, int]]) -> set[int]:
    return {position for start, end in pairs for position in range(start, end)}


def is_packed(ranges: ByteRanges) -> bool:
    pairs = list(ranges)
    return all(start < end for start, end in pairs) and all(a[1] < b[0] for a, b in zip(pairs, pairs[1:]))


@given(PAIRS)
def test_ranges_from_any_order_are_the_union_of_them(pairs: list[tuple[int, int]]) -> None:
    ranges = ByteRanges(pairs)
    assert positions(list(ranges)) == positions(pairs)
    assert is_packed(ranges)
    assert ranges.total() == len(positions(pairs))


@given(PAIRS, PAIRS)
def test_a_union_has_every_byte_of_both(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    both = ByteRanges.union([ByteRanges(one), ByteRanges(other)])
    assert both == ByteRanges(one + other)
    assert is_packed(both)


@given(PAIRS, st.integers(0, SIZE + 5))
def test_a_complement_has_what_is_missing(pairs: list[tuple[int, int]], size: int) -> None:
    complement = ByteRanges(pairs).complement(size)
    assert positions(list(complement)) == set(range(size)) - positions(pairs)
    assert is_packed(complement)


@given(PAIRS, st.integers(0, SIZE), st.integers(0, SIZE))
def test_ranges_within_are_clipped(pairs: list[tuple[int, int]], start: int, end: int) -> None:
    found = ByteRanges(pairs).within(start, end)
    assert positions(found) == positions(pairs) & set(range(start, end))
    assert all(low < high for low, high in found)


def test_a_range_that_goes_back_is_refused() -> None:
    ranges = ByteRanges([(10, 20)])
    with pytest.raises(ValueError, match="before the last"):
        ranges.append(5, 30)


@pytest.mark.parametrize("pair", [(-1, 2), (3, 2)])
def test_what_is_no_range_is_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no byte range"):
        ByteRanges([pair])


def test_every_chunk_of_a_large_disk_is_asked_for_in_seconds() -> None:
    chunk, chunks = 4 << 20, (2 << 40) // (4 << 20)
    ranges = ByteRanges.from_sorted((number * chunk, number * chunk + 4096) for number in range(chunks))
    started = time.monotonic()
    found = sum(len(ranges.within(number * chunk, (number + 1) * chunk)) for number in range(chunks))
    assert found == chunks
    assert time.monotonic() - started < 30
