# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a former owner left on a disk does not come alive in a copy; and if it does, that is seen."""

from __future__ import annotations

import dataclasses
import os
import re
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, RunCommand
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.disk.ranges import ByteRanges
from ansible_collections.fleet.imaging.plugins.module_utils.disk.signatures import probed_ranges
from ansible_collections.fleet.imaging.plugins.module_utils.disk.used_map import UsedMap
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import Geometry
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.view import Comparison, ExpectedView
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    attached,
    needs,
    needs_loop_devices,
    part,
    partitioned,
    runner,
    used_map,
)
from ansible_collections.fleet.imaging.tests.integration.disk_files import write as put
from ansible_collections.fleet.imaging.tests.lab.tools import SEARCH_PATH, find
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

KIB = 1 << 10
PARTS = ((MIB, 66 * MIB), (67 * MIB, 80 * MIB + 40 * KIB), (148 * MIB, 64 * MIB + 512), (213 * MIB, 68 * MIB))
DISK_SIZE = 283 * MIB
MAKE = (
    ["mkswap", "-q", "-L", "room"],
    ["mkfs.ext4", "-q", "-L", "root", "-E", "nodiscard"],
    ["mkntfs", "-Q", "-q", "-F", "-L", "Windows"],
    ["mkfs.fat", "-F", "32", "-s", "1", "-n", "BOOT"],
)

pytestmark = needs_loop_devices


@pytest.fixture(scope="module", name="source")
def fixture_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UsedMap]:
    """A disk with swap, ext4, NTFS and FAT32, and what of it is used."""
    needs("mkfs.ext4", "mkntfs", "mkfs.fat", "partclone.extfs", "partclone.ntfs", "partclone.fat")
    disk = tmp_path_factory.mktemp("source") / "disk"
    with open(disk, "wb") as file:
        file.truncate(DISK_SIZE)
    rows = [f"start={start // 512}, size={size // 512}\n" for start, size in PARTS]
    partitioned(disk, f"label: gpt\n{''.join(rows)}")
    for place, make in zip(PARTS, MAKE, strict=True):
        with attached(disk, *part(*place)) as device:
            tool(*make, device)
    used = used_map(disk)
    assert [each.method for each in used.partitions] == ["swap header", "partclone", "partclone", "partclone"]
    return disk, used


