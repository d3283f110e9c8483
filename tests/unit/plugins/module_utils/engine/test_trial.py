# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a disk a trial is of, on files that stand for disks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.ranges import ByteRanges
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import DiskError, RawDisk, aligned_buffer
from ansible_collections.fleet.imaging.plugins.module_utils.engine.trial import (
    RUN,
    PretendedDisk,
    SampledDisk,
    spread,
)
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK, make_file, noise

COUNT = 30


@pytest.fixture(name="raw")
def fixture_raw(tmp_path: Path) -> Iterator[RawDisk]:
    """A disk of noise."""
    with RawDisk(make_file(tmp_path / "disk", noise(COUNT * CHUNK, 1))) as raw:
        yield raw


@pytest.mark.parametrize("count", [0, 1, RUN, 5 * RUN + 3, 64 * RUN])
def test_a_sample_has_everything_once(count: int) -> None:
    assert sorted(spread(count)) == list(range(count))


def test_any_first_part_of_a_sample_comes_from_all_over() -> None:
    order = list(spread(64 * RUN))
    assert order[:RUN] == list(range(RUN))
    assert sorted(number // RUN for number in order[: 4 * RUN : RUN]) == [0, 16, 32, 48]


def test_only_what_is_used_is_in_a_sample(raw: RawDisk) -> None:
    used = ByteRanges([(CHUNK, 2 * CHUNK), (5 * CHUNK + 4096, 5 * CHUNK + 8192), (20 * CHUNK, 30 * CHUNK)])
    sample = SampledDisk(raw, used, CHUNK)
    assert len(sample) == 12
    content = aligned_buffer(CHUNK)
    for chunk, there in enumerate([1, 5, *range(20, 26), *range(26, 30)]):
        sample.read_into(chunk * CHUNK, content)
        assert bytes(content) == noise(COUNT * CHUNK, 1)[there * CHUNK :][:CHUNK]
    assert sample.within(CHUNK, 2 * CHUNK) == [(CHUNK + 4096, CHUNK + 8192)]
    assert sum(end - start for start, end in sample.within(0, 12 * CHUNK)) == used.total()


def test_a_disk_that_is_pretended_to_be_written_takes_its_time_and_keeps_its_content(raw: RawDisk) -> None:
    disk = PretendedDisk(raw.path)
    disk.write_rate = 20 * CHUNK
    content = aligned_buffer(CHUNK)
    began = time.monotonic()
    for chunk in range(4):
        disk.write_from(chunk * CHUNK, content)
    assert 0.2 <= time.monotonic() - began < 1.0
    disk.read_into(0, content)
    assert bytes(content) == noise(COUNT * CHUNK, 1)[:CHUNK]
    assert not disk.only_zeros
    disk.close()


def test_a_disk_that_is_shared_leaves_it_to_others(raw: RawDisk) -> None:
    with pytest.raises(DiskError, match="locked"):
        RawDisk(raw.path, patience=0.1)
    with RawDisk(raw.path, shared=True) as shared:
        assert shared.size == COUNT * CHUNK
