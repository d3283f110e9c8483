# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess

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


def test_no_zstd_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "_module", lambda name: None)
    monkeypatch.setattr(zstd, "_shared_library", lambda: None)
    with pytest.raises(ImagingError, match="libzstd1"):
        zstd.find_zstd()
