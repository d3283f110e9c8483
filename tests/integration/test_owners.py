# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes that a file system does not use and that matter all the same, on real disks: copied onto old data, and looked at there."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.blkid import detect
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
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
    read,
    single,
    used_map,
    write,
)
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = needs_loop_devices

SIZE = 32 * MIB
EXT4 = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"]
BOOT_CODE = 446


def dos_entry(kind: int, start: int, count: int) -> bytes:
    return struct.pack("<4xB3xII", kind, start, count)


def boot_record(*entries: bytes) -> bytes:
    """The end of a sector with a DOS table, from its first entry on."""
    return b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


SWAP = ["mkswap", "-q"]
FAT16, NTFS, EXFAT = ["mkfs.fat", "-F", "16", "-s", "4"], ["mkntfs", "-Q", "-q", "-F"], ["mkfs.exfat"]


@pytest.mark.parametrize("make", [EXT4, SWAP, ["mkfs.xfs", "-q", "-f", "-K"], FAT16, NTFS, EXFAT])
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_partition_that_is_the_disk_of_a_virtual_machine_is_wholly_used(
    make: list[str], label: str, tmp_path: Path
) -> None:
    """The former owner's superblock is still there, and blkid knows it."""
    needs(make[0])
    size = SIZE if "xfs" not in make[0] else 320 * MIB
    disk = single(tmp_path, size, make)
    with attached(disk, *part(START, size)) as device:
        # Of its signatures sfdisk removes none; a GPT's entries lie over the superblock of ext4 and XFS.
        tool("sfdisk", "--quiet", "--wipe", "never", device, stdin=f"label: {label}\nstart=4096, size=8192\n")
    used = used_map(disk)
    assert only(used).method == "whole"
    assert used.ranges.within(START, START + size) == [(START, START + size)]
    if only(used).content:
        assert f"a partition table ({label}) of its own" in only(used).reason
        assert only(used).reason in used.warnings[0]


@pytest.mark.parametrize("entry", [b"", dos_entry(0, 0, 0), dos_entry(0x83, 0, 0)])
def test_an_empty_table_inside_a_file_system_is_no_owner(entry: bytes, tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, EXT4)
    write(disk, START, bytes(BOOT_CODE) + boot_record(entry))
    assert only(used_map(disk)).method == "partclone"


