# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The used map and the refusals, on real disks: loop devices with real partition tables and file systems."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import Disk, describe, list_disks
from ansible_collections.fleet.imaging.plugins.module_utils.disk.gpt import relocate
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import look_at
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_node import loop_device
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.disk.ranges import ByteRanges
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.signatures import BLOCK, FURTHER, TAIL, probed_ranges
from ansible_collections.fleet.imaging.plugins.module_utils.disk.used_map import UsedMap
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import Geometry
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Index
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.target_disk import RestoreRequest, TargetDisk
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import LIVE_MEDIUM, NO_CAPACITY, READ_ONLY, VIRTUAL
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    START,
    attached,
    copy_used,
    needs,
    needs_loop_devices,
    old_disk,
    only,
    part,
    partitioned,
    proven_map,
    runner,
    single,
    used_map,
    write,
)
from ansible_collections.fleet.imaging.tests.integration.faults import wait_until_detached
from ansible_collections.fleet.imaging.tests.lab.disks import forget_partition
from ansible_collections.fleet.imaging.tests.lab.tools import LabError
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = needs_loop_devices

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
"""Requests to /dev/loop-control (linux/loop.h)."""


def and_signatures(disk: Path, used: UsedMap, *more: tuple[int, int]) -> list[tuple[int, int]]:
    """Some ranges, and all in which signatures are looked for on a disk and in its partitions."""
    places = [(0, disk.stat().st_size), *((each.start, each.size) for each in used.partitions)]
    return list(ByteRanges([*more, *(found for place in places for found in probed_ranges(*place))]))


