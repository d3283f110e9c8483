# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import struct
import subprocess
import tracemalloc

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils import zstd
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError

from .samples import noise

WAYS = zstd.available()


def test_this_machine_has_a_zstd() -> None:
    assert WAYS


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("size", [512, 65536, 4 << 20])
def test_a_frame_gives_its_content_back(way: zstd.Zstd, size: int) -> None:
    content = noise(size)
    frame = way.codec().compress(memoryview(bytearray(content)), 3)
    out = memoryview(bytearray(size))
    way.codec().decompress_into(frame, out)
    assert out == content
    assert len(frame) < size * 0.7 + 100


@pytest.mark.parametrize("writer", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("reader", WAYS, ids=lambda way: way.name)
def test_every_way_reads_every_other(writer: zstd.Zstd, reader: zstd.Zstd) -> None:
    content = noise(100_000)
    out = memoryview(bytearray(len(content)))
    frame = writer.codec().compress(memoryview(bytearray(content)), -5)
    reader.codec().decompress_into(memoryview(bytearray(frame)), out)
    assert out == content


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_plain_tool_finds_size_and_checksum(way: zstd.Zstd, tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "frame.zst")
    with open(path, "wb") as file:
        file.write(way.codec().compress(memoryview(bytearray(noise(70_000))), 3))
    listing = subprocess.run(["zstd", "-lv", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout
    assert b"(70000 B)" in listing
    assert b"XXH64" in listing


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: b"",
        lambda frame: b"no zstd at all, but long enough to look at",
        lambda frame: frame[:-1],
        lambda frame: frame[:20] + bytes([frame[20] ^ 1]) + frame[21:],
        lambda frame: frame[: len(frame) // 2],
        lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]),
        lambda frame: frame[:9],
    ],
)
def test_a_damaged_frame_is_an_error(way: zstd.Zstd, damage: object) -> None:
    frame = way.codec().compress(memoryview(bytearray(noise(65536))), 3)
    with pytest.raises(ImagingError):
        way.codec().decompress_into(damage(frame), memoryview(bytearray(65536)))  # type: ignore[operator]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("room", [65535, 65537])
def test_a_frame_of_another_size_is_an_error(way: zstd.Zstd, room: int) -> None:
    frame = way.codec().compress(memoryview(bytearray(noise(65536))), 3)
    with pytest.raises(zstd.FrameError, match="65536"):
        way.codec().decompress_into(frame, memoryview(bytearray(room)))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize(
    "behind",
    [b"\0", b"something else", struct.pack("<II", 0x184D2A50, 4) + b"skip"],
    ids=["a zero", "no frame", "a skippable frame"],
)
def test_nothing_may_be_behind_a_frame(way: zstd.Zstd, behind: bytes) -> None:
    frame = way.codec().compress(memoryview(bytearray(noise(65536))), 3)
    with pytest.raises(zstd.FrameError, match=f"{len(behind)} bytes after"):
        way.codec().decompress_into(frame + behind, memoryview(bytearray(65536)))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_second_frame_is_not_taken_for_the_first_ones_end(way: zstd.Zstd) -> None:
    frame = way.codec().compress(memoryview(bytearray(noise(512))), 3)
    with pytest.raises(zstd.FrameError, match="after"):
        way.codec().decompress_into(frame + frame, memoryview(bytearray(512)))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("window", [64 << 10, 8 << 20])
def test_a_frame_that_holds_more_than_it_declares_takes_no_memory(way: zstd.Zstd, window: int) -> None:
    size, blocks, block_size = 16 << 20, 3000, min(window, 128 << 10)
    head = struct.pack("<IBBI", 0xFD2FB528, 2 << 6, (window.bit_length() - 11) << 3, size)
    runs = (struct.pack("<I", block_size << 3 | 2 | (number == blocks - 1))[:3] + b"\0" for number in range(blocks))
    frame, out = head + b"".join(runs), memoryview(bytearray(size))
    tracemalloc.start()
    try:
        with pytest.raises(zstd.FrameError):
            way.codec().decompress_into(frame, out)
        assert tracemalloc.get_traced_memory()[1] < 3 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize(
    ("descriptor", "taken"), [(17 << 3, True), (17 << 3 | 1, False), (21 << 3, False), (31 << 3 | 7, False)]
)
def test_a_window_is_bounded_alike_everywhere(way: zstd.Zstd, descriptor: int, taken: bool) -> None:
    content = noise(600)
    frame = struct.pack("<IBBH", 0xFD2FB528, 1 << 6, descriptor, 600 - 256)
    frame += struct.pack("<I", 600 << 3 | 1)[:3] + content
    out = memoryview(bytearray(600))
    if taken:
        way.codec().decompress_into(frame, out)
        assert out == content
    else:
        with pytest.raises(zstd.FrameError, match="window"):
            way.codec().decompress_into(frame, out)


def test_no_zstd_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "_module", lambda name: None)
    monkeypatch.setattr(zstd, "_shared_library", lambda: None)
    with pytest.raises(ImagingError, match="libzstd1"):
        zstd.find_zstd()
