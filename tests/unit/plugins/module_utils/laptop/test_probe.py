# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a laptop measures of itself, on files that stand for disks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.ranges import ByteRanges
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import DiskError, RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.laptop import probe as probe_module
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.probe import (
    Compressed,
    DiskProbe,
    KeptFrame,
    measure_compression,
    measure_decompression,
    measure_hashing,
)
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import FrameError, find_zstd
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK, make_file, noise

COUNT = 30


@pytest.fixture(name="raw")
def fixture_raw(tmp_path: Path) -> Iterator[RawDisk]:
    """A disk of noise, but for a hole from chunk 10 to 20."""
    path = tmp_path / "disk"
    with open(str(path), "wb") as file:
        file.write(noise(10 * CHUNK, 1))
        file.seek(20 * CHUNK)
        file.write(noise(10 * CHUNK, 2))
    with RawDisk(str(path)) as raw:
        yield raw


@pytest.fixture(autouse=True)
def fixture_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test has no time for good figures."""
    monkeypatch.setattr(probe_module, "CPU_SECONDS", 0.02)


def test_zones_are_rates_of_what_holds_data(raw: RawDisk) -> None:
    probe = DiskProbe(raw, ByteRanges([(0, raw.size)]), CHUNK)
    probe.measure_zones()
    # The middle third is the hole.
    assert set(probe.rates) == {"beginning", "end"}
    assert probe.read_size == 20 * CHUNK
    assert len(probe.chunks) == COUNT
    assert probe.rate > 0
    assert not probe.only_zeros


def test_only_what_is_used_is_read(raw: RawDisk) -> None:
    probe = DiskProbe(raw, ByteRanges([(CHUNK, 2 * CHUNK), (5 * CHUNK, 5 * CHUNK + 4096)]), CHUNK)
    assert probe.chunks == [1, 5]
    assert probe.read_size == CHUNK + 4096
    assert probe.used_in(5) == [(0, 4096)]


def test_of_a_disk_that_is_all_zeros_it_is_said(tmp_path: Path) -> None:
    path = make_file(tmp_path / "zeros", bytes(6 * CHUNK))
    with RawDisk(path) as raw:
        probe = DiskProbe(raw, ByteRanges([(0, raw.size)]), CHUNK)
        probe.measure_zones()
        assert probe.only_zeros
        assert probe.rates == {}


def test_samples_are_other_ones_in_each_turn(raw: RawDisk) -> None:
    probe = DiskProbe(raw, ByteRanges([(0, raw.size)]), CHUNK)
    turns = [probe.samples(5, turn, 3) for turn in range(3)]
    assert [len(turn) for turn in turns] == [5, 5, 5]
    contents = {bytes(content) for turn in turns for content, _ranges, hole in turn if not hole}
    holes = sum(hole for turn in turns for _content, _ranges, hole in turn)
    assert (len(contents), holes) == (10, 5)


def test_a_small_disk_is_sampled_once(raw: RawDisk) -> None:
    probe = DiskProbe(raw, ByteRanges([(0, 3 * CHUNK)]), CHUNK)
    assert sum(len(probe.samples(20, turn, 4)) for turn in range(4)) == 3


def test_samples_are_compressed_as_a_capture_does_it(raw: RawDisk) -> None:
    zstd = find_zstd()
    probe = DiskProbe(raw, ByteRanges([(0, raw.size)]), CHUNK)
    found = Compressed()
    for turn in range(2):
        measure_compression(probe.samples(15, turn, 2), CHUNK, raw.alignment, zstd, 3, found)
    assert found.chunks == 30
    codec = zstd.codec()
    data = noise(10 * CHUNK, 1) + noise(10 * CHUNK, 2)
    frames = [codec.compress(memoryview(data[start : start + CHUNK]), 3) for start in range(0, len(data), CHUNK)]
    zero = len(codec.compress(memoryview(bytes(CHUNK)), 3))
    assert found.frames == sum(map(len, frames)) + 10 * zero
    assert found.rate > 0


def test_frames_are_decompressed_and_a_false_one_is_noticed() -> None:
    zstd = find_zstd()
    frames = [KeptFrame(zstd.codec().compress(memoryview(noise(CHUNK, seed)), 3), CHUNK) for seed in range(3)]
    assert measure_decompression(frames, zstd) > 0
    with pytest.raises(FrameError):
        measure_decompression([*frames, KeptFrame(b"no frame at all", CHUNK)], zstd)


def test_hashing_has_a_rate() -> None:
    assert measure_hashing(CHUNK) > 0


def test_a_disk_that_is_shared_leaves_it_to_others(tmp_path: Path) -> None:
    path = make_file(tmp_path / "disk", os.urandom(CHUNK))
    with RawDisk(path):
        with pytest.raises(DiskError, match="locked"):
            RawDisk(path)
        with RawDisk(path, shared=True) as shared:
            assert shared.size == CHUNK