@pytest.mark.parametrize(
    "table",
    [dos_entry(0x0C, 0, SIZE // 512), b"Remove disks or other media.\xff\r\nPress any key to restart\r\n"],
    ids=["of the file system itself", "text"],
)
def test_what_only_looks_like_an_mbr_in_a_fat_is_no_owner(table: bytes, tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, FAT16)
    write(disk, START + BOOT_CODE, boot_record(table))
    assert only(used_map(disk)).method == "partclone"


@pytest.mark.parametrize(
    ("kind", "sector"),
    [("bsd", bytes.fromhex("57455682")), ("solaris", bytes(12) + bytes.fromhex("eeed0d60"))],
)
@pytest.mark.parametrize("make", [EXT4, SWAP])
def test_a_partition_that_another_system_divides_is_wholly_used(
    make: list[str], kind: str, sector: bytes, tmp_path: Path
) -> None:
    """Its table lies in the second sector, which neither the superblock of an ext4 nor the mark of a swap area reaches."""
    disk = single(tmp_path, SIZE, make, label="dos", kind="a5")
    write(disk, START + 512, sector.ljust(512, b"\0"))
    assert f"a partition table ({kind}) of its own" in only(used_map(disk)).reason


def test_what_lies_behind_a_swap_area_is_used(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, SWAP)
    with attached(disk, *part(START, SIZE // 2)) as device:
        tool(*SWAP, device)
    used = used_map(disk)
    assert only(used).method == "swap header"
    assert used.ranges.total() < SIZE
    half = START + SIZE // 2
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    assert read(copy, half, SIZE // 2) == read(disk, half, SIZE // 2)
    assert read(copy, half - 4 * MIB, MIB) != read(disk, half - 4 * MIB, MIB)


@pytest.mark.parametrize(("label", "kind"), [("gpt", "516E7CB6-6ECF-11D6-8FF8-00022D09712B"), ("dos", "a5")])
def test_the_mark_of_a_swap_area_in_a_partition_of_another_kind_is_old(label: str, kind: str, tmp_path: Path) -> None:
    """FreeBSD's encryption has its metadata in the last sector, and a file system in it leaves its first sectors alone."""
    disk = single(tmp_path, SIZE, SWAP, label=label, kind=kind)
    write(disk, START + SIZE - 512, b"GEOM::ELI".ljust(512, b"\0"))
    used = used_map(disk)
    assert used.ranges.within(START, START + SIZE) == [(START, START + SIZE)]
    assert f"its type, {kind}, is that of something else" in used.warnings[0]


SHADOW_COPIES = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")
CATALOG = 20 * MIB


def catalog_block(following: int, *kinds: int) -> bytes:
    """Of the catalog of shadow copies: a head, and entries of these types."""
    head = struct.pack("<16sIIQQQ", SHADOW_COPIES, 1, 2, 0, CATALOG, following).ljust(128, b"\0")
    return (head + b"".join(struct.pack("<Q", kind).ljust(128, b"\0") for kind in kinds)).ljust(0x4000, b"\0")


@pytest.mark.parametrize(
    ("blocks", "method"),
    [
        ([], "partclone"),
        ([catalog_block(0, 1, 1)], "partclone"),
        ([catalog_block(0, 1, 2, 3)], "whole"),
        ([catalog_block(CATALOG + 0x4000, 1), catalog_block(0, 3)], "whole"),
        ([catalog_block(CATALOG, 1)], "whole"),
        ([catalog_block(1 << 63, 1)], "whole"),
        ([b"no catalog"], "whole"),
    ],
    ids=["no catalog", "removed", "one", "in the second block", "in a circle", "beyond the end", "can't be read"],
)
def test_shadow_copies_need_what_was_freed(blocks: list[bytes], method: str, tmp_path: Path) -> None:
    needs("mkntfs", "partclone.ntfs")
    disk = single(tmp_path, SIZE, NTFS)
    header = struct.pack("<16sIIQQQQ", SHADOW_COPIES, 2, 1, 0x1E00, 0x1E00, 0, CATALOG if blocks else 0)
    write(disk, START + 0x1E00, header.ljust(512, b"\0"))
    write(disk, START + CATALOG, b"".join(blocks))
    used = used_map(disk)
    assert only(used).method == method, only(used).reason
    assert ("vssadmin delete shadows" in " ".join(used.warnings)) == (method == "whole")


def two_partitions(tmp_path: Path, second: bytes, content: bytes = b"") -> Path:
    """An ext4, and behind it a partition that begins with ``second``."""
    disk = old_disk(tmp_path / "disk", SIZE + 10 * MIB)
    partitioned(disk, f"label: gpt\nstart=2048, size={SIZE // 512}\nsize=8192, type=linux\n")
    with attached(disk, *part(START, SIZE)) as device:
        tool(*EXT4, device)
    write(disk, START + SIZE, second.ljust(4096, b"\0") + content)
    return disk


INTEGRITY = struct.pack("<8sBbHQQIB", b"integrt\0", 1, 0, 4, 1024, 2048, 0, 3)
SNAPSHOT = struct.pack("<4sIIIQ", b"SnAp", 1, 1, 16, 0)


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (INTEGRITY, "check sums of dm-integrity"),
        (SNAPSHOT, "a snapshot"),
        (b"AVB0", "hashes of Android Verified Boot"),
        (bytes(32) + struct.pack("<Q", 0o6142003), "a cache of the device mapper"),
        (bytes(32) + struct.pack("<Q", 0x8AF27F64), "a clone of the device mapper"),
        (bytes(32) + struct.pack("<Q", 27022010), "thin volumes of the device mapper"),
        (struct.pack("<II", 0x23489321, 1), "a write cache of the device mapper"),
    ],
)
def test_what_covers_the_blocks_of_another_partition_makes_that_wholly_used(
    signature: bytes, words: str, tmp_path: Path
) -> None:
    used = used_map(two_partitions(tmp_path, signature))
    assert [use.method for use in used.partitions] == ["whole", "whole"]
    assert words in used.partitions[0].reason
    assert words in used.warnings[0]


@pytest.mark.parametrize("place", ["a partition of its own", "behind the file system"])
def test_a_hash_tree_fits_the_copy(place: str, tmp_path: Path) -> None:
    needs("veritysetup")
    if place == "behind the file system":
        disk = old_disk(tmp_path / "disk", SIZE + 10 * MIB)
        partitioned(disk, f"label: gpt\nstart=2048, size={(SIZE + 8 * MIB) // 512}\n")
        with attached(disk, *part(START, SIZE)) as device:
            tool(*EXT4, device)
    else:
        disk = two_partitions(tmp_path, b"")
    tree = START + SIZE
    with attached(disk, *part(START, SIZE)) as data, attached(disk, *part(tree, 4 * MIB)) as hashes:
        said = tool("veritysetup", "format", data, hashes)
    found = re.search(r"Root hash:\s+([0-9a-f]{64})", said)
    assert found
    used = used_map(disk)
    assert "dm-verity" in used.partitions[0].reason
    assert "dm-verity" in used.warnings[0]
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, *part(START, SIZE)) as data, attached(copy, *part(tree, 4 * MIB)) as hashes:
        tool("veritysetup", "verify", data, hashes, found[1])


def test_a_footer_of_verified_boot_makes_its_partition_wholly_used(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, [*EXT4[:1], "-q", "-E", "nodiscard", "-b", "4096"])
    with attached(disk, *part(START, SIZE)) as device:
        tool("e2fsck", "-fp", device)
        tool("resize2fs", device, "16M")
    write(disk, START + SIZE - 64, b"AVBf")
    assert "Android Verified Boot" in only(used_map(disk)).reason


@pytest.mark.parametrize("kind", ["FE3A2A5D-4F32-41A7-B725-ACCC3285A309", "3CB8E202-3B7E-47DD-8A3C-7FF2A13CFCEC"])
def test_partitions_of_chromeos_are_wholly_used(kind: str, tmp_path: Path) -> None:
    assert "ChromeOS" in only(used_map(single(tmp_path, SIZE, EXT4, kind=kind))).reason


def logical(tmp_path: Path) -> Path:
    """Two logical partitions; the boot record of the second lies in a block of the first that its file system does not use."""
    disk = old_disk(tmp_path / "disk", 160 * MIB)
    extended, second = 2048, 120 * 2048
    write(disk, 0, bytes(BOOT_CODE) + boot_record(dos_entry(0x0F, extended, 158 * 2048)))
    first = boot_record(dos_entry(0x83, 2048, 128 * 2048), dos_entry(0x05, second, 30 * 2048))
    write(disk, extended * 512, bytes(BOOT_CODE) + first)
    write(disk, (extended + second) * 512, bytes(BOOT_CODE) + boot_record(dos_entry(0x83, 9 * 2048, 20 * 2048)))
    with attached(disk, *part(2 * MIB, 128 * MIB)) as device:
        tool(*EXT4, "-b", "4096", device)
    # It was made zeros by nobody: mkfs does not write what it does not use.
    write(disk, (extended + second) * 512, bytes(BOOT_CODE) + boot_record(dos_entry(0x83, 9 * 2048, 20 * 2048)))
    return disk


def test_the_boot_record_of_a_logical_partition_is_used_wherever_it_lies(tmp_path: Path) -> None:
    disk = logical(tmp_path)
    table = read_partition_table(RUN, str(disk))
    assert table is not None
    assert [each.number for each in table.partitions] == [1, 5, 6]
    used = used_map(disk)
    assert used.partitions[1].method == "partclone", used.partitions[1].reason
    assert used.ranges.total() < 100 * MIB
    copy = read_partition_table(RUN, str(copy_used(disk, used, tmp_path / "copy", noise=True)))
    assert copy is not None
    assert [(each.number, each.start, each.size) for each in copy.partitions] == [
        (each.number, each.start, each.size) for each in table.partitions
    ]


def test_a_chain_of_boot_records_that_goes_round_in_circles_ends(tmp_path: Path) -> None:
    disk = logical(tmp_path)
    write(disk, (2048 + 120 * 2048) * 512, bytes(BOOT_CODE) + boot_record(b"", dos_entry(0x05, 0, 2048)))
    assert used_map(disk).ranges.within(121 * MIB, 121 * MIB + 512) == [(121 * MIB, 121 * MIB + 512)]


@pytest.mark.parametrize("entries", [128, 16384])
def test_all_entries_of_a_gpt_are_used(entries: int, tmp_path: Path) -> None:
    needs("sgdisk")
    disk = old_disk(tmp_path / "disk", 64 * MIB)
    tool("sgdisk", "-o", "-S", str(entries), "-n", "1:40M:+8M", disk)
    copy = copy_used(disk, used_map(disk), tmp_path / "copy", noise=True)
    assert "No problems found" in tool("sgdisk", "-v", copy)


def test_a_gpt_that_the_mbr_does_not_speak_of_is_said_and_captured(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, EXT4)
    write(disk, 0, bytes(BOOT_CODE) + boot_record(dos_entry(0x83, 2048, 1024)))
    used = used_map(disk)
    assert list(used.ranges) == [(0, disk.stat().st_size)]
    assert "valid GPT, which names 1 partitions" in used.warnings[0]


def test_a_damaged_gpt_that_the_mbr_does_not_speak_of_is_none(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, EXT4)
    write(disk, 0, bytes(BOOT_CODE) + boot_record(dos_entry(0x83, 2048, SIZE // 512)))
    write(disk, 512 + 16, b"\xff\xff\xff\xff")
    assert only(used_map(disk)).method == "partclone"


def test_a_bitlocker_on_a_whole_disk_has_no_partition_table(tmp_path: Path) -> None:
    """Text in its boot sector, where a table would be."""
    disk = old_disk(tmp_path / "disk", 16 * MIB)
    sector = bytearray(read(disk, 0, 512))
    sector[:13] = b"\xeb\x58\x90-FVE-FS-\x00\x02"
    # The volume's GUID, and where the first block of metadata lies (libbde: BitLocker Drive Encryption format, volume header).
    sector[160:176] = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
    struct.pack_into("<Q", sector, 176, 2 * MIB)
    write(disk, 2 * MIB, b"-FVE-FS-" + struct.pack("<HH", 64, 2))
    sector[BOOT_CODE:] = boot_record(dos_entry(0x6E, 0x6B617473, 0x20746F6E), dos_entry(0x65, 0x6C69616C, 0x6465))
    write(disk, 0, bytes(sector))
    assert tool("blkid", "-p", "-s", "TYPE", "-o", "value", disk).strip() == "BitLocker"
    assert read_partition_table(RUN, str(disk)) is None
    assert list(used_map(disk).ranges) == [(0, 16 * MIB)]


def luks2(path: Path) -> Path:
    with open(path, "xb") as file:
        file.truncate(24 * MIB)
    fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    tool("cryptsetup", "-q", "luksFormat", "--type", "luks2", *fast, path, "-", stdin="secret")
    return path


@pytest.mark.parametrize("place", [16 << 10, 4 * MIB])
def test_a_second_header_of_luks_in_a_file_is_said_and_no_encryption(place: int, tmp_path: Path) -> None:
    needs("cryptsetup")
    header = bytearray(read(luks2(tmp_path / "luks"), 16 << 10, 16 << 10))
    struct.pack_into(">Q", header, 256, place)
    disk = single(tmp_path, SIZE, [*EXT4, "-b", "4096"])
    write(disk, START + place, bytes(header))
    assert detect(RUN, str(disk), START, SIZE).stray == "crypto_LUKS"
    used = used_map(disk)
    assert (only(used).content, only(used).method) == ("ext4", "whole")
    assert "it has a signature of crypto_LUKS" in used.warnings[0]


def test_a_luks_without_its_first_header_is_still_one(tmp_path: Path) -> None:
    needs("cryptsetup")
    luks = luks2(tmp_path / "luks")
    write(luks, 0, bytes(4096))
    assert detect(RUN, str(luks)).type == "crypto_LUKS"


def test_content_that_looks_like_several_things_is_said(tmp_path: Path) -> None:
    needs("mkfs.xfs")
    disk = single(tmp_path, 320 * MIB, ["mkfs.xfs", "-q", "-f", "-K"])
    write(disk, START + (32 << 10), b"\x01CD001\x01".ljust(2048, b"\0") + b"\xffCD001\x01".ljust(2048, b"\0"))
    used = used_map(disk)
    assert only(used).method == "whole"
    assert f"Partition 1 is captured whole: {only(used).reason}." in used.warnings
