# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GPT that moves to a disk of another size, by what sgdisk and sfdisk make of it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.gpt import relocate, reserve
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError

from ..samples import scratch_name

MIB = 1 << 20
SIZE = 24 * MIB
END = 14 * MIB

needs_sgdisk = pytest.mark.skipif(shutil.which("sgdisk") is None, reason="sgdisk is not installed")


def make_disk(path: str, entries: int = 128) -> bytes:
    with open(path, "wb") as file:
        file.truncate(SIZE)
    start = "1M" if entries <= 256 else "3M"
    layout = [
        "-n",
        f"1:{start}:3999K",
        "-c",
        "1:EFI",
        "-t",
        "1:ef00",
        "-n",
        "2:4M:+10M",
        "-c",
        "2:Windows",
        "-A",
        "2:set:2",
    ]
    subprocess.run(["sgdisk", "-S", str(entries), *layout, path], check=True, stdout=subprocess.DEVNULL)
    with open(path, "rb") as file:
        return file.read()


def moved(disk: bytes, size: int, sector_size: int = 512) -> bytes:
    """The disk's content on one of another size, as relocate() says."""
    content = bytearray(disk[:size].ljust(size, b"\0"))
    for start, data in relocate(lambda offset, length: disk[offset : offset + length], len(disk), size, sector_size):
        assert start + len(data) <= size
        content[start : start + len(data)] = data
    return bytes(content)


def check(path: str, content: bytes) -> str:
    with open(path, "wb") as file:
        file.write(content)
    said = subprocess.run(["sgdisk", "-v", path], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "No problems found" in said, said
    result = subprocess.run(
        ["sfdisk", "--verify", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert result.returncode == 0 and "No errors detected" in result.stdout, result.stdout
    return subprocess.run(["sfdisk", "--dump", path], check=True, stdout=subprocess.PIPE, text=True).stdout


@needs_sgdisk
@pytest.mark.parametrize("size", [SIZE + 512, SIZE + 16 * 512, SIZE + 5 * MIB, 3 * SIZE, SIZE - 512, 18 * MIB])
def test_the_backup_is_where_sgdisk_puts_it_and_nowhere_else(tmp_path: object, size: int) -> None:
    path = scratch_name(tmp_path, "disk")
    disk = make_disk(path)
    content = moved(disk, size)
    dump = check(path, content)
    assert content.count(b"EFI PART") == 2
    os.truncate(path, 0)
    with open(path, "wb") as file:
        file.write(disk[:size].ljust(size, b"\0"))
    subprocess.run(["sgdisk", "-e", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    with open(path, "rb") as file:
        theirs = file.read()
    assert content[512:1024] == theirs[512:1024]
    assert content[-512 * 33 :] == theirs[-512 * 33 :]
    assert content[1024:END] == theirs[1024:END] == disk[1024:END]
    assert "Windows" in dump and f"last-lba: {size // 512 - 34}" in dump
    assert struct.unpack_from("<I", content, 446 + 12)[0] == size // 512 - 1


@needs_sgdisk
def test_the_smallest_disk_has_room_for_the_backup_and_no_more(tmp_path: object) -> None:
    path = scratch_name(tmp_path, "disk")
    disk = make_disk(path)
    least = END + reserve(512)
    check(path, moved(disk, least))
    with pytest.raises(ImagingError, match="512 bytes too far"):
        moved(disk, least - 512)


@needs_sgdisk
@pytest.mark.parametrize("entries", [256, 16384])
def test_an_array_of_another_size_is_kept(entries: int, tmp_path: object) -> None:
    path = scratch_name(tmp_path, "disk")
    disk = make_disk(path, entries)
    content = moved(disk, 2 * SIZE)
    assert f"table-length: {entries}" in check(path, content)
    check(path, moved(disk, END + reserve(512, entries)))


@needs_sgdisk
@pytest.mark.parametrize(
    ("offset", "words"), [(512, "header"), (512 + 30, "header"), (512 + 16, "header"), (1024 + 40, "entries")]
)
def test_what_is_damaged_is_not_moved(tmp_path: object, offset: int, words: str) -> None:
    disk = bytearray(make_disk(scratch_name(tmp_path, "disk")))
    disk[offset] ^= 1
    with pytest.raises(ImagingError, match=words):
        moved(bytes(disk), 2 * SIZE)


@needs_sgdisk
def test_a_backup_that_claims_to_lie_in_a_partition_is_no_reason_to_clear_that(tmp_path: object) -> None:
    disk = bytearray(make_disk(scratch_name(tmp_path, "disk")))
    disk[10 * MIB : 12 * MIB] = b"x" * 2 * MIB
    struct.pack_into("<Q", disk, SIZE - 512 + 72, 10 * MIB // 512)  # the entries of the backup header
    assert moved(bytes(disk), 2 * SIZE)[10 * MIB : 12 * MIB] == b"x" * 2 * MIB


@needs_sgdisk
def test_a_protective_mbr_of_the_largest_number_stays(tmp_path: object) -> None:
    disk = bytearray(make_disk(scratch_name(tmp_path, "disk")))
    struct.pack_into("<I", disk, 446 + 12, 0xFFFFFFFF)
    assert moved(bytes(disk), 2 * SIZE)[:512] == disk[:512]