def md_090(disk: Path, start: int, size: int) -> None:
    """A member of an md RAID 1 of version 0.90, in the last whole 64 KiB but one. Source: Linux, md_p.h and md_u.h."""
    place = size // (64 * KIB) * 64 * KIB - 64 * KIB
    words = [0xA92B4EFC, 0, 90, 0, 0, 0x01020304, 1, 1, place // KIB, 2, 2, 0, 0, 5, 6, 7]
    put(disk, start + place, struct.pack("<16I", *words).ljust(4096, b"\0"))


def md_1(minor: int) -> Callable[[Path, int, int], None]:
    """A member of a RAID 1 of version 1: at the end (1.0), at the start (1.1), or 4 KiB after it (1.2). Source: Linux, md_p.h."""

    def write(disk: Path, start: int, size: int) -> None:
        sector = {0: (size // 512 - 16) // 8 * 8, 1: 0, 2: 8}[minor]
        block = bytearray(256 + 2 * 2)
        struct.pack_into("<IIII16s32sQII", block, 0, 0xA92B4EFC, 1, 0, 0, bytes(range(16)), b"old:0", 0, 1, 0)
        struct.pack_into("<QII", block, 80, size // 512 - 4096, 0, 2)
        struct.pack_into("<QQQ", block, 128, 2048 if minor else 0, size // 512 - 4096, sector)
        struct.pack_into("<I", block, 220, 2)
        total = sum(word for (word,) in struct.iter_unpack("<I", block))
        struct.pack_into("<I", block, 216, (total + (total >> 32)) & 0xFFFFFFFF)
        put(disk, start + 512 * sector, bytes(block))

    return write


def zfs(disk: Path, start: int, size: int) -> None:
    """The root blocks of a ZFS in its last label alone, which is the furthest from the end. Source: OpenZFS, vdev_impl.h."""
    label = size // (256 * KIB) * 256 * KIB - 512 * KIB
    put(disk, start + label + 128 * KIB, struct.pack("<QQQ", 0x00BAB10C, 5000, 7).ljust(KIB, b"\0") * 8)


def zfs_at_both_ends(disk: Path, start: int, size: int) -> None:
    for label in (0, 256 * KIB, size // (256 * KIB) * 256 * KIB - 256 * KIB):
        put(disk, start + label + 128 * KIB, struct.pack("<QQQ", 0x00BAB10C, 5000, 7).ljust(KIB, b"\0") * 16)
    zfs(disk, start, size)


def crc64(data: bytes) -> int:
    """The checksum of bcache (polynomial of ECMA-182, complemented)."""
    value = (1 << 64) - 1
    for byte in data:
        value ^= byte << 56
        for _bit in range(8):
            value = (value << 1 ^ (0x42F0E1EBA9EA3693 if value >> 63 else 0)) & (1 << 64) - 1
    return value ^ (1 << 64) - 1


def bcache(disk: Path, start: int, _size: int) -> None:
    """A backing device of bcache. Source: Linux, bcache_ondisk.h, struct cache_sb."""
    magic = bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")
    block = struct.pack("<QQ16s16s16s32sQQ", 8, 1, magic, bytes(range(16)), bytes(16), b"", 0, 0).ljust(200, b"\0")
    put(disk, start + 4096, struct.pack("<Q", crc64(block)) + block)


def luks2_header(place: int) -> Callable[[Path, int, int], None]:
    """The second header of a LUKS2, whose first one is gone. Source: LUKS2 On-Disk Format Specification 1.1.0, figure 2."""

    def write(disk: Path, start: int, _size: int) -> None:
        head = struct.pack(">6sHQQ48s32s64s40s48s", b"SKUL\xba\xbe", 2, place, 1, b"", b"sha256", b"", b"1-2", b"")
        put(disk, start + place, head + struct.pack(">Q", place))

    return write


def magic(place: int, content: bytes) -> Callable[[Path, int, int], None]:
    """A signature that is no more than some bytes, at a place from the start or, below zero, from the end."""
    return lambda disk, start, size: put(disk, start + (size + place if place < 0 else place), content)


def made(*command: str) -> Callable[[Path, int, int], None]:
    """What a program writes."""

    def write(disk: Path, start: int, size: int) -> None:
        needs(command[0])
        with attached(disk, *part(start, size)) as device:
            tool(*command, device)

    return write


FORMER = {
    "md 0.90": (md_090, "linux_raid_member"),
    "md 1.0": (md_1(0), "linux_raid_member"),
    "md 1.1": (md_1(1), "linux_raid_member"),
    "md 1.2": (md_1(2), "linux_raid_member"),
    "zfs": (zfs_at_both_ends, "zfs_member"),
    "zfs, one label": (zfs, "zfs_member"),
    "btrfs": (made("mkfs.btrfs", "-q", "-f", "-M", "-m", "single"), "btrfs"),
    "lvm": (made("pvcreate", "-q", "-q", "-ff", "-y"), "LVM2_member"),
    "ext4": (made("mkfs.ext4", "-q", "-F"), "ext4"),
    "swap": (made("mkswap", "-q", "-p", "65536"), "swap"),
    "bcache": (bcache, "bcache"),
    "luks, 64 KiB": (luks2_header(64 * KIB), "crypto_LUKS"),
    "luks, 1 MiB": (luks2_header(MIB), "crypto_LUKS"),
    "luks, 4 MiB": (luks2_header(4 * MIB), "crypto_LUKS"),
    "vmfs": (magic(MIB, bytes.fromhex("0dd001c0")), "VMFS_volume_member"),
    "vmfs, 2 MiB": (magic(2 * MIB, bytes.fromhex("5ef1ab2f")), "VMFS"),
    "firmware RAID of Intel": (magic(-1024, b"Intel Raid ISM Cfg Sig. 1.2.00"), "isw_raid_member"),
    "firmware RAID of Promise": (magic(-3087 * 512, b"Promise Technology, Inc."), "promise_fasttrack_raid_member"),
}
"""Who may have owned a device: what writes its signature into one of so many bytes at a place of a disk, and blkid's name for it."""


def blkid(disk: Path, start: int = 0, size: int = 0) -> tuple[int, list[str]]:
    """All that blkid says, and its exit status."""
    where = ["-O", str(start), "-S", str(size)] if size else []
    command = [find("blkid") or "blkid", "-p", *where, "-o", "export", str(disk)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.returncode, [line for line in done.stdout.splitlines() if not line.startswith("DEVNAME=")]


def empty(path: Path, size: int = DISK_SIZE) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def copy_ranges(source: Path, ranges: Any, target: Path) -> None:
    with open(source, "rb") as file, open(target, "r+b") as copy:
        for start, end in ranges:
            file.seek(start)
            copy.seek(start)
            copy.write(file.read(end - start))


PLACES = (*PARTS, (0, DISK_SIZE))


@pytest.mark.parametrize("former", FORMER)
def test_a_former_owners_signature_does_not_come_alive(
    former: str, source: tuple[Path, UsedMap], tmp_path: Path
) -> None:
    disk, used = source
    write, name = FORMER[former]
    for places in ([PLACES[-1]], PARTS):  # that of the disk may lie in a partition, and the other way round
        target = empty(tmp_path / "target")
        for place in places:
            write(target, *place)
            assert f"TYPE={name}" in blkid(target, *place)[1]
        copy_ranges(disk, used.ranges, target)
        for place in PLACES:
            assert blkid(target, *place) == blkid(disk, *place), place


def test_a_signature_in_an_extended_or_logical_partition_does_not_come_alive(tmp_path: Path) -> None:
    disk, target = empty(tmp_path / "disk", 160 * MIB), empty(tmp_path / "target", 160 * MIB)
    rows = f"start=2048, size=155M, type=5\n{disk}5: size=70M, type=82\n{disk}6: size=70M, type=82\n"
    partitioned(disk, f"label: dos\n{rows}")
    table = read_partition_table(RUN, str(disk))
    assert table is not None
    places = [(each.start, each.size) for each in table.partitions]
    for place in places[1:]:
        made("mkswap", "-q")(disk, *place)
    for write in (md_090, md_1(0), zfs_at_both_ends, luks2_header(2 * MIB)):
        for place in places:
            write(target, *place)
    copy_ranges(disk, used_map(disk).ranges, target)
    assert [blkid(target, *place) for place in places] == [blkid(disk, *place) for place in places]
    assert "TYPE=swap" in blkid(target, *places[1])[1]


@pytest.mark.parametrize("size", [64 * MIB + 40 * KIB, (1 << 30) + 512])
def test_blkid_reads_where_signatures_are_known_to_be(size: int, tmp_path: Path) -> None:
    """libblkid says itself what it reads; a newer one may know new places."""
    disk = empty(tmp_path / "disk", size)
    environment = {**os.environ, "PATH": SEARCH_PATH, "LIBBLKID_DEBUG": "lowprobe,buffer"}
    done = subprocess.run(["blkid", "-p", disk], stderr=subprocess.PIPE, text=True, check=False, env=environment)
    read = [tuple(map(int, found)) for found in re.findall(r"\bread: off=(\d+) len=(\d+)", done.stderr)]
    assert len(read) > 10, done.stderr[:1000]
    known = ByteRanges(probed_ranges(0, size))
    outside = [
        (offset, length)
        for offset, length in read
        if known.within(offset, offset + length) != [(offset, offset + length)]
    ]
    assert not outside


def header(disk: Path, used: UsedMap, **changes: Any) -> ImageHeader:
    """What the header of the disk's image says; None removes a part of its source."""
    table = read_partition_table(RUN, str(disk))
    source = {name: value for name, value in {**used.source_json(), **changes}.items() if value is not None}
    geometry = Geometry(disk.stat().st_size, 512, 512)
    return ImageHeader(geometry, b"stream01", "", table.raw if table else None, source)


def compare(found: ImageHeader, disk: Path, run: RunCommand = RUN) -> Comparison:
    return ExpectedView(found, disk.stat().st_size).compare(run, str(disk), lambda: None)


def as_before(used: UsedMap) -> list[dict[str, Any]]:
    """The partitions as images had them before they noted what blkid sees."""
    return [{key: value for key, value in each.items() if key != "seen"} for each in used.partitions_json()]


def changed(used: UsedMap, number: int, **seen: Any) -> list[dict[str, Any]]:
    """The partitions with another note of one of them."""
    partitions = used.partitions_json()
    partitions[number - 1]["seen"] = {**partitions[number - 1]["seen"], **seen}
    return partitions


def test_a_disk_is_seen_as_its_own_header_says(source: tuple[Path, UsedMap], tmp_path: Path) -> None:
    disk, used = source
    seen = used.partitions[1].seen
    assert seen and (seen["type"], seen["label"], len(seen["uuid"]), seen["ambivalent"]) == ("ext4", "root", 36, False)
    for found in (header(disk, used), header(disk, used, partitions=as_before(used), seen=None, blkid=None)):
        assert compare(found, disk) == Comparison()
    larger = tmp_path / "larger"
    larger.write_bytes(disk.read_bytes())
    os.truncate(larger, DISK_SIZE + 5 * MIB)
    assert compare(header(disk, used), larger) == Comparison()


@pytest.mark.parametrize("former", ["md 1.0", "md 1.2", "ext4"])
def test_a_disk_without_partitions_is_seen_as_before_on_a_larger_one_or_is_not_equal(
    former: str, tmp_path: Path
) -> None:
    disk = empty(tmp_path / "disk", 64 * MIB)
    FORMER[former][0](disk, 0, 64 * MIB)
    larger = empty(tmp_path / "larger", 70 * MIB)
    used = used_map(disk)
    copy_ranges(disk, used.ranges, larger)
    differences = compare(header(disk, used), larger).differences
    at_the_end = "the disk as a whole: expected TYPE=linux_raid_member"
    assert [each.startswith(at_the_end) for each in differences] == ([True] if former == "md 1.0" else [])


def test_what_is_seen_differently_is_a_difference(source: tuple[Path, UsedMap]) -> None:
    disk, used = source
    for seen, expected in (
        ({"uuid": "1-2"}, "expected TYPE=ext4 UUID=1-2 LABEL=root, found TYPE=ext4 UUID="),
        ({"label": "boot"}, "LABEL=boot, found"),
        ({"type": "", "uuid": "", "label": ""}, "expected nothing, found TYPE=ext4"),
        ({"type": "", "uuid": "", "label": "", "ambivalent": True}, "expected several things at once, found TYPE=ext4"),
        ({"partition_table": "dos"}, "PTTYPE=dos, found"),
    ):
        result = compare(header(disk, used, partitions=changed(used, 2, **seen)), disk)
        assert not result.doubts
        (difference,) = result.differences
        assert difference.startswith("partition 2: expected") and expected in difference
    whole = compare(header(disk, used, seen={**(used.seen or {}), "partition_table": "dos"}), disk)
    assert whole.differences == ["the disk as a whole: expected PTTYPE=dos, found PTTYPE=gpt"]


def test_another_version_of_blkid_makes_a_doubt_of_what_versions_may_say_otherwise(
    source: tuple[Path, UsedMap],
) -> None:
    disk, used = source
    for seen in ({"uuid": "1-2"}, {"label": "boot"}, {"type": "", "uuid": "", "label": ""}):
        result = compare(header(disk, used, partitions=changed(used, 2, **seen), blkid="2.30"), disk)
        assert not result.differences
        assert "was 2.30 on the reference" in result.doubts[0]
    result = compare(header(disk, used, partitions=changed(used, 2, type="ntfs"), blkid="2.30"), disk)
    assert len(result.differences) == 1


@pytest.mark.parametrize(
    ("write", "found"),
    [(md_090, "linux_raid_member"), (zfs_at_both_ends, "several things"), (luks2_header(4 * MIB), "crypto_LUKS")],
)
def test_an_image_made_before_on_a_dirty_disk_is_found_out(
    write: Callable[[Path, int, int], None], found: str, source: tuple[Path, UsedMap], tmp_path: Path
) -> None:
    disk, used = source
    target = empty(tmp_path / "target")
    copy_ranges(disk, used.ranges, target)
    write(target, *PARTS[1])
    copy_ranges(disk, [(PARTS[1][0], PARTS[1][0] + 2048)], target)  # the superblock, which such an image has
    for each in (header(disk, used), header(disk, used, partitions=as_before(used), seen=None, blkid=None)):
        (difference,) = compare(each, target).differences
        assert difference.startswith("partition 2: expected TYPE=ext4")
        assert found in difference


def test_a_table_that_differs_is_a_difference(source: tuple[Path, UsedMap], tmp_path: Path) -> None:
    disk, used = source
    target = tmp_path / "target"
    target.write_bytes(disk.read_bytes())
    tool("sfdisk", "--quiet", "--part-type", target, "3", "E3C9E316-0B5C-4DB8-817D-F92DF00215AE")
    (difference,) = compare(header(disk, used), target).differences
    assert difference.startswith("partition 3 of the table: expected start=")
    assert "type=e3c9e316" in difference
    tool("sfdisk", "--quiet", "--part-label", target, "2", "Another")
    difference, _type = compare(header(disk, used), target).differences
    assert difference.startswith("partition 2 of the table: expected start=") and difference.endswith("name=Another")
    put(target, 512, bytes(512))
    put(target, DISK_SIZE - 512, bytes(512))
    assert len(compare(header(disk, used), target).differences) >= 5


def test_where_blkid_or_sfdisk_cant_be_asked_there_is_a_doubt(source: tuple[Path, UsedMap]) -> None:
    disk, used = source

    def broken(command: Sequence[str]) -> CommandResult:
        return CommandResult(4, "", "blkid: error: Input/output error") if "-p" in command else RUN(command)

    for run, words in (
        (runner("blkid"), "blkid is not installed"),
        (runner("sfdisk"), "sfdisk is not installed"),
        (runner("sfdisk", "blkid"), "blkid is not installed"),
        (broken, "Input/output error"),
    ):
        result = compare(header(disk, used), disk, run)
        assert not result.differences
        assert words in " ".join(result.doubts)


def test_what_blkid_could_not_say_of_the_reference_is_not_noted(source: tuple[Path, UsedMap]) -> None:
    disk, _used = source
    used = used_map(disk, runner("blkid"))
    assert (used.seen, used.blkid, {each.seen is None for each in used.partitions}) == (None, "", {True})
    assert compare(header(disk, used), disk) == Comparison()
    assert dataclasses.asdict(used_map(disk).partitions[0])["seen"]["type"] == "swap"
