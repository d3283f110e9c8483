# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a laptop has of an image for other laptops."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.engine.restore import decode
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import RecordHeader
from ansible_collections.fleet.imaging.plugins.module_utils.serving.peers import (
    MAX_WINDOW,
    PAUSE,
    DiskRecords,
    Place,
    Share,
    Window,
    window_size,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import want
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, SocketChannel
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd

from ..samples import CHUNK, Used, make_image, noise

SIZE = 4 * CHUNK
USED = Used((0, CHUNK), (CHUNK + 4096, CHUNK + 8192), (3 * CHUNK, SIZE))
DISK = noise(SIZE, 9)


def frame(size: int) -> bytes:
    return b"x" * size


def test_the_oldest_records_make_room() -> None:
    window = Window(100)
    for chunk in range(5):
        window.add(chunk, b"", frame(30))
    assert [window.get(chunk) is not None for chunk in range(5)] == [False, False, True, True, True]


def test_a_record_that_comes_again_counts_once() -> None:
    window = Window(100)
    for _time in range(9):
        window.add(1, b"", frame(60))
    window.add(2, b"", frame(40))
    assert window.get(1) is not None and window.get(2) is not None


def test_pinned_chunks_stay() -> None:
    window = Window(0, pinned=[7])
    window.add(7, b"seven", frame(10))
    window.add(8, b"eight", frame(10))
    assert window.get(7) == (b"seven", frame(10)) and window.get(8) is None


def test_the_window_is_a_share_of_what_is_available(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000000 kB\nMemAvailable:  400000 kB\n")
    assert window_size(str(meminfo)) == 100000 << 10
    meminfo.write_text("MemAvailable:  400000000 kB\n")
    assert window_size(str(meminfo)) == MAX_WINDOW


@pytest.mark.parametrize("text", ["", "MemAvailable:\n", "MemAvailable: many kB\n"])
def test_without_knowing_what_is_available_there_is_no_window(tmp_path: Path, text: str) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(text)
    assert window_size(str(meminfo)) == 0
    assert window_size(str(tmp_path / "absent")) == 0


@pytest.fixture(name="reader")
def fixture_reader(tmp_path: Path) -> ImageReader:
    make_image(str(tmp_path / "i.img.zst"), DISK, USED)
    return ImageReader(FileSource(str(tmp_path / "i.img.zst")))


def records(path: Path, reader: ImageReader) -> list[tuple[bytes, bytes] | None]:
    with RawDisk(str(path)) as raw:
        maker = DiskRecords(raw, reader.index, reader.header.image_id, find_zstd())
        return [maker.record(row) for row in reader.index]


def test_records_from_a_disk_are_as_good_as_those_of_the_image(tmp_path: Path, reader: ImageReader) -> None:
    # Bytes that the image does not use may differ.
    disk = bytearray(DISK)
    disk[CHUNK : CHUNK + 4096] = b"?" * 4096
    (tmp_path / "disk").write_bytes(disk)
    for row, record in zip(reader.index, records(tmp_path / "disk", reader)):
        assert record is not None
        header = RecordHeader.unpack(record[0], reader.index.geometry, reader.header.image_id)
        content = memoryview(bytearray(header.content_size))
        decode(reader.index, header, memoryview(record[1]), find_zstd().codec(), content, Stopwatches().new())
        assert header.chunk == row.chunk


def test_what_differs_on_the_disk_makes_no_record(tmp_path: Path, reader: ImageReader) -> None:
    disk = bytearray(DISK)
    disk[CHUNK + 5000] ^= 1
    (tmp_path / "disk").write_bytes(disk)
    assert [record is None for record in records(tmp_path / "disk", reader)] == [False, True, False]


@pytest.mark.parametrize("failing", ["share", "share-inbox"])
def test_without_a_thread_for_it_a_laptop_is_turned_away(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    share = Share(reader.index, Window(0), lambda chunk: Place.NOWHERE, lambda: None)
    near, far = socket.socketpair()
    with near, far:
        link = Link(SocketChannel(near), Name(LAPTOP, "lab-01"))
        start = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            if thread.name == failing:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", fail)
        share.serve(link)
        assert link.closed
        share.close()


def test_a_share_waits_for_those_who_take_from_it(reader: ImageReader) -> None:
    share = Share(reader.index, Window(0), lambda chunk: Place.COMING, lambda: None)
    assert share.wait_for_takers(0)
    near, far = socket.socketpair()
    with near, far:
        share.serve(Link(SocketChannel(near), Name(LAPTOP, "lab-01")))
        assert not share.wait_for_takers(0.01)
        far.close()
        assert share.wait_for_takers(30)
    share.close()


def test_what_turns_out_to_be_on_the_disk_is_sent_while_other_chunks_arrive(
    tmp_path: Path, reader: ImageReader
) -> None:
    (tmp_path / "disk").write_bytes(DISK)
    first, other = (row.chunk for row in list(reader.index)[:2])
    asked, on_disk = threading.Event(), threading.Event()

    def place(chunk: int) -> Place:
        asked.set()
        return Place.DISK if on_disk.is_set() else Place.COMING

    with RawDisk(str(tmp_path / "disk")) as raw:

        def disk_records() -> DiskRecords:
            return DiskRecords(raw, reader.index, reader.header.image_id, find_zstd())

        share = Share(reader.index, Window(1000), place, disk_records)
        near, far = socket.socketpair()
        with near, far:
            share.serve(Link(SocketChannel(near), Name(LAPTOP, "lab-01")))
            link = Link(SocketChannel(far), Name(LAPTOP, "lab-02"))
            want(link, [(first, first + 1)])
            assert asked.wait(10)
            on_disk.set()
            header = next(reader.records(other, other + 1)).header
            message, deadline = None, time.monotonic() + 10
            while message is None and time.monotonic() < deadline:
                share.add(header, memoryview(b"x"))
                time.sleep(PAUSE / 10)
                message = link.poll()
            assert message is not None and message.kind == Kind.RECORD
        share.close()


def test_at_its_end_a_share_keeps_nothing_and_takes_nobody(reader: ImageReader) -> None:
    window = Window(1000, pinned=[7])
    share = Share(reader.index, window, lambda chunk: Place.NOWHERE, lambda: None, keep=True)
    window.add(1, b"", frame(30))
    window.add(7, b"", frame(30))
    share.end()
    assert window.get(1) is None and window.get(7) is None
    near, far = socket.socketpair()
    with near, far:
        link = Link(SocketChannel(near), Name(LAPTOP, "lab-01"))
        share.serve(link)
        assert link.closed
