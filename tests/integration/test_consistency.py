# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems that are flagged clean, and whose account of free space lacks what a file uses; and checkers that fail."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.bounded_run import BoundedRun, Bounds
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import find_program
from ansible_collections.fleet.imaging.plugins.module_utils.disk.consistency import ConsistencyChecks
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems import (
    exfat_allocation,
    fat_allocation,
    ntfs_allocation,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.allocation_check import Damaged
from ansible_collections.fleet.imaging.plugins.module_utils.disk.used_map import wholly_used
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import CaptureRequest, SourceDisk, examine
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.importing import ImportRequest, import_file
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    START,
    attached,
    copy_used,
    doubts_about,
    needs,
    needs_loop_devices,
    only,
    part,
    single,
    used_map,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import playbook
from ansible_collections.fleet.imaging.tests.integration.test_disks import (
    EXT,
    FAT16,
    FAT32,
    NTFS,
    mounted,
    ntfs_attribute,
    ntfs_record,
    patch,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Plan
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = needs_loop_devices

CONTENT = b"".join(b"%015d\n" % number for number in range(4096))
"""64 KiB, in which every sector is another one."""

ALWAYS_KEPT = 6 * MIB
"""Bytes at the start of a partition of which some are captured whether they are in use or not."""

SIZE = 64 * MIB
XFS_SIZE = 320 * MIB
PATIENT = Bounds(60.0, 1 << 30)


def place_of(disk: Path) -> int:
    """Where the file lies in the partition, in bytes; all of it in one piece."""
    found = disk.read_bytes().find(CONTENT, START)
    assert found > 0
    return found - START


def write_by_mounting(*options: str) -> Callable[[Path, int], None]:
    def write(disk: Path, size: int) -> None:
        with mounted(disk, size, disk.parent / "mount", *options) as folder:
            (folder / "what comes first").write_bytes(os.urandom(ALWAYS_KEPT))
            for number in range(5):
                (folder / f"file {number}").write_bytes(os.urandom(9000 * number))
            (folder / "forgotten").write_bytes(CONTENT)

    return write


def write_fat(disk: Path, size: int) -> None:
    source = disk.parent / "source"
    source.write_bytes(CONTENT)
    with attached(disk, *part(START, size)) as device:
        tool("mmd", "-i", device, "::/folder")
        first = disk.parent / "first"
        first.write_bytes(os.urandom(ALWAYS_KEPT))
        tool("mcopy", "-i", device, first, "::/what comes first")
        tool("mcopy", "-i", device, source, "::/folder/forgotten")
        tool("mcopy", "-i", device, source, "::/folder/a second file")


def read(disk: Path, offset: int, size: int) -> bytes:
    with open(disk, "rb") as file:
        file.seek(START + offset)
        return file.read(size)


def forget_in_bitmap(disk: Path, bitmap: int, first: int, count: int) -> None:
    """Clear bits of an allocation bitmap at an offset of the partition."""
    bits = bytearray(read(disk, bitmap, (first + count) // 8 + 1))
    for cluster in range(first, first + count):
        assert bits[cluster // 8] >> cluster % 8 & 1, "it is free already"
        bits[cluster // 8] &= ~(1 << cluster % 8)
    patch(disk, bitmap, bytes(bits))


def forget_in_ext4(disk: Path, size: int) -> None:
    first, count = place_of(disk) // 4096, len(CONTENT) // 4096
    with attached(disk, *part(START, size)) as device:
        shown = tool("debugfs", "-R", "stats", device)
        free = int(re.findall(r"^Free blocks: +(\d+)", shown, re.MULTILINE)[0])
        group = first // 32768
        in_group = int(re.findall(rf"Group +{group}:.*?(\d+) free blocks", shown, re.DOTALL)[0])
        commands = (
            f"freeb {first} {count}",
            f"set_bg {group} free_blocks_count {in_group + count}",
            f"set_super_value free_blocks_count {free + count}",
            f"set_bg {group} checksum calc",
        )
        tool("debugfs", "-w", "-f", "-", device, stdin="\n".join(commands) + "\n")


def forget_in_xfs(disk: Path, size: int) -> None:
    """Have the free extent behind the file begin in the file, in both trees of its allocation group."""
    place = place_of(disk) // 4096
    with attached(disk, *part(START, size)) as device:
        blocks = int(tool("xfs_db", "-r", "-c", "sb 0", "-c", "p agblocks", device).split()[-1])
        group, block = divmod(place, blocks)
        for root in ("bnoroot", "cntroot"):
            records = tool("xfs_db", "-r", "-c", f"agf {group}", "-c", f"addr {root}", "-c", "p recs", device)
            extents = [tuple(map(int, found)) for found in re.findall(r"\d+:\[(\d+),(\d+)\]", records)]
            number, (start, count) = next(
                (number, each) for number, each in enumerate(extents, 1) if each[0] >= block + 16
            )
            change = (
                ("-c", f"write recs[{number}].startblock {block}"),
                ("-c", f"write recs[{number}].blockcount {count + start - block}"),
            )
            tool("xfs_db", "-x", "-c", f"agf {group}", "-c", f"addr {root}", *change[0], *change[1], device)


def forget_in_fat(disk: Path, _size: int) -> None:
    """Clear the entry of the file's last cluster in all tables."""
    boot = read(disk, 0, 512)
    sector, per_cluster, reserved, tables, root, _total, small = struct.unpack_from("<HBHBHHxH", boot, 11)
    entry = 2 if small else 4
    table = (small or struct.unpack_from("<I", boot, 36)[0]) * sector
    data = reserved * sector + tables * table + root * 32
    cluster = (place_of(disk) + len(CONTENT) - 1 - data) // (sector * per_cluster) + 2
    for number in range(tables):
        patch(disk, reserved * sector + number * table + cluster * entry, bytes(entry))


def exfat_places(disk: Path) -> tuple[int, int, int]:
    """Where the clusters begin, in bytes, and the first clusters of the bitmap and of the root directory."""
    boot = read(disk, 0, 512)
    heap, _clusters, root = struct.unpack_from("<III", boot, 88)
    sector, cluster = 1 << boot[108], 1 << boot[108] + boot[109]
    entries = read(disk, heap * sector + (root - 2) * cluster, 512)
    bitmap = next(struct.unpack_from("<I", entries, at + 20)[0] for at in range(0, 512, 32) if entries[at] == 0x81)
    return heap * sector, bitmap, root


def forget_in_exfat(disk: Path, _size: int) -> None:
    heap, bitmap, _root = exfat_places(disk)
    boot = read(disk, 0, 512)
    cluster = 1 << boot[108] + boot[109]
    forget_in_bitmap(disk, heap + (bitmap - 2) * cluster, (place_of(disk) - heap) // cluster, len(CONTENT) // cluster)


def forget_in_ntfs(disk: Path, _size: int) -> None:
    _offset, record = ntfs_record(disk, 6)
    attribute = ntfs_attribute(record, 0x80)
    runs = attribute + struct.unpack_from("<H", record, attribute + 32)[0]
    middle = runs + 1 + (record[runs] & 15)
    bitmap = int.from_bytes(record[middle : middle + (record[runs] >> 4)], "little")
    forget_in_bitmap(disk, bitmap * 4096, place_of(disk) // 4096, len(CONTENT) // 4096)


XFS = ["mkfs.xfs", "-q", "-f", "-K"]
KINDS = {
    "ext4": ([*EXT, "-b", "4096"], SIZE, write_by_mounting(), forget_in_ext4),
    "xfs": (XFS, XFS_SIZE, write_by_mounting("-t", "xfs", "-o", "nouuid"), forget_in_xfs),
    "FAT16": (FAT16, SIZE, write_fat, forget_in_fat),
    "FAT32": (FAT32, SIZE, write_fat, forget_in_fat),
    "exfat": (["mkfs.exfat"], SIZE, write_by_mounting("-t", "exfat-fuse"), forget_in_exfat),
    "ntfs": (NTFS, SIZE, write_by_mounting("-t", "ntfs-3g"), forget_in_ntfs),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_counts_as_free_is_found_and_captured(kind: str, tmp_path: Path) -> None:
    make, size, write, forget = KINDS[kind]
    needs(make[0], "partclone.extfs")
    disk = single(tmp_path, size, make)
    write(disk, size)
    before = disk.read_bytes()
    assert doubts_about(disk, used_map(disk)) == {}
    assert disk.read_bytes() == before
    forget(disk, size)
    place = START + place_of(disk)
    file = [(place, place + len(CONTENT))]
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    assert used.ranges.within(*file[0]) != file, "the map has it all the same"
    doubts = doubts_about(disk, used)
    assert "found an inconsistency" in doubts[1]
    believed = wholly_used(used, doubts)
    assert (only(believed).method, only(believed).used, only(believed).reason) == ("whole", size, doubts[1])
    assert doubts[1] in believed.warnings[-1]
    assert "captured whole" in believed.warnings[-1]
    assert CONTENT in copy_used(disk, believed, tmp_path / "copy").read_bytes()


def test_an_ntfs_in_many_pieces_and_of_all_sizes_of_records_is_consistent(tmp_path: Path) -> None:
    needs("mkntfs", "ntfsresize")
    for number, options in enumerate((["-c", "512"], ["-c", "65536"], ["-s", "4096"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        disk = single(folder, SIZE, [*NTFS, *options])
        with mounted(disk, SIZE, folder / "mount", "-t", "ntfs-3g", "-o", "compression") as mount:
            for place in range(400):
                (mount / f"some name {place}").write_bytes(os.urandom(10 * place))
            for place in range(0, 400, 3):
                (mount / f"some name {place}").unlink()
            for _turn in range(8):
                with open(mount / "in pieces", "ab") as file, open(mount / "in pieces, too", "ab") as other:
                    for each in (file, other) * 20:
                        each.write(os.urandom(5000))
                        each.flush()
            os.truncate(mount / "in pieces", 40 * MIB)
        assert doubts_about(disk, used_map(disk)) == {}
        with attached(disk, "--read-only", *part(START, SIZE)) as device:
            tool("ntfsresize", "--info", "--no-progress-bar", device)


def test_clusters_that_only_the_bitmap_has_are_no_reason_against_an_ntfs(tmp_path: Path) -> None:
    needs("mkntfs", "ntfsresize")
    disk = single(tmp_path, SIZE, NTFS)
    write_by_mounting("-t", "ntfs-3g")(disk, SIZE)
    first = place_of(disk)
    with mounted(disk, SIZE, tmp_path / "mount", "-t", "ntfs-3g") as folder:
        (folder / "forgotten").unlink()
    _offset, record = ntfs_record(disk, 6)
    attribute = ntfs_attribute(record, 0x80)
    runs = attribute + struct.unpack_from("<H", record, attribute + 32)[0]
    middle = runs + 1 + (record[runs] & 15)
    bitmap = int.from_bytes(record[middle : middle + (record[runs] >> 4)], "little") * 4096
    (byte,) = read(disk, bitmap + first // 4096 // 8, 1)
    patch(disk, bitmap + first // 4096 // 8, bytes([byte | 1 << first // 4096 % 8]))
    assert doubts_about(disk, used_map(disk)) == {}
    with attached(disk, "--read-only", *part(START, SIZE)) as device:
        refused = subprocess.run(["ntfsresize", "--info", device], capture_output=True, text=True, check=False)
    assert "extra cluster" in refused.stdout + refused.stderr


def test_an_exfat_in_pieces_is_consistent_and_its_root_and_its_bitmap_must_be_in_its_bitmap(tmp_path: Path) -> None:
    needs("mkfs.exfat", "mount.exfat-fuse")
    disk = single(tmp_path, SIZE, ["mkfs.exfat", "-c", "512"])
    with mounted(disk, SIZE, tmp_path / "mount", "-t", "exfat-fuse") as folder:
        (folder / "a folder").mkdir()
        with open(folder / "in pieces", "ab") as file, open(folder / "a folder" / "in pieces, too", "ab") as other:
            for each in (file, other) * 40:
                each.write(os.urandom(1300))
                each.flush()
        for number in range(100):
            (folder / "a folder" / f"some longer name {number}").write_bytes(os.urandom(20 * number))
    used = used_map(disk)
    assert doubts_about(disk, used) == {}
    heap, bitmap, root = exfat_places(disk)
    for cluster in (bitmap, root):
        before = disk.read_bytes()
        forget_in_bitmap(disk, heap + (bitmap - 2) * 512, cluster - 2, 1)
        assert "clusters in use that are marked as free: 1" in doubts_about(disk, used)[1]
        disk.write_bytes(before)


ALLOCATIONS = {"FAT32": fat_allocation, "exfat": exfat_allocation, "ntfs": ntfs_allocation}


@pytest.mark.parametrize("kind", ALLOCATIONS)
def test_whatever_is_damaged_is_found_damaged_lacking_or_well(kind: str, tmp_path: Path) -> None:
    make, _size, write, _forget = KINDS[kind]
    needs(make[0])
    disk = single(tmp_path, SIZE, make)
    write(disk, SIZE)
    content = bytearray(disk.read_bytes()[START : START + SIZE])
    whole = bytes(content)
    # Where something is that is not the noise of an old disk, which repeats itself.
    lively = [at for at in range(0, SIZE, 512) if whole[at : at + 512] != whole[-MIB + at % MIB :][:512]]
    generator = random.Random(kind)
    outcomes = set()
    began = time.monotonic()
    for _turn in range(100):
        changed = []
        for _change in range(generator.choice((1, 1, 1, 4, 40))):
            at = generator.choice(lively[:64] if generator.random() < 0.5 else lively) + generator.randrange(512)
            content[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
            changed.append(at)
        with contextlib.suppress(Damaged):
            outcomes.add(ALLOCATIONS[kind].Allocation(reader_of(content), SIZE).lacking() > 0)
        for at in changed:
            content[at] = whole[at]
    assert outcomes
    assert time.monotonic() - began < 60


def reader_of(content: bytearray) -> Callable[[int, int], bytes]:
    """Reads as a program of ours reads a device."""

    def read_at(offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= len(content):
            raise Damaged("it ends")
        return bytes(content[offset : offset + length])

    return read_at


@pytest.mark.parametrize(
    ("offset", "content"),
    [(512 + 488, b"\x05\0\0\0"), (32 * 512, bytes(4)), (66, b"\x28"), (32 * 512 + 400, b"\xff\xff\xff\x0f")],
    ids=["count of free clusters", "first entry", "signature", "tables that differ"],
)
def test_what_loses_nothing_is_no_reason_against_a_fat(offset: int, content: bytes, tmp_path: Path) -> None:
    needs("mkfs.fat")
    disk = single(tmp_path, SIZE, FAT32)
    write_fat(disk, SIZE)
    patch(disk, offset, content)
    assert only(used_map(disk)).method == "partclone"
    assert doubts_about(disk, used_map(disk)) == {}


def test_a_wrong_count_of_free_blocks_is_no_reason_against_an_ext4(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, EXT)
    with attached(disk, *part(START, SIZE)) as device:
        tool("debugfs", "-w", "-R", "set_super_value free_blocks_count 5", device)
    used = used_map(disk)
    assert doubts_about(disk, replace(used, partitions=[replace(only(used), method="partclone")])) == {}


@pytest.fixture(name="ext4")
def fixture_ext4(tmp_path: Path) -> Path:
    needs("partclone.extfs")
    return single(tmp_path, 16 * MIB, EXT)


@pytest.fixture(name="stand_in")
def fixture_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a script into the place of e2fsck; in the end none may run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(script: str) -> None:
        (folder / "e2fsck").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "e2fsck").chmod(0o755)

    yield put
    assert subprocess.run(["pgrep", "-f", str(folder)], stdout=subprocess.PIPE, check=False).stdout == b""


HANGS = "while :; do :; done"
TAKES_MEMORY = "exec python3 -c 'import time; x = bytearray(200000000); time.sleep(60)'"


@pytest.mark.parametrize(
    ("script", "bounds", "doubt"),
    [
        (HANGS, Bounds(1.0, 1 << 30), "e2fsck did not finish within 1 seconds"),
        ("exec >&- 2>&-; " + HANGS, Bounds(1.0, 1 << 30), "e2fsck did not finish within 1 seconds"),
        ("kill -9 $$", PATIENT, "e2fsck failed: exit status -9"),
        ("yes | head -c 100000000; exit 4", PATIENT, "found an inconsistency: y"),
        (TAKES_MEMORY, Bounds(20.0, 64 << 20), "more than 64.0 MiB"),
        ("echo no such option >&2; exit 16", PATIENT, "e2fsck failed: exit status 16, no such option"),
        ('dd if=/dev/zero of="$3" bs=512 count=1 && exit 0; exit 8', PATIENT, "e2fsck failed: exit status 8"),
    ],
    ids=["hangs", "hangs silently", "is killed", "says much", "takes too much memory", "fails", "writes"],
)
def test_a_checker_that_fails_proves_nothing(
    script: str, bounds: Bounds, doubt: str, ext4: Path, stand_in: Callable[[str], None]
) -> None:
    used = used_map(ext4)
    before = ext4.read_bytes()
    stand_in(script)
    doubts = doubts_about(ext4, used, BoundedRun(bounds))
    assert doubt in doubts[1]
    assert ext4.read_bytes() == before


def test_a_checker_that_is_missing_costs_space_and_is_said_once(ext4: Path) -> None:
    used = used_map(ext4)
    run = BoundedRun(PATIENT, lambda name: None if name == "e2fsck" else find_program(name))
    missing = ConsistencyChecks(str(ext4), used.partitions, run).missing()
    believed = wholly_used(used, missing)
    assert (only(believed).method, only(believed).reason) == ("whole", "e2fsck is not installed")
    assert len(believed.warnings) == 1
    assert "package e2fsprogs" in believed.warnings[0]
    assert ConsistencyChecks(str(ext4), used.partitions, BoundedRun(PATIENT)).missing() == {}


def request_for(disk: Path) -> CaptureRequest:
    return CaptureRequest(str(disk), "auto", 3, False, {})


def test_a_capture_that_ends_takes_its_checker_along(ext4: Path, stand_in: Callable[[str], None]) -> None:
    stand_in(HANGS)
    began = time.monotonic()
    with SourceDisk(RUN, request_for(ext4)) as disk:
        disk.map_used()
        assert not disk.checked(0.3)
        assert not disk.take_doubts()
    assert time.monotonic() - began < 10
    assert str(ext4) not in tool("losetup", "--list", "--noheadings", "--output", "BACK-FILE")


def test_what_a_capture_would_find_is_found_without_one(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, NTFS)
    write_by_mounting("-t", "ntfs-3g")(disk, SIZE)
    assert examine(RUN, request_for(disk))[0].partitions[0].method == "partclone"
    forget_in_ntfs(disk, SIZE)
    found, warnings = examine(RUN, request_for(disk))
    assert found.partitions[0].method == "whole"
    assert found.used_bytes > SIZE + START
    assert "marked as free" in warnings[0]


def test_an_import_of_an_inconsistent_file_system_has_all_of_it(store: Path, tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, NTFS)
    write_by_mounting("-t", "ntfs-3g")(disk, SIZE)
    forget_in_ntfs(disk, SIZE)
    done = import_file(run_command, FolderStore(str(store)), ImportRequest(str(disk), "x"))
    assert done is not None
    assert done.used is not None
    assert only(done.used).method == "whole"
    assert done.image.header.source["partitions"][0]["method"] == "whole"
    assert "marked as free" in " ".join(done.warnings)
    assert CONTENT in subprocess.run(["zstd", "-dc", done.path], capture_output=True, check=True).stdout
    assert os.listdir(store) == ["x.img.zst"]


@pytest.mark.skipif(not isolated(), reason="a lab of its own needs root")
def test_a_capture_whose_checker_disagrees_has_all_of_the_file_system(store: Path, tmp_path: Path) -> None:
    needs("mkntfs", "partclone.ntfs")
    disk = single(tmp_path, SIZE, NTFS)
    write_by_mounting("-t", "ntfs-3g")(disk, SIZE)
    forget_in_ntfs(disk, SIZE)
    size = disk.stat().st_size
    own = ("-e", f"imaging_store={store}", "-e", "imaging_image=x", "-e", "imaging_confirm_erase=true")
    with running_lab(Plan(1, size, size, isolated(), reference_image=disk), laptops=1) as lab:
        captured = playbook(lab, "capture", *own)
        assert captured.status == 0, captured.stdout
        said = " ".join(captured.stderr.split())
        assert (
            "is captured whole: a check of its MFT found an inconsistency: clusters in use that are marked as free: 16."
            in said
        )
        again = playbook(lab, "capture", *own, "-e", "imaging_update=true").of("image_capture")
        assert [each.result["changed"] for each in again] == [False]
        restored = playbook(lab, "restore", *own)
        assert restored.status == 0, restored.stdout
        target = lab.laptops[0].backing_file
        assert CONTENT in target.read_bytes()
        with mounted(target, SIZE, tmp_path / "mount", "-r", "-t", "ntfs-3g") as folder:
            assert (folder / "forgotten").read_bytes() == CONTENT
    assert sorted(path.name for path in store.iterdir() if path.is_file()) == ["x.img.zst"]
