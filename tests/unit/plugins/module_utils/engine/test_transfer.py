# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a disk to records to another disk, over a real link, without Ansible."""

from __future__ import annotations

import os
import threading
from typing import Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils import zstd
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import DiskError, RawDisk, spans
from ansible_collections.fleet.imaging.plugins.module_utils.engine.capture import Capture
from ansible_collections.fleet.imaging.plugins.module_utils.engine.goal import LEAVE, Goal
from ansible_collections.fleet.imaging.plugins.module_utils.engine.guards import Guards
from ansible_collections.fleet.imaging.plugins.module_utils.engine.pipeline import OrderedPipeline
from ansible_collections.fleet.imaging.plugins.module_utils.engine.restore import DamagedFrame, Restore
from ansible_collections.fleet.imaging.plugins.module_utils.engine.scan import Scan
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import USED, ZERO, RecordHeader

from ..samples import CHUNK, STREAM, Used, geometry, make_file, make_image, noise, scratch_name

SIZE = 12 * CHUNK + 1024
USED_RANGES = Used((0, 2 * CHUNK), (3 * CHUNK + 512, 3 * CHUNK + 4096), (5 * CHUNK, 7 * CHUNK), (SIZE - 1024, SIZE))


def disk_content() -> bytes:
    content = bytearray(noise(SIZE, 3))
    content[5 * CHUNK : 6 * CHUNK] = bytes(CHUNK)
    return bytes(content)


def capture_all(path: str) -> tuple[Capture, list[tuple[RecordHeader, bytes | None]]]:
    with RawDisk(path) as disk:
        capture = Capture(disk, geometry(SIZE), USED_RANGES, zstd.find_zstd(), 3, STREAM, Stopwatches())
        return capture, list(capture.records(0, geometry(SIZE).chunk_count))


def test_capture_reads_only_what_is_used_and_knows_zeros(tmp_path: object) -> None:
    path = make_file(scratch_name(tmp_path, "disk"), disk_content())
    capture, records = capture_all(path)
    assert [(header.chunk, header.flags) for header, _frame in records] == [
        (0, USED),
        (1, USED),
        (3, USED),
        (5, USED | ZERO),
        (6, USED),
        (12, USED),
    ]
    assert capture.bytes_read == 4 * CHUNK + 4096 + 1024


def test_capture_and_image_agree_on_the_root_digest(tmp_path: object) -> None:
    path = make_file(scratch_name(tmp_path, "disk"), disk_content())
    root, _masked = make_image(scratch_name(tmp_path, "i.img.zst"), disk_content(), USED_RANGES)
    capture, _records = capture_all(path)
    assert capture.index.root_digest() == root


def test_captured_again_from_the_middle_the_digest_is_the_same(tmp_path: object) -> None:
    path = make_file(scratch_name(tmp_path, "disk"), disk_content())
    with RawDisk(path) as disk:
        capture = Capture(disk, geometry(SIZE), USED_RANGES, zstd.find_zstd(), 3, STREAM, Stopwatches())
        list(capture.records(0, 13))
        before = capture.index.root_digest()
        records = capture.records(0, 13)
        next(records)
        next(records)
        records.close()
        list(capture.records(3, 13))
        assert capture.index.root_digest() == before


def test_holes_of_a_file_are_zeros_that_are_not_read(tmp_path: object) -> None:
    path = scratch_name(tmp_path, "disk")
    with open(path, "wb") as file:
        file.truncate(SIZE)
        file.seek(6 * CHUNK)
        file.write(b"x" * 512)
    capture, records = capture_all(path)
    assert [header.flags for header, _frame in records] == [3, 3, 3, 3, 1, 3]
    assert capture.bytes_read == CHUNK


def target(tmp_path: object, content: bytes) -> str:
    return make_file(scratch_name(tmp_path, "target"), content)


