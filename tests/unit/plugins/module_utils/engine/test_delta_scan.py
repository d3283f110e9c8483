# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a disk is looked at, and what is then asked for."""

from __future__ import annotations

import os
import random
from typing import Iterable, Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.engine.delta_scan import (
    EQUAL,
    FIRST_VERDICT,
    KNOWN,
    MAX_SAMPLES,
    REQUESTED,
    UNKNOWN,
    WANTED,
    WINDOW,
    WRITTEN,
    DeltaScan,
    sample_of,
)
from ansible_collections.fleet.imaging.plugins.module_utils.engine.goal import LEAVE, ZERO_UNUSED, Goal
from ansible_collections.fleet.imaging.plugins.module_utils.engine.scan import Scan
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import NO_HASH, Index, Row
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import USED, ZERO, zeros_hash

from ..samples import CHUNK, Used, geometry, make_file, make_image, noise, scratch_name

CHUNKS = 2000


class Disk:
    """A disk of which only is known which chunks are equal; counts what is looked at."""

    def __init__(self, equal: Iterable[int]) -> None:
        self.equal = set(equal)
        self.compared: list[int] = []

    def compare(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
        """As ``Scan`` does, but without reading ahead."""
        for row in rows:
            self.compared.append(row.chunk)
            yield row, row.chunk in self.equal


def hash_of(chunk: int) -> bytes:
    return (chunk + 1).to_bytes(32, "big")


def make_goal(zeros: Iterable[int] = ()) -> Goal:
    measures = geometry(CHUNKS * CHUNK)
    index = Index(measures)
    zero = set(zeros)
    for chunk in range(CHUNKS):
        digest = zeros_hash(CHUNK) if chunk in zero else hash_of(chunk)
        index.append(Row(chunk, USED | ZERO if chunk in zero else USED, b"", digest, 0, 1))
    return Goal(index, CHUNKS * CHUNK, LEAVE)


def look_at(equal: Iterable[int], rotating: bool = False, zeros: Iterable[int] = ()) -> tuple[DeltaScan, Disk]:
    disk = Disk(equal)
    delta = DeltaScan(disk, make_goal(zeros), [0, CHUNKS - 1], rotating)  # type: ignore[arg-type]
    delta.begin()
    while not delta.finished:
        delta.advance(64)
    return delta, disk


@pytest.mark.parametrize("rotating", [False, True])
def test_a_foreign_disk_costs_a_few_looks(rotating: bool) -> None:
    delta, disk = look_at([], rotating)
    samples = CHUNKS // 100
    assert len(disk.compared) <= 2 + samples + FIRST_VERDICT
    assert delta.count(WANTED) == CHUNKS


def test_a_blank_disk_is_no_promise() -> None:
    zeros = [chunk for chunk in range(CHUNKS) if chunk % 3]
    delta, disk = look_at(zeros, zeros=zeros)
    assert len([chunk for chunk in disk.compared if chunk % 3 == 0]) <= 2 + CHUNKS // 100 + FIRST_VERDICT
    delta.take(CHUNKS)
    assert delta.count(KNOWN) + delta.count(EQUAL) == len(zeros)


@pytest.mark.parametrize("rotating", [False, True])
def test_an_equal_disk_is_looked_at_once(rotating: bool) -> None:
    delta, disk = look_at(range(CHUNKS), rotating)
    assert sorted(disk.compared) == list(range(CHUNKS))
    assert delta.count(EQUAL) == CHUNKS


@pytest.mark.parametrize("rotating", [False, True])
def test_a_disk_that_has_drifted_is_looked_at_wholly(rotating: bool) -> None:
    """2 % of it, partly in one large file."""
    changed = {*range(700, 730), *range(0, CHUNKS, 200)}
    delta, disk = look_at(set(range(CHUNKS)) - changed, rotating)
    assert len(disk.compared) == CHUNKS
    assert set(delta.take(CHUNKS)) == changed


@pytest.mark.parametrize("rotating", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_disk_that_was_written_half_way_is_recognised_as_far_as_it_was(rotating: bool, share: float) -> None:
    written = int(CHUNKS * share)
    delta, disk = look_at(range(1, written), rotating)
    assert delta.count(EQUAL) == written - 1
    assert len(disk.compared) <= written + CHUNKS // 100 + WINDOW + 2


@pytest.mark.parametrize(("start", "end"), [(0.3, 0.5), (0.85, 1.0), (0.06, 0.35)])
def test_what_was_written_is_recognised_wherever_it_begins(start: float, end: float) -> None:
    equal = range(int(start * CHUNKS), int(end * CHUNKS))
    samples = CHUNKS // 100
    delta, disk = look_at(equal, rotating=True)
    assert delta.count(EQUAL) >= len(equal) - CHUNKS // samples, "all but what lies before its first sample"
    assert len(disk.compared) <= len(equal) + samples + 2 * WINDOW + FIRST_VERDICT + 2
    assert look_at(equal)[0].count(EQUAL) >= delta.count(EQUAL)


def test_of_a_rotating_disk_less_is_looked_at() -> None:
    """A fifth of it is equal, here and there: worth it beside writing, but not instead."""
    equal = random.Random(1).sample(range(CHUNKS), CHUNKS // 5)
    assert len(look_at(equal)[1].compared) > CHUNKS * 3 // 4
    assert len(look_at(equal, rotating=True)[1].compared) < CHUNKS // 4


def test_samples_are_few_from_all_over_and_in_disk_order() -> None:
    disk = Disk([])
    delta = DeltaScan(disk, make_goal(), [0, CHUNKS - 1])  # type: ignore[arg-type]
    delta.begin()
    delta.advance(CHUNKS // 100)
    samples = disk.compared[2:]
    assert samples == sorted(samples)
    assert len(samples) == CHUNKS // 100 <= MAX_SAMPLES
    assert min(samples) < CHUNKS // 10 and max(samples) > CHUNKS * 9 // 10


def test_what_did_not_come_is_asked_for_again_and_what_came_is_not() -> None:
    delta, _disk = look_at([])
    first = delta.take(10)
    assert first == list(range(10))
    delta.written(3)
    delta.ask_again()
    assert delta.take(10) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert (delta.count(WRITTEN), delta.count(REQUESTED), delta.done) == (1, 10, delta.total // CHUNKS)


def test_a_look_that_was_interrupted_goes_on() -> None:
    disk = Disk(range(CHUNKS))
    delta = DeltaScan(disk, make_goal(), [0])  # type: ignore[arg-type]
    delta.begin()

    def interrupt() -> None:
        if len(disk.compared) == 100:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        delta.advance(CHUNKS, interrupt)
    assert delta.count(UNKNOWN) == CHUNKS - 100
    delta.advance(CHUNKS)
    assert delta.finished
    assert delta.count(EQUAL) == CHUNKS


class Unhashed:
    """A scan of a disk whose index has no hashes yet."""

    def __init__(self, equal: Iterable[int]) -> None:
        self.index = Index(geometry(CHUNKS * CHUNK))
        for chunk in range(CHUNKS):
            self.index.append(Row(chunk, USED, b"", NO_HASH, 0, 1))
        self.disk = Disk(equal)
        goal = Goal(self.index, CHUNKS * CHUNK, LEAVE)
        self.delta = DeltaScan(self.disk, goal, [0, CHUNKS - 1])  # type: ignore[arg-type]

    def hash(self, chunks: Iterable[int], zeros: Iterable[int] = ()) -> None:
        zero = set(zeros)
        for chunk in chunks:
            if chunk in zero:
                self.index.set_hash(chunk, USED | ZERO, zeros_hash(CHUNK))
            else:
                self.index.set_hash(chunk, USED, hash_of(chunk))

    def begin(self) -> None:
        """Compare guards and samples."""
        self.hash([0, CHUNKS - 1])
        self.delta.begin()
        self.delta.advance(CHUNKS)
        assert len(self.disk.compared) == 2
        self.hash(sample_of(range(CHUNKS)))
        self.delta.advance(CHUNKS)
        assert len(self.disk.compared) == 2 + CHUNKS // 100


def test_nothing_is_looked_at_or_asked_for_that_has_no_hash() -> None:
    scan = Unhashed([])
    delta = scan.delta
    scan.begin()
    scan.hash(range(1, 10))
    delta.advance(CHUNKS)
    assert delta.finished and delta.count(WANTED) == CHUNKS
    assert delta.take(CHUNKS) == list(range(10))
    scan.hash(range(10, 40), zeros=[20])
    assert delta.take(15) == [*range(10, 20), *range(21, 26)]
    assert delta.take(CHUNKS) == list(range(26, 40)) and delta.count(KNOWN) == 1
    scan.hash(set(range(40, CHUNKS - 1)) - set(sample_of(range(CHUNKS))))
    assert len(delta.take(CHUNKS)) == CHUNKS - 40
    for chunk in range(CHUNKS):
        delta.written(chunk)
    assert delta.done == delta.total == delta.data_done == delta.data_total


@pytest.mark.parametrize("equal", [range(CHUNKS), range(600, 1200)])
def test_hashes_that_come_late_change_nothing_but_the_time(equal: range) -> None:
    scan = Unhashed(equal)
    scan.begin()
    for start in range(1, CHUNKS - 1, 7):
        scan.hash(set(range(start, min(start + 7, CHUNKS - 1))) - set(sample_of(range(CHUNKS))))
        scan.delta.advance(CHUNKS)
    assert scan.delta.finished and scan.delta.states == look_at(equal)[0].states
    assert scan.disk.compared == look_at(equal)[1].compared


def test_what_ended_the_looking_is_raised_where_it_is_asked_for() -> None:
    delta, _disk = look_at([])
    delta.fail(ValueError("the disk is gone"))
    with pytest.raises(ValueError, match="gone"):
        delta.take(1)


SIZE = 8 * CHUNK
SOME = Used((0, CHUNK), (3 * CHUNK + 512, 3 * CHUNK + 4096), (7 * CHUNK, SIZE))


def goal_of(tmp_path: object, unused: str, more: int = 0) -> Goal:
    image = scratch_name(tmp_path, "i.img.zst")
    if not os.path.exists(image):
        make_image(image, noise(SIZE, 3), SOME)
    return Goal(ImageReader(FileSource(image)).index, SIZE + more, unused)


def test_unused_space_is_part_of_the_goal_only_when_it_is_to_be_zeros(tmp_path: object) -> None:
    leave, zero = goal_of(tmp_path, LEAVE), goal_of(tmp_path, ZERO_UNUSED)
    assert [row.chunk for row in leave.rows()] == [0, 3, 7]
    assert [row.chunk for row in zero.rows()] == list(range(8))
    assert (len(leave), len(zero)) == (3, 8)
    assert [row.chunk for row in goal_of(tmp_path, ZERO_UNUSED, 2 * CHUNK).rows()] == list(range(10))
    row = zero.row(3)
    assert row is not None
    assert zero.bytes_in(row) == CHUNK
    content = bytearray(SIZE)
    for start, end in SOME.ranges:
        content[start:end] = noise(SIZE, 3)[start:end]
    for spoiled, differing in ((None, []), (2 * CHUNK, [2]), (3 * CHUNK, [3]), (7 * CHUNK, [7])):
        spoilt = bytearray(content)
        if spoiled is not None:
            spoilt[spoiled] ^= 1
        with RawDisk(make_file(scratch_name(tmp_path, "disk"), bytes(spoilt))) as disk:
            scan = Scan(disk, goal_of(tmp_path, ZERO_UNUSED), Stopwatches())
            assert [row.chunk for row, equal in scan.compare(zero.rows()) if not equal] == differing


def test_unused_ranges_are_the_gaps_between_used_ones(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.fleet.imaging.plugins.module_utils.engine import goal

    monkeypatch.setattr(goal, "WORTH_DISCARDING", 1)
    assert list(goal_of(tmp_path, LEAVE, 3 << 20).unused_ranges()) == [
        (CHUNK, 3 * CHUNK + 512),
        (3 * CHUNK + 4096, 7 * CHUNK),
        (SIZE, SIZE + (3 << 20)),
    ]
    assert list(goal_of(tmp_path, ZERO_UNUSED).unused_ranges()) == []