@contextlib.contextmanager
def mounted(disk: Path, size: int, folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    with attached(disk, *part(START, size)) as device:
        try:
            tool("mount", *options, device, folder)
        except LabError as error:
            pytest.skip(f"can't be mounted here: {error}")
        try:
            yield folder
        finally:
            tool("umount", folder)
            wait_for_end_of_fuse(device)


def wait_for_end_of_fuse(device: Path | str) -> None:
    """A file system in user space is not clean before its process has ended, which is a little after it was unmounted."""
    deadline = time.monotonic() + 30
    while subprocess.run(["pgrep", "-f", f"fuse.* {device} "], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < deadline, f"the file system on {device} does not end"
        time.sleep(0.05)


def fill_and_age(folder: Path, share: float, seed: int = 2) -> None:
    """Fill a part of a file system with files of many sizes, and remove a third of them."""
    generator = random.Random(seed)
    room = shutil.disk_usage(folder).free * share
    files: list[Path] = []
    while room > 0:
        place = folder / f"d{generator.randrange(6)}" / f"e{generator.randrange(3)}"
        place.mkdir(parents=True, exist_ok=True)
        size = generator.choice([0, 1, 100, 700, 5000, 70000, 300000])
        files.append(place / f"file {len(files)}")
        files[-1].write_bytes(generator.randbytes(size))
        room -= size + 4096
    for file in files[::3]:
        file.unlink()


def same_tree(one: Path, other: Path) -> int:
    """How many files two folders have in common; fails unless they are equal in everything."""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*"))
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*"))
    files = [name for name in names if (one / name).is_file()]
    for name in files:
        assert filecmp.cmp(one / name, other / name, shallow=False), name
    return len(files)


SIZE = 128 * MIB
XFS_SIZE = 320 * MIB
KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-E", "nodiscard"], SIZE, [], ["e2fsck", "-fn"]),
    "ext4 with blocks of 1 KiB": (["mkfs.ext4", "-q", "-b", "1024", "-E", "nodiscard"], SIZE, [], ["e2fsck", "-fn"]),
    "ext4 of many small groups": (
        ["mkfs.ext4", "-q", "-b", "1024", "-g", "1024", "-G", "4", "-E", "nodiscard"],
        SIZE,
        [],
        ["e2fsck", "-fn"],
    ),
    "ext4 smaller than its partition": (
        ["sh", "-c", 'mkfs.ext4 -q -E nodiscard "$0" 64M'],
        SIZE,
        [],
        ["e2fsck", "-fn"],
    ),
    "ext3": (["mkfs.ext3", "-q", "-E", "nodiscard"], SIZE, [], ["e2fsck", "-fn"]),
    "ext2": (["mkfs.ext2", "-q", "-E", "nodiscard"], SIZE, [], ["e2fsck", "-fn"]),
    "xfs": (["mkfs.xfs", "-q", "-f", "-K"], XFS_SIZE, ["-t", "xfs", "-o", "nouuid"], ["xfs_repair", "-n"]),
    "ntfs": (["mkntfs", "-Q", "-q", "-F"], SIZE, ["-t", "ntfs-3g"], ["ntfsfix", "--no-action"]),
    "ntfs with clusters of 64 KiB": (
        ["mkntfs", "-Q", "-q", "-F", "-c", "65536"],
        SIZE,
        ["-t", "ntfs-3g"],
        ["ntfsfix", "--no-action"],
    ),
    "exfat": (["mkfs.exfat"], SIZE, ["-t", "exfat-fuse"], ["fsck.exfat", "-n"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_used_ranges_of_an_aged_file_system_hold_all_of_it(kind: str, tmp_path: Path) -> None:
    make, size, options, check = KINDS[kind]
    needs(make[0], check[0], "partclone.extfs")
    disk = single(tmp_path, size, make)
    with mounted(disk, size, tmp_path / "one", *options) as folder:
        fill_and_age(folder, 0.4)
    used = proven_map(disk)
    assert not used.warnings
    assert used.ranges.total() < 0.75 * size
    around = START + TAIL + len(FURTHER) * BLOCK
    assert 0 <= only(used).used + around - used.ranges.total() <= len(FURTHER) * BLOCK
    copy = copy_used(disk, used, tmp_path / "copy")
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool(*check, device)
    with (
        mounted(disk, size, tmp_path / "one", "-r", *options) as one,
        mounted(copy, size, tmp_path / "other", "-r", *options) as other,
    ):
        assert same_tree(one, other) > 50


@pytest.mark.parametrize("bits", ["16", "32"])
def test_the_used_ranges_of_an_aged_fat_hold_all_of_it(bits: str, tmp_path: Path) -> None:
    needs("mkfs.fat", "fsck.fat", "mcopy", "partclone.fat")
    size = 64 * MIB
    disk = single(tmp_path, size, ["mkfs.fat", "-F", bits, "-s", {"16": "4", "32": "1"}[bits]])
    here, one, other = tmp_path / "here", tmp_path / "one", tmp_path / "other"
    for folder in (here, one, other):
        folder.mkdir()
    generator = random.Random(3)
    for number in range(60):
        (here / f"d{number % 5}").mkdir(exist_ok=True)
        (here / f"d{number % 5}" / f"file {number}").write_bytes(generator.randbytes(generator.choice([0, 900, 90000])))
    with attached(disk, *part(START, size)) as device:
        tool("mcopy", "-s", "-i", device, *sorted(here.iterdir()), "::/")
        tool("mdel", "-i", device, *(f"::/{path.relative_to(here)}" for path in sorted(here.rglob("file*"))[::3]))
    used = proven_map(disk)
    copy = copy_used(disk, used, tmp_path / "copy")
    for image, folder in ((disk, one), (copy, other)):
        with attached(image, "--read-only", *part(START, size)) as device:
            tool("fsck.fat", "-n", device)
            tool("mcopy", "-s", "-i", device, "::", folder)
    assert same_tree(one, other) == 40


def test_a_file_system_that_partclone_refuses_is_wholly_used(tmp_path: Path) -> None:
    needs("mkfs.ext4", "partclone.extfs")
    used = used_map(single(tmp_path, 32 * MIB, ["mkfs.ext4", "-q", "-O", "bigalloc"]))
    assert only(used).method == "whole"
    assert "partclone.extfs could not map it" in only(used).reason
    assert only(used).used == 32 * MIB
    assert "is captured whole" in used.warnings[0]


def test_a_fat12_is_wholly_used_because_partclones_map_of_it_is_wrong(tmp_path: Path) -> None:
    needs("mkfs.fat", "partclone.fat")
    used = used_map(single(tmp_path, 16 * MIB, ["mkfs.fat", "-F", "12", "-s", "16"]))
    assert "FAT12" in only(used).reason
    assert only(used).used == 16 * MIB


@pytest.mark.parametrize(("text", "method"), [(b"FAT16", "partclone"), (b"FAT12", "whole"), (b"TEXT ", "partclone")])
def test_a_fat16_that_calls_itself_fat12_is_wholly_used(tmp_path: Path, text: bytes, method: str) -> None:
    """A partclone that goes by the text takes a cluster for free that is followed by one of the first fourteen."""
    needs("mkfs.fat", "partclone.fat")
    disk = single(tmp_path, 32 * MIB, ["mkfs.fat", "-F", "16", "-s", "4"])
    write(disk, START + 54, text)
    used = only(used_map(disk))
    assert (used.method, "another kind of FAT" in used.reason) == (method, method == "whole")


def patch(disk: Path, offset: int, content: bytes) -> None:
    """Change bytes of the partition."""
    with open(disk, "r+b") as file:
        file.seek(START + offset)
        file.write(content)


def debugfs(*commands: str) -> Callable[[Path], None]:
    def damage(disk: Path) -> None:
        with attached(disk, *part(START, 32 * MIB)) as device:
            for command in commands:
                tool("debugfs", "-w", "-R", command, device)

    return damage


def patched(offset: int, content: bytes) -> Callable[[Path], None]:
    return lambda disk: patch(disk, offset, content)


def fat_entry(bits: int, clear: int) -> Callable[[Path], None]:
    """Clear a flag in the second entry of the allocation table."""

    def damage(disk: Path) -> None:
        with open(disk, "rb") as file:
            file.seek(START)
            sector_size, reserved = struct.unpack("<11xHxH", file.read(16))
            entry = reserved * sector_size + bits // 8
            file.seek(START + entry)
            value = int.from_bytes(file.read(bits // 8), "little") & ~clear
        patch(disk, entry, value.to_bytes(bits // 8, "little"))

    return damage


def ntfs_record(disk: Path, number: int) -> tuple[int, bytes]:
    """Where a record of the MFT lies in the partition, and what it holds."""
    with open(disk, "rb") as file:
        file.seek(START)
        boot = file.read(512)
        cluster = struct.unpack_from("<H", boot, 11)[0] * boot[13]
        record_size = 1 << -struct.unpack_from("<b", boot, 64)[0]
        offset = struct.unpack_from("<Q", boot, 48)[0] * cluster + number * record_size
        file.seek(START + offset)
        return offset, file.read(record_size)


def ntfs_attribute(record: bytes, wanted: int) -> int:
    (position,) = struct.unpack_from("<H", record, 20)
    while True:
        kind, length = struct.unpack_from("<II", record, position)
        if kind == wanted:
            return int(position)
        position += length


def ntfs_dirty(disk: Path) -> None:
    offset, record = ntfs_record(disk, 3)
    attribute = ntfs_attribute(record, 0x70)
    value = struct.unpack_from("<H", record, attribute + 20)[0]
    patch(disk, offset + attribute + value + 10, b"\x01\x00")


def ntfs_unclean_log(disk: Path) -> None:
    """Two restart pages that say that a client, NTFS itself, still has the log open."""
    _offset, record = ntfs_record(disk, 2)
    attribute = ntfs_attribute(record, 0x80)
    runs = attribute + struct.unpack_from("<H", record, attribute + 32)[0]
    lengths = record[runs] & 15
    cluster = int.from_bytes(record[runs + 1 + lengths : runs + 1 + lengths + (record[runs] >> 4)], "little")
    log_size: int = struct.unpack_from("<Q", record, attribute + 48)[0]
    page = bytearray(4096)
    struct.pack_into("<4sHHQIIHHH", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, 64, 1, 1)
    bits = 67 - log_size.bit_length()
    struct.pack_into("<QHHHHIHHQIHHII", page, 64, 1000, 1, 0xFFFF, 0, 0, bits, 208, 48, log_size, 0, 48, 64, 1, 0)
    struct.pack_into("<QQHHH6xI", page, 112, 0, 1000, 0xFFFF, 0xFFFF, 1, 8)
    page[144:152] = "NTFS".encode("utf-16-le")
    struct.pack_into("<H", page, 30, 1)
    for sector in range(8):
        page[32 + 2 * sector : 34 + 2 * sector] = page[sector * 512 + 510 : sector * 512 + 512]
        struct.pack_into("<H", page, sector * 512 + 510, 1)
    patch(disk, cluster * 4096, bytes(page) * 2)


def ntfs_hibernated(disk: Path) -> None:
    with mounted(disk, 32 * MIB, disk.parent / "mount", "-t", "ntfs-3g") as folder:
        (folder / "hiberfil.sys").write_bytes(b"HIBR" + bytes(8188))


EXT = ["mkfs.ext4", "-q"]
FAT16, FAT32 = ["mkfs.fat", "-F", "16", "-s", "4"], ["mkfs.fat", "-F", "32", "-s", "1"]
NTFS = ["mkntfs", "-Q", "-q", "-F"]
UNCLEAN = {
    "ext4 whose journal was not replayed": (EXT, debugfs("feature +needs_recovery"), "its journal needs recovery"),
    "ext4 that was not unmounted": (EXT, debugfs("set_super_value state 0"), "not unmounted cleanly"),
    "ext4 with errors": (EXT, debugfs("set_super_value state 3"), "has errors"),
    "ext4 with orphans": (EXT, debugfs("set_super_value last_orphan 12"), "orphaned files"),
    "ext4 with orphans in their file": (EXT, patched(1024 + 0x66, b"\x01"), "orphaned files"),
    "ext4 with recorded errors": (EXT, patched(1024 + 0x194, b"\x01"), "recorded errors"),
    "ext4 with its journal elsewhere": (
        EXT,
        debugfs("set_super_value journal_inum 0", "set_super_value journal_dev 0x0801"),
        "journal is on another device",
    ),
    "ext2 that was not unmounted": (
        ["mkfs.ext2", "-q"],
        debugfs("set_super_value state 0"),
        "not unmounted cleanly",
    ),
    "FAT16 whose boot sector says dirty": (FAT16, patched(0x25, b"\x01"), "not unmounted cleanly"),
    "FAT32 whose boot sector says dirty": (FAT32, patched(0x41, b"\x01"), "not unmounted cleanly"),
    "FAT16 whose table says dirty": (FAT16, fat_entry(16, 1 << 15), "not unmounted cleanly"),
    "FAT16 whose table says errors": (FAT16, fat_entry(16, 1 << 14), "recorded disk errors"),
    "FAT32 whose table says dirty": (FAT32, fat_entry(32, 1 << 27), "not unmounted cleanly"),
    "FAT32 whose table says errors": (FAT32, fat_entry(32, 1 << 26), "recorded disk errors"),
    "FAT32 with one table in use": (FAT32, patched(40, b"\x81"), "only one of its allocation tables"),
    "exFAT that was not unmounted": (["mkfs.exfat"], patched(106, b"\x02"), "not unmounted cleanly"),
    "exFAT with errors": (["mkfs.exfat"], patched(106, b"\x04"), "recorded disk errors"),
    "NTFS marked for a check": (NTFS, ntfs_dirty, "marked for a check"),
    "NTFS with an unclean log": (NTFS, ntfs_unclean_log, "not unmounted cleanly"),
    "hibernated NTFS": (NTFS, ntfs_hibernated, "hibernated"),
}


@pytest.mark.parametrize("kind", UNCLEAN)
def test_a_file_system_that_is_not_proven_clean_is_wholly_used(kind: str, tmp_path: Path) -> None:
    make, damage, reason = UNCLEAN[kind]
    needs(make[0], "partclone.extfs", "debugfs")
    disk = single(tmp_path, 32 * MIB, make)
    assert only(used_map(disk)).method == "partclone", only(used_map(disk)).reason
    damage(disk)
    used = used_map(disk)
    assert only(used).method == "whole"
    assert reason in only(used).reason
    assert used.ranges.within(START, START + 32 * MIB) == [(START, START + 32 * MIB)]
    assert reason in used.warnings[0]


def test_an_xfs_whose_log_was_not_replayed_is_wholly_used(tmp_path: Path) -> None:
    needs("mkfs.xfs", "xfs_io", "xfs_logprint", "partclone.xfs")
    disk = single(tmp_path, XFS_SIZE, ["mkfs.xfs", "-q", "-f", "-K"])
    with mounted(disk, XFS_SIZE, tmp_path / "mount") as folder:
        fill_and_age(folder, 0.01)
        os.sync()
        (folder / "last").write_text("words")
        tool("xfs_io", "-x", "-c", "shutdown -f", folder)
    assert only(used_map(disk)).reason == "its log was not replayed"


def test_of_swap_only_the_header_is_used_and_where_signatures_are_looked_for(tmp_path: Path) -> None:
    disk = single(tmp_path, 16 * MIB, ["mkswap", "-q"])
    used = used_map(disk)
    assert only(used).method == "swap header"
    assert list(used.ranges) == and_signatures(disk, used, (0, START + (64 << 10)))
    assert only(used).used == MIB + BLOCK + BLOCK + BLOCK + TAIL


def test_swap_with_a_hibernation_image_is_wholly_used(tmp_path: Path) -> None:
    disk = single(tmp_path, 8 * MIB, ["mkswap", "-q"])
    patch(disk, 4086, b"S1SUSPEND\0")
    assert (only(used_map(disk)).content, only(used_map(disk)).method) == ("swsuspend", "whole")


def test_what_is_no_file_system_or_not_trusted_is_wholly_used(tmp_path: Path) -> None:
    needs("mkfs.btrfs", "pvcreate")
    for number, (make, content) in enumerate(
        [
            (["mkfs.btrfs", "-q", "-f", "-K"], "btrfs"),
            (["pvcreate", "-q", "-q", "-ff", "-y"], "LVM2_member"),
            (["sh", "-c", 'printf "LUKS\\272\\276\\000\\001" | dd of="$0" conv=notrunc'], "crypto_LUKS"),
            (["sh", "-c", 'printf "\\353\\130\\220-FVE-FS-" | dd of="$0" conv=notrunc'], ""),
            (["true"], ""),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        used = used_map(single(folder, 128 * MIB, make))
        assert (only(used).content, only(used).method, only(used).used) == (content, "whole", 128 * MIB)
        assert not used.warnings


def raid_superblock() -> bytes:
    """That of a member of a RAID 1 (Linux: md_p.h, version 1.2; this kernel has no md that would make one)."""
    block = bytearray(256 + 2 * 2)
    struct.pack_into("<IIII16s32sQII", block, 0, 0xA92B4EFC, 1, 0, 0, bytes(range(16)), b"host:0", 0, 1, 0)
    struct.pack_into("<QII", block, 80, 100 * 2048, 0, 2)
    struct.pack_into("<QQQ", block, 128, 2048, 100 * 2048, 8)
    struct.pack_into("<I", block, 220, 2)
    struct.pack_into("<HH", block, 256, 0, 1)
    total = sum(word for (word,) in struct.iter_unpack("<I", block))
    struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    return bytes(block)


def test_a_member_of_a_raid_is_wholly_used(tmp_path: Path) -> None:
    disk = single(tmp_path, 128 * MIB, ["true"])
    patch(disk, 4096, raid_superblock())
    use = only(used_map(disk))
    assert (use.content, use.method, use.used) == ("linux_raid_member", "whole", 128 * MIB)


@contextlib.contextmanager
def large_sectors(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A disk with sectors of 4096 bytes, a GPT and an ext4; and the device that has such sectors."""
    disk = old_disk(tmp_path / "large", 64 * MIB)
    with attached(disk, "--sector-size", "4096") as device:
        tool("sfdisk", "--quiet", "--wipe", "always", device, stdin="label: gpt\nstart=256, size=8192, name=Data\n")
        with attached(disk, *part(MIB, 32 * MIB)) as node:
            tool("mkfs.ext4", "-q", "-F", node)
        yield disk, device


def test_a_disk_with_large_sectors_is_mapped_and_its_gpt_moves(tmp_path: Path) -> None:
    with large_sectors(tmp_path) as (disk, device):
        use = only(used_map(device))
        assert (use.content, use.method, use.start, use.size) == ("ext4", "partclone", MIB, 32 * MIB)
        content = bytearray(disk.read_bytes())
    for size in (48 * MIB, 96 * MIB):
        other = tmp_path / "other"
        moved = content[:size].ljust(size, b"\0")
        for start, data in relocate(
            lambda offset, length: bytes(content[offset : offset + length]), 64 * MIB, size, 4096
        ):
            moved[start : start + len(data)] = data
        other.write_bytes(moved)
        with attached(other, "--sector-size", "4096") as device:
            assert "No problems found" in tool("sgdisk", "-v", device)
            table = read_partition_table(RUN, device)
            assert table and (table.sector_size, table.partitions[0].end) == (4096, 33 * MIB)


def change_medium(device: str, path: Path) -> None:
    """Put another file of the same size behind a read-only loop device (loop.h, LOOP_CHANGE_FD)."""
    with open(device, "rb") as loop, open(path, "rb") as file:
        fcntl.ioctl(loop, 0x4C06, file.fileno())


def test_a_disk_that_was_replaced_while_the_question_was_open_is_refused(tmp_path: Path) -> None:
    """Loop devices have neither serial number nor WWN, and these two are equal in everything but what the kernel counts."""
    for name in ("selected", "other"):
        (tmp_path / name).write_bytes(bytes(16 * MIB))
    with attached(tmp_path / "selected", "--read-only") as device:
        selected = look_at(describe(RUN, device))
        assert (selected["serial"], selected["wwn"], selected["table"]) == ("", "", "")
        request = RestoreRequest(device, bytes(32), selected, False, True, "lab-01")
        TargetDisk(RUN, request).raw.close()
        with pytest.raises(ImagingError, match="This machine was restarted"):
            TargetDisk(RUN, replace(request, expect=dict(selected, boot_id="before")))
        if not selected["diskseq"]:
            pytest.skip("this kernel counts no disks, which Linux does since 5.15")
        change_medium(device, tmp_path / "other")
        try:
            with pytest.raises(
                ImagingError, match=r"not the disk that was selected: its diskseq was .*It was not touched"
            ):
                TargetDisk(RUN, request)
        finally:
            change_medium(device, tmp_path / "selected")


def test_an_image_of_small_sectors_is_refused_by_a_disk_of_large_ones(tmp_path: Path) -> None:
    with large_sectors(tmp_path) as (_disk, device):
        request = RestoreRequest(device, bytes(32), {}, True, True, "lab-01")
        header = ImageHeader(Geometry(48 * MIB, 512, 512), b"stream01", "")
        with TargetDisk(RUN, request) as target, pytest.raises(ImagingError) as refusal:
            target.check_fits(header, Index(header.geometry))
    assert "sectors of 4096 bytes and the image's disk has 512" in str(refusal.value)
    assert "Nothing was written" in str(refusal.value)


def test_everything_is_used_when_that_is_asked_for(tmp_path: Path) -> None:
    disk = single(tmp_path, 16 * MIB, EXT)
    used = used_map(disk, mode="all")
    assert list(used.ranges) == [(0, disk.stat().st_size)]
    assert (only(used).content, only(used).method) == ("ext4", "whole")
    assert not used.warnings


@pytest.mark.parametrize("make", [["mkfs.ext4", "-q", "-F"], ["mkfs.fat", "-I"], ["pvcreate", "-q", "-q", "-ff", "-y"]])
def test_a_disk_without_a_table_or_with_a_signature_of_its_own_is_wholly_used(make: list[str], tmp_path: Path) -> None:
    needs(make[0])
    disk = old_disk(tmp_path / "disk", 64 * MIB)
    with attached(disk) as device:
        assert used_map(device).reason == "it has no partition table that sfdisk knows"
        tool(*make, device)
        used = used_map(device)
        assert list(used.ranges) == [(0, 64 * MIB)]
        assert used.reason
        assert used.reason in used.warnings[0]


def test_a_disk_whose_gpt_lost_both_headers_is_wholly_used(tmp_path: Path) -> None:
    disk = single(tmp_path, 16 * MIB, EXT)
    with open(disk, "r+b") as file:
        for offset in (512, disk.stat().st_size - 512):
            file.seek(offset)
            file.write(bytes(512))
    used = used_map(disk)
    assert "no valid GPT" in used.reason
    assert used.ranges.total() == disk.stat().st_size


def test_an_empty_partition_table_makes_the_disk_wholly_used(tmp_path: Path) -> None:
    used = used_map(partitioned(old_disk(tmp_path / "disk", 16 * MIB), "label: gpt\n"))
    assert used.reason == "its partition table is empty"


def test_unpartitioned_space_is_unused_and_the_backup_gpt_of_a_grown_disk_is_used(tmp_path: Path) -> None:
    disk = single(tmp_path, 16 * MIB, ["mkswap", "-q"])
    old_end = disk.stat().st_size
    with open(disk, "r+b") as file:
        file.truncate(old_end + 64 * MIB)
    used = used_map(disk)
    assert list(used.ranges) == and_signatures(disk, used, (0, START), (old_end - 33 * 512, old_end))
    assert used.ranges.within(old_end, old_end + 64 * MIB) == [(old_end + 62 * MIB, old_end + 64 * MIB)]


def test_the_gaps_of_an_extended_partition_are_used_and_the_rest_is_as_its_partitions_are(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 64 * MIB)
    primary = "start=2048, size=8M, type=82\nsize=40M, type=5\n"
    partitioned(disk, f"label: dos\n{primary}{disk}5: size=16M, type=82\n{disk}6: size=8M, type=82\n")
    table = read_partition_table(RUN, str(disk))
    assert table is not None
    assert [each.number for each in table.partitions] == [1, 2, 5, 6]
    for each in table.partitions:
        if not table.is_extended(each):
            with attached(disk, *part(each.start, each.size)) as device:
                tool("mkswap", "-q", device)
    used = used_map(disk)
    assert [each.method for each in used.partitions] == ["swap header", "extended", "swap header", "swap header"]
    _first, extended, *logical = table.partitions
    between = [extended.start, *(place for each in logical for place in (each.start, each.end)), extended.end]
    gaps = list(zip(between[::2], between[1::2], strict=True))
    assert sum(end - start for start, end in gaps) == extended.size - 24 * MIB
    assert list(used.ranges) == and_signatures(disk, used, (0, START), *gaps)


def test_what_overlapping_partitions_use_is_united(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 32 * MIB)
    partitioned(disk, "label: dos\nstart=2048, size=16M, type=82\n")
    with attached(disk, *part(START, 16 * MIB)) as device:
        tool("mkswap", "-q", device)
    with open(disk, "r+b") as file:  # sfdisk would refuse the second one
        file.seek(446 + 16)
        file.write(struct.pack("<4xB3xII", 0x83, 2048 + 8192, 16384))
    used = used_map(disk)
    assert [each.method for each in used.partitions] == ["swap header", "whole"]
    assert list(used.ranges) == and_signatures(disk, used, (0, START), (5 * MIB, 13 * MIB))


def test_what_a_hybrid_mbr_repeats_is_not_used_and_what_it_adds_is(tmp_path: Path) -> None:
    disk = single(tmp_path, 16 * MIB, ["mkswap", "-q"])
    with open(disk, "r+b") as file:
        file.truncate(64 * MIB)
        file.seek(446)
        for kind, start, size in ((0xEE, 1, 2047), (0x82, 2048, 16 * 2048), (0x83, 40 * 2048, 2048)):
            file.write(struct.pack("<4xB3xII", kind, start, size))
    table = read_partition_table(RUN, str(disk))
    assert table is not None
    assert table.label == "gpt"
    used = used_map(disk)
    assert used.ranges.within(START, 17 * MIB) == ByteRanges(and_signatures(disk, used)).within(START, 17 * MIB)
    assert used.ranges.within(30 * MIB, 60 * MIB) == [(40 * MIB, 41 * MIB)]


def test_the_kernels_partition_is_used_only_when_it_agrees_with_the_table(tmp_path: Path) -> None:
    needs("partx", "mkntfs", "partclone.ntfs")
    disk = single(tmp_path, 16 * MIB, NTFS)
    before = disk.read_bytes()
    with attached(disk) as device:
        tool("partx", "--update", device)
        try:
            with RawDisk(device):
                seen = only(used_map(device, runner("losetup")))
            assert seen.method == "partclone", seen.reason
            forget_partition(device, 1)
            tool("addpart", device, "1", str(START // 512 + 8), str(16 * MIB // 512))
            assert only(used_map(device, runner("losetup"))).reason == "losetup is not installed"
            assert only(used_map(device)).used == seen.used
        finally:
            forget_partition(device, 1)
    assert disk.read_bytes() == before


def test_a_disk_that_is_held_is_mapped_and_no_loop_device_is_left(tmp_path: Path) -> None:
    needs("mkntfs", "partclone.ntfs")
    disk = single(tmp_path, 32 * MIB, NTFS)
    before = disk.read_bytes()
    with attached(disk) as device, RawDisk(device):
        assert only(used_map(device)).method == "partclone"
        assert device not in tool("losetup", "--list", "--noheadings", "--output", "BACK-FILE").split()
    assert disk.read_bytes() == before


def test_a_loop_device_goes_also_when_its_work_fails(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 4 * MIB)
    with pytest.raises(ZeroDivisionError), loop_device(RUN, str(disk), MIB, MIB) as node:
        assert Path(node).read_bytes() == disk.read_bytes()[MIB : 2 * MIB]
        with pytest.raises(OSError, match="not permitted"):
            Path(node).write_bytes(b"1")
        raise ZeroDivisionError
    wait_until_detached(disk)


def test_a_missing_tool_costs_speed_and_is_said_once(tmp_path: Path) -> None:
    needs("mkfs.ext4", "mkntfs", "partclone.extfs", "partclone.ntfs")
    disk = old_disk(tmp_path / "disk", 64 * MIB)
    partitioned(disk, "label: gpt\nstart=2048, size=16M\nsize=16M\nsize=16M\n")
    for number, make in enumerate((EXT, EXT, NTFS)):
        with attached(disk, *part(START + number * 16 * MIB, 16 * MIB)) as device:
            tool(*make, device)
    methods = [each.method for each in used_map(disk).partitions]
    assert methods == ["partclone"] * 3
    without_partclone = used_map(disk, runner("partclone.extfs", "partclone.ntfs"))
    assert [each.reason for each in without_partclone.partitions] == [
        "partclone.extfs is not installed",
        "partclone.extfs is not installed",
        "partclone.ntfs is not installed",
    ]
    assert len(without_partclone.warnings) == 1
    assert "package partclone" in without_partclone.warnings[0]
    without_probe = used_map(disk, runner("ntfs-3g.probe"))
    assert [each.method for each in without_probe.partitions] == ["partclone", "partclone", "whole"]
    assert "ntfs-3g" in without_probe.warnings[0]
    without_blkid = used_map(disk, runner("blkid"))
    assert list(without_blkid.ranges) == [(0, 64 * MIB)]

    def no_loop_devices(command: Sequence[str]) -> CommandResult:
        return CommandResult(1, "", "losetup: Permission denied") if command[0] == "losetup" else RUN(command)

    without_loop_devices = used_map(disk, no_loop_devices)
    assert {each.method for each in without_loop_devices.partitions} == {"whole"}
    assert "Permission denied" in without_loop_devices.partitions[0].reason
    assert len(without_loop_devices.warnings) == 1
    without_losetup = used_map(disk, runner("losetup"))
    assert {each.method for each in without_losetup.partitions} == {"whole"}
    assert len(without_losetup.warnings) == 1
    with pytest.raises(MissingTool):
        used_map(disk, runner("sfdisk"))


def test_an_xfs_is_not_trusted_without_xfs_logprint(tmp_path: Path) -> None:
    needs("mkfs.xfs")
    disk = single(tmp_path, XFS_SIZE, ["mkfs.xfs", "-q", "-f", "-K"])
    assert only(used_map(disk, runner("xfs_logprint"))).reason == "xfs_logprint is not installed"


def refused(disk: Disk) -> str:
    assert disk.source_refusals == disk.target_refusals
    assert len(disk.source_refusals) == 1
    return disk.source_refusals[0].message


def test_a_disk_in_nobodys_use_is_usable_by_all_its_names(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 4 * MIB)
    with attached(disk) as device:
        link = tmp_path / "link"
        link.symlink_to(device)
        for name in (device, str(link)):
            found = describe(RUN, name)
            assert (found.path, found.kind, found.size) == (device, "loop", 4 * MIB)
            assert found.source_refusals == found.target_refusals == ()
            assert [reason.code for reason in found.not_default] == [VIRTUAL]
        assert device in [each.path for each in list_disks(RUN)]
    plain = describe(RUN, str(disk))
    assert (plain.kind, plain.size, plain.source_refusals, plain.target_refusals) == ("file", 4 * MIB, (), ())


def test_a_mounted_disk_and_the_file_below_it_are_refused(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 16 * MIB)
    folder = tmp_path / "a folder"
    folder.mkdir()
    with attached(disk) as device:
        tool("mkfs.ext4", "-q", "-F", device)
        tool("mount", device, folder)
        try:
            for name in (device, str(disk)):
                found = describe(RUN, name)
                assert found.mount_points == (str(folder),)
                assert f"mounted at {folder}" in refused(found)
                assert "umount" in refused(found)
        finally:
            tool("umount", folder)
        assert not describe(RUN, device).source_refusals


def test_a_disk_with_a_mounted_partition_or_a_mounted_loop_device_on_it_is_refused(tmp_path: Path) -> None:
    needs("partx")
    disk = single(tmp_path, 16 * MIB, EXT)
    folder = tmp_path / "mount"
    folder.mkdir()
    with attached(disk) as device:
        tool("partx", "--update", device)
        try:
            tool("mount", f"{device}p1", folder)
            assert f"mounted at {folder}" in refused(describe(RUN, device))
            assert describe(RUN, device).partitions[0].mount_points == (str(folder),)
            tool("umount", folder)
            assert describe(RUN, device).partitions[0].fstype == "ext4"
            partition = describe(RUN, f"{device}p1")
            assert partition.kind == "part"
            assert refused(partition) == f"It is a partition of {device}: expected a whole disk. Use {device}."
        finally:
            forget_partition(device, 1)
        with attached(Path(device), *part(START, 16 * MIB)) as nested:
            tool("mount", nested, folder)
            assert f"mounted at {folder}" in refused(describe(RUN, device))
            tool("umount", folder)


def test_a_disk_with_active_swap_is_refused(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 16 * MIB)
    with attached(disk) as device:
        tool("mkswap", "-q", device)
        try:
            tool("swapon", device)
        except LabError as error:
            pytest.skip(f"no swap here: {error}")
        try:
            assert f"swapoff {device}" in refused(describe(RUN, device))
        finally:
            tool("swapoff", device)


def test_a_read_only_disk_can_be_a_source_and_no_target(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 4 * MIB)
    with attached(disk, "--read-only") as device:
        found = describe(RUN, device)
        assert not found.source_refusals
        assert [refusal.code for refusal in found.target_refusals] == [READ_ONLY]


def test_a_disk_without_capacity_is_refused() -> None:
    """A loop device of its own: one that is free is anybody's, and other tests take them."""
    with open("/dev/loop-control", "rb") as control:
        number = fcntl.ioctl(control, LOOP_CTL_ADD, 20_000 + os.getpid() % 1000)
        try:
            assert describe(RUN, f"/dev/loop{number}").source_refusals[0].code == NO_CAPACITY
        finally:
            fcntl.ioctl(control, LOOP_CTL_REMOVE, number)


@pytest.mark.parametrize("size", [0, 511, 1000])
def test_a_file_that_can_be_no_disk_is_refused(size: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    assert f"{size} bytes" in refused(describe(RUN, str(tmp_path / "file")))


@pytest.mark.parametrize("path", ["/dev/null", "/dev", "/no/such/disk"])
def test_what_is_no_disk_at_all_is_an_error(path: str) -> None:
    with pytest.raises(ImagingError, match=path):
        describe(RUN, path)


def test_the_disk_that_this_machine_runs_from_is_refused() -> None:
    disks = [disk for disk in list_disks(RUN) if "/" in disk.mount_points]
    if not disks:
        pytest.skip("the root file system here is on no disk")
    for disk in disks:
        assert disk.live_medium
        assert LIVE_MEDIUM in [refusal.code for refusal in disk.target_refusals]


def test_a_missing_lsblk_is_an_error_and_no_empty_list(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="util-linux"):
        list_disks(runner("lsblk"))