def restore_from(
    reader: ImageReader, disk: RawDisk, chunks: Iterator[int], spoil: tuple[int, int] = (-1, 0)
) -> Restore:
    """Restore from the records of chunks. ``spoil`` is a chunk, and the byte of its frame that arrives wrong."""
    goal = Goal(reader.index, disk.size, LEAVE)
    guards = Guards(disk, reader.header.geometry)
    restore = Restore(disk, goal, reader.index, guards, zstd.find_zstd(), Stopwatches())

    def receive(room: memoryview) -> RecordHeader | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        row = reader.index.find(chunk)
        assert row is not None
        record = reader.record(row)
        room[: record.header.frame_size] = record.frame
        if chunk == spoil[0]:
            room[spoil[1]] ^= 1
        return record.header

    restore.write(receive, lambda: None, lambda chunk: None)
    guards.write_back()
    return restore


def differing(disk: RawDisk, reader: ImageReader, unused: str = LEAVE) -> list[int]:
    goal = Goal(reader.index, disk.size, unused)
    return [row.chunk for row, equal in Scan(disk, goal, Stopwatches()).compare(goal.rows()) if not equal]


@pytest.mark.parametrize("order", [[0, 1, 3, 5, 6, 12], [12, 6, 5, 3, 1, 0], [3, 3, 0, 1, 0, 12, 5, 6, 5]])
def test_records_in_any_order_and_twice_make_the_disk_equal(tmp_path: object, order: list[int]) -> None:
    image = scratch_name(tmp_path, "i.img.zst")
    _root, masked = make_image(image, disk_content(), USED_RANGES)
    reader = ImageReader(FileSource(image))
    path = target(tmp_path, noise(SIZE, 9))
    with RawDisk(path, writable=True) as disk:
        restore_from(reader, disk, iter(order))
        assert not differing(disk, reader)
    with open(path, "rb") as file:
        found = file.read()
    for start, end in USED_RANGES.ranges:
        assert found[start:end] == masked[start:end]
    assert found[2 * CHUNK : 3 * CHUNK] == noise(SIZE, 9)[2 * CHUNK : 3 * CHUNK]  # an unused chunk is left alone


def test_scan_finds_each_differing_chunk_and_ignores_free_space(tmp_path: object) -> None:
    image = scratch_name(tmp_path, "i.img.zst")
    make_image(image, disk_content(), USED_RANGES)
    reader = ImageReader(FileSource(image))
    content = bytearray(disk_content())
    content[2 * CHUNK : 3 * CHUNK] = b"?" * CHUNK
    content[3 * CHUNK : 3 * CHUNK + 512] = b"!" * 512
    with RawDisk(target(tmp_path, bytes(content))) as disk:
        assert not differing(disk, reader)
    content[3 * CHUNK + 512] ^= 1
    content[5 * CHUNK + 77] ^= 1
    content[SIZE - 1] ^= 1
    with RawDisk(target(tmp_path, bytes(content))) as disk:
        assert differing(disk, reader) == [3, 5, 12]


@pytest.mark.parametrize("place", [0, 5, 12, -1])
def test_a_damaged_frame_is_never_written(tmp_path: object, place: int) -> None:
    image = scratch_name(tmp_path, "i.img.zst")
    make_image(image, disk_content(), USED_RANGES)
    reader = ImageReader(FileSource(image))
    path = target(tmp_path, bytes(SIZE))
    row = reader.index.find(6)
    assert row is not None
    with RawDisk(path, writable=True) as disk, pytest.raises(DamagedFrame, match="chunk 6"):
        restore_from(reader, disk, iter([6, 12]), spoil=(6, place % row.frame_size))
    with open(path, "rb") as file:
        assert not any(file.read()[6 * CHUNK : 7 * CHUNK])


def test_a_record_that_is_not_the_indexs_is_refused(tmp_path: object) -> None:
    image, other = scratch_name(tmp_path, "i.img.zst"), scratch_name(tmp_path, "o.img.zst")
    make_image(image, disk_content(), USED_RANGES)
    make_image(other, noise(SIZE, 77), USED_RANGES)
    reader, stranger = ImageReader(FileSource(image)), ImageReader(FileSource(other))
    with RawDisk(target(tmp_path, bytes(SIZE)), writable=True) as disk:
        goal, guards = Goal(reader.index, disk.size, LEAVE), Guards(disk, reader.header.geometry)
        restore = Restore(disk, goal, reader.index, guards, zstd.find_zstd(), Stopwatches())
        row = stranger.index.find(1)
        assert row is not None
        record = stranger.record(row)
        pending = [record.header]

        def receive(room: memoryview) -> RecordHeader | None:
            room[: record.header.frame_size] = record.frame
            return pending.pop() if pending else None

        with pytest.raises(ImagingError, match="index"):
            restore.write(receive, lambda: None, lambda chunk: None)


def test_blanked_guards_are_gone_from_the_medium(tmp_path: object) -> None:
    image = scratch_name(tmp_path, "i.img.zst")
    make_image(image, disk_content(), USED_RANGES)
    reader = ImageReader(FileSource(image))
    path = target(tmp_path, b"\xff" * (SIZE + 4096))
    with RawDisk(path, writable=True) as disk:
        Guards(disk, Goal(reader.index, disk.size, LEAVE).geometry).blank()
    with open(path, "rb") as file:
        content = file.read()
    assert not any(content[:1024])
    assert not any(content[-512:])
    assert content.count(b"\xff") == len(content) - 1536


def test_a_disk_that_somebody_locked_is_refused(tmp_path: object) -> None:
    path = target(tmp_path, bytes(SIZE))
    with RawDisk(path), pytest.raises(DiskError, match="locked"):
        RawDisk(path)
    RawDisk(path).close()


def test_requests_are_aligned_few_and_inside_the_chunk() -> None:
    assert spans([(512, 1024), (4096, 8192)], 512, 1 << 20) == [(512, 8192)]
    assert spans([(512, 1024), (600 << 10, 700 << 10)], 4096, 1 << 20) == [(0, 4096), (600 << 10, 700 << 10)]
    assert spans([(0, 1 << 20)], 4096, 1 << 20) == [(0, 1 << 20)]
    assert spans([(4096, 4608)], 4096, 4608) == [(4096, 4608)]


def test_a_pipeline_keeps_the_order_whatever_the_workers_do() -> None:
    import time

    numbers = iter(range(50))

    def feed(slot: list[int]) -> bool:
        number = next(numbers, None)
        if number is None:
            return False
        slot[0] = number
        return True

    def work(slot: list[int]) -> int:
        time.sleep(0.002 * (slot[0] % 3))
        return slot[0]

    assert [result for _slot, result in OrderedPipeline([[0] for dummy in range(4)], feed, work, 3).results()] == list(
        range(50)
    )


@pytest.mark.parametrize("stage", ["feed", "work", "consumer"])
def test_an_error_in_any_stage_ends_the_pipeline_and_its_threads(stage: str) -> None:
    before = threading.active_count()

    def feed(slot: list[int]) -> bool:
        slot[0] += 1
        if stage == "feed" and slot[0] == 3:
            raise ImagingError("feed")
        return True

    def work(slot: list[int]) -> int:
        if stage == "work" and slot[0] == 3:
            raise ImagingError("work")
        return slot[0]

    with pytest.raises(ImagingError, match=stage):
        for _slot, result in OrderedPipeline([[0] for dummy in range(4)], feed, work, 2).results():
            if stage == "consumer" and result == 3:
                raise ImagingError("consumer")
    assert threading.active_count() == before


def test_reads_go_past_the_cache_where_the_file_system_can(tmp_path: object) -> None:
    path = target(tmp_path, bytes(SIZE))
    with RawDisk(path) as disk:
        if not disk.past_cache:
            pytest.skip(f"the file system below {os.path.dirname(path)} has no O_DIRECT")
        assert disk.logical_sector_size == 512
