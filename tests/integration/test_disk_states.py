# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States of disks that people reported to others' tools, and odd corners of formats: each must be mapped rightly, or kept whole.

What the map calls used is copied onto old data, and the copy is looked at with the file system's own tools. docs/disk-states.md lists them.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.used_map import UsedMap
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    START,
    attached,
    copy_used,
    doubts_about,
    needs,
    needs_loop_devices,
    old_disk,
    only,
    part,
    partitioned,
    proven_map,
    read,
    single,
    used_map,
    write,
)
from ansible_collections.fleet.imaging.tests.integration.test_disks import mounted, same_tree
from ansible_collections.fleet.imaging.tests.integration.test_signatures import bcache, zfs
from ansible_collections.fleet.imaging.tests.lab.tools import LabError
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = needs_loop_devices

SIZE = 24 * MIB


@pytest.fixture(scope="module", name="files")
def some_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of many sizes."""
    folder = tmp_path_factory.mktemp("files")
    generator = random.Random(7)
    for number, size in enumerate([0, 1, 60, 200, 4095, 4096, 70_000, 300_000, 1_000_000] * 2):
        place = folder / f"d{number % 3}"
        place.mkdir(exist_ok=True)
        (place / f"file-{number}").write_bytes(generator.randbytes(size))
    (folder / "link").symlink_to("d0/file-0")
    return folder


def is_whole(used: UsedMap, start: int, size: int) -> bool:
    return used.ranges.within(start, start + size) == [(start, start + size)]


def test_the_table_of_states_names_tests_that_there_are() -> None:
    folder = Path(__file__).resolve().parents[1]
    text = (folder.parent / "docs/disk-states.md").read_text()
    place = {"": folder / "integration", "unit: ": folder / "unit/plugins/module_utils"}
    file, named = Path(), re.findall(r"`(unit: )?(test_\w+\.py)?::(test_\w+)`", text)
    assert len(named) > 100
    for kind, name, function in named:
        file = next(place[kind].rglob(name)) if name else file
        assert f"\ndef {function}(" in file.read_text(), f"{name}::{function}"


# --- partition tables -------------------------------------------------------------------------------------------------


def layout(disk: Path) -> list[str]:
    """Its partitions, as sfdisk says."""
    return [line.partition(" : ")[2] for line in tool("sfdisk", "--dump", disk).splitlines() if " : " in line]


def copied(disk: Path, tmp_path: Path) -> Path:
    return copy_used(disk, used_map(disk), tmp_path / "copy", noise=True)


def test_many_logical_partitions_are_all_there(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 64 * MIB)
    rows = ["start=2048, size=2048, type=83, bootable", "start=4096, type=f"]
    rows += [
        f"start={6144 + 4096 * number}, size=1024, type={kind}"
        for number, kind in zip(range(25), itertools.cycle(["83", "7", "82"]))
    ]
    partitioned(disk, "label: dos\n" + "\n".join(rows) + "\n")
    copy = copied(disk, tmp_path)
    assert layout(copy) == layout(disk)
    assert len(layout(copy)) == 27


@pytest.mark.parametrize("label", ["amiga", "atari", "bsd", "dvh", "loop", "mac", "pc98", "sun"])
def test_other_tables_have_their_disk_captured_whole(label: str, tmp_path: Path) -> None:
    needs("parted")
    disk = old_disk(tmp_path / "disk", SIZE)
    tool("parted", "--script", disk, "mklabel", label)
    assert is_whole(used_map(disk), 0, SIZE)


@pytest.mark.parametrize("kind", ["AF9B60A0-1431-4F62-BC68-3311714A69AD", "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", "42"])
def test_partitions_of_dynamic_disks_and_storage_spaces_are_whole(kind: str, tmp_path: Path) -> None:
    """Although they look like an ext4."""
    used = used_map(single(tmp_path, SIZE, ["mkfs.ext4", "-q"], "dos" if kind == "42" else "gpt", kind))
    assert is_whole(used, START, SIZE)
    assert "it belongs to" in only(used).reason


def test_a_partition_of_unknown_content_is_whole(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", SIZE)
    partitioned(disk, "label: gpt\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n")
    assert is_whole(used_map(disk), START, MIB)


# --- ext2, ext3, ext4 -------------------------------------------------------------------------------------------------

EXT = {
    "meta_bg": ["-O", "meta_bg,^resize_inode"],
    "without 64bit": ["-O", "^64bit"],
    "inline_data": ["-O", "inline_data", "-I", "256"],
    "quota, project": ["-O", "quota,project", "-I", "256"],
    "encrypt, verity, casefold": ["-O", "encrypt,verity,casefold"],
    "ea_inode, large_dir": ["-O", "ea_inode,large_dir"],
    "mmp": ["-O", "mmp"],
    "without a journal": ["-O", "^has_journal"],
    "fast_commit": ["-O", "fast_commit"],
    "metadata_csum_seed": ["-O", "metadata_csum,metadata_csum_seed"],
    "orphan_file": ["-O", "orphan_file"],
    "sparse_super2": ["-O", "sparse_super2"],
    "blocks of 1 KiB": ["-b", "1024"],
    "blocks of 2 KiB": ["-b", "2048"],
    "blocks of 64 KiB": ["-b", "65536"],
    "packed metadata": ["-E", "packed_meta_blocks=1"],
    "room to grow": ["-E", "resize=100000000"],
    "revision 0": ["-r", "0", "-O", "none"],
    "uninit_bg without flex_bg": ["-O", "uninit_bg,^flex_bg,^metadata_csum", "-g", "1024", "-b", "1024"],
    "many inodes": ["-i", "1024"],
    "an odd size": [],
    "without sparse superblocks": ["-O", "^sparse_super,^resize_inode", "-g", "1024", "-b", "1024"],
}


@pytest.mark.parametrize("kind", EXT)
def test_an_ext4_of_any_make_is_mapped_rightly(kind: str, files: Path, tmp_path: Path) -> None:
    size = 4 * SIZE if "64" in kind else SIZE + 3584 if "odd" in kind else SIZE
    make = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard", "-d", str(files), *EXT[kind]]
    if "-E" in EXT[kind]:
        make = ["mkfs.ext4", "-q", "-F", "-d", str(files), "-E", "nodiscard," + EXT[kind][1]]
    try:
        disk = single(tmp_path, size, make)
    except LabError as error:
        pytest.skip(f"mkfs.ext4 here can't make it: {error}")
    with attached(disk, *part(START, size)) as device:
        tool("sh", "-c", 'e2fsck -fy "$0" || [ $? = 1 ]', device)  # what mkfs leaves of quotas
    used = proven_map(disk)
    assert used.ranges.total() < 0.8 * size
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    for path, folder in ((disk, "here"), (copy, "there")):
        with attached(path, "--read-only", *part(START, size)) as device:
            tool("e2fsck", "-fn", device)
            tool("debugfs", "-R", f'rdump / "{ensured(tmp_path / folder)}"', device)
    assert same_tree(tmp_path / "here", tmp_path / "there") == 19


def ensured(folder: Path) -> Path:
    folder.mkdir()
    return folder


# --- XFS --------------------------------------------------------------------------------------------------------------

XFS = {
    "reflink and rmapbt": ["-m", "reflink=1,rmapbt=1"],
    "without reflink": ["-m", "reflink=0"],
    "blocks of 1 KiB": ["-b", "size=1024"],
    "sectors of 4096": ["-s", "size=4096"],
    "folders of 64 KiB": ["-n", "size=65536"],
    "blocks of 64 KiB": ["-b", "size=65536"],
    "bigtime and large extent counters": ["-m", "bigtime=1", "-i", "nrext64=1"],
}


@pytest.mark.parametrize("kind", XFS)
def test_an_xfs_of_any_make_is_mapped_rightly(kind: str, files: Path, tmp_path: Path) -> None:
    needs("mkfs.xfs", "xfs_repair")
    size = 400 * MIB if "blocks of 64" in kind else 320 * MIB
    try:
        disk = single(tmp_path, size, ["mkfs.xfs", "-q", "-f", "-K", *XFS[kind]])
    except LabError as error:
        pytest.skip(f"mkfs.xfs here can't make it: {error}")
    with mounted(disk, size, tmp_path / "one", "-t", "xfs") as folder:
        shutil.copytree(files, folder / "files", symlinks=True)
        (folder / "gone").write_bytes(bytes(range(256)) * 4096)
        os.sync()
        (folder / "gone").unlink()
    used = proven_map(disk)
    assert used.ranges.total() < 0.6 * size
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("xfs_repair", "-n", device)
    with mounted(copy, size, tmp_path / "other", "-t", "xfs", "-r") as folder:
        assert same_tree(files, folder / "files") == 19


@pytest.mark.parametrize("options", [["-m", "crc=0"], ["-m", "crc=0", "-b", "size=512"]])
def test_an_old_xfs_which_kernels_do_not_mount_any_more_is_mapped_rightly(options: list[str], tmp_path: Path) -> None:
    """Of version 4, also with blocks that only that has; mkfs.xfs puts the file into it."""
    needs("mkfs.xfs", "xfs_repair")
    content, source, size = random.Random(3).randbytes(4 * MIB), tmp_path / "file", 320 * MIB
    source.write_bytes(content)
    (tmp_path / "prototype").write_text(f"none\n0 0\nd--755 0 0\nfile ---644 0 0 {source}\n$\n$\n")
    disk = single(tmp_path, size, ["mkfs.xfs", "-q", "-f", "-K", *options, "-p", str(tmp_path / "prototype")])
    used = proven_map(disk)
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("xfs_repair", "-n", device)
    assert content in copy.read_bytes()


# --- NTFS, exFAT, FAT -------------------------------------------------------------------------------------------------


def plain(files: Path) -> Iterator[Path]:
    return (path for path in sorted(files.rglob("*")) if path.is_file() and not path.is_symlink())


NTFS = {
    "clusters of 512 bytes": ["-c", "512"],
    "clusters of 1 KiB": ["-c", "1024"],
    "clusters of 64 KiB": ["-c", "65536"],
    "clusters of 2 MiB": ["-c", "2097152"],
    "sectors of 1 KiB": ["-s", "1024"],
    "sectors of 4 KiB": ["-s", "4096"],
}


@pytest.mark.parametrize("kind", NTFS)
def test_an_ntfs_of_any_make_is_mapped_rightly(kind: str, files: Path, tmp_path: Path) -> None:
    needs("mkntfs", "ntfscp", "ntfscat")
    size = 8 * SIZE if "2 MiB" in kind else SIZE
    disk = single(tmp_path, size, ["mkntfs", "-Q", "-q", "-F", *NTFS[kind]])
    with attached(disk, *part(START, size)) as device:
        for path in plain(files):
            tool("ntfscp", "-q", device, path, path.name)
    used = proven_map(disk)
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("ntfsfix", "--no-action", device)
        for path in plain(files):
            assert tool("sh", "-c", 'ntfscat "$0" "$1" | cmp - "$2" && echo same', device, path.name, path) == "same\n"


def test_compressed_files_of_an_ntfs_are_all_there(tmp_path: Path) -> None:
    needs("mkntfs")
    options = ["-t", "ntfs-3g", "-o", "compression"]
    disk = single(tmp_path, SIZE, ["mkntfs", "-Q", "-q", "-F"])
    text = b"".join(b"line %d of some text\n" % number for number in range(50_000))
    with mounted(disk, SIZE, tmp_path / "one", *options) as folder:
        os.setxattr(folder, "system.ntfs_attrib_be", struct.pack(">I", 0x810))  # a folder, compressed: ntfs-3g(8)
        (folder / "text").write_bytes(text)
        assert (folder / "text").stat().st_blocks * 512 < len(text) / 2
    used = proven_map(disk)
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with mounted(copy, SIZE, tmp_path / "other", *options, "-r") as folder:
        assert (folder / "text").read_bytes() == text


@pytest.mark.parametrize("sectors", ["", "32768"])
def test_the_backup_boot_sector_of_an_ntfs_is_kept(sectors: str, tmp_path: Path) -> None:
    """It is the last sector of the volume, which may be smaller than its partition, and belongs to no cluster."""
    needs("mkntfs")
    disk = single(tmp_path, SIZE, ["sh", "-c", f'mkntfs -Q -q -F "$0" {sectors}'])
    (last,) = struct.unpack("<Q", read(disk, START + 40, 8))
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    assert last * 512 + 512 == (int(sectors) * 512 if sectors else SIZE)
    assert read(copy, START + last * 512, 512) == read(copy, START, 512)


@pytest.mark.parametrize("options", [["-c", "512"], ["-c", "1M"], ["-b", "4M"], ["--pack-bitmap"]])
def test_an_exfat_of_any_make_is_mapped_rightly(options: Sequence[str], files: Path, tmp_path: Path) -> None:
    needs("mkfs.exfat", "fsck.exfat")
    size = 2 * SIZE
    disk = single(tmp_path, size, ["mkfs.exfat", *options])
    with mounted(disk, size, tmp_path / "one", "-t", "exfat-fuse") as folder:
        for path in plain(files):
            shutil.copyfile(path, folder / path.name)
    used = proven_map(disk)
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("fsck.exfat", "-n", device)
    with mounted(copy, size, tmp_path / "other", "-t", "exfat-fuse", "-r") as folder:
        for path in plain(files):
            assert (folder / path.name).read_bytes() == path.read_bytes()


def patched(offset: int, content: bytes) -> Callable[[Path], None]:
    return lambda disk: write(disk, START + offset, content)


def entries(first: int, value: int, table: int = 0) -> Callable[[Path], None]:
    """Make a few entries of all tables of a FAT32 from one on something else."""

    def change(disk: Path) -> None:
        sector, reserved, tables = struct.unpack("<HxHB", read(disk, START + 11, 6))
        (length,) = struct.unpack("<I", read(disk, START + 36, 4))
        for each in range(table, tables):
            write(disk, START + (reserved + each * length) * sector + 4 * first, struct.pack("<I", value))

    return change


FAT16, FAT32 = ["-F", "16", "-s", "4"], ["-F", "32", "-s", "1"]
FAT: dict[str, tuple[list[str], Callable[[Path], None]]] = {
    "wrong count of free clusters": (FAT32, patched(512 + 488, b"\x01\0\0\0")),
    "unknown count of free clusters": (FAT32, patched(512 + 488, b"\xff\xff\xff\xff")),
    "extended signature 28": (FAT32, patched(66, b"\x28")),
    "extended signature 28 of a FAT16": (FAT16, patched(38, b"\x28")),
    "extended signature 0": (FAT16, patched(38, b"\0")),
    "extended signature 0 of a FAT32": (FAT32, patched(66, b"\0")),
    "misleading type": (FAT32, patched(82, b"FAT12   ")),
    "misleading type of a FAT16": (FAT16, patched(54, b"FAT32   ")),
    "first entry 0": (FAT32, entries(0, 0)),
    "tables that differ": (FAT32, entries(60_000, 60_001, table=1)),
    "bad clusters": (FAT32, entries(60_000, 0x0FFFFFF7)),
    "reserved bits": (FAT32, entries(60_000, 0xF0000000)),
    "one table": ([*FAT32, "-f", "1"], lambda disk: None),
    "four tables": ([*FAT16, "-f", "4"], lambda disk: None),
    "sectors of 1 KiB": (["-F", "16", "-s", "2", "-S", "1024"], lambda disk: None),
    "sectors of 2 KiB": (["-F", "16", "-s", "1", "-S", "2048"], lambda disk: None),
    "sectors of 4 KiB": (["-F", "16", "-s", "1", "-S", "4096"], lambda disk: None),
}


@pytest.mark.parametrize("kind", FAT)
def test_an_odd_fat_is_mapped_rightly_or_whole(kind: str, files: Path, tmp_path: Path) -> None:
    needs("mkfs.fat", "mcopy")
    options, change = FAT[kind]
    size = 2 * SIZE
    disk = single(tmp_path, size, ["mkfs.fat", *options])
    with attached(disk, *part(START, size)) as device:
        tool("mcopy", "-i", device, *plain(files), "::/")
        tool("mdel", "-i", device, "::/file-8")
    change(disk)
    used = used_map(disk)
    assert only(used).content == "vfat"
    assert doubts_about(disk, used) == {}
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    there = ensured(tmp_path / "there")
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("mcopy", "-i", device, "::/file*", there)
    for path in plain(files):
        if path.name != "file-8":
            assert (there / path.name).read_bytes() == path.read_bytes()


def test_a_fat_with_more_clusters_than_its_tables_have_entries_has_all_of_its_files(
    files: Path, tmp_path: Path
) -> None:
    """The last clusters can't be in use. mtools refuses it, and reads it again once the size is as it was."""
    needs("mkfs.fat", "mcopy")
    size = 2 * SIZE
    disk = single(tmp_path, size, ["sh", "-c", 'mkfs.fat -F 32 -s 1 "$0" 40000'])
    with attached(disk, *part(START, size)) as device:
        tool("mcopy", "-i", device, *plain(files), "::/")
    right = read(disk, START + 32, 4)
    write(disk, START + 32, struct.pack("<I", size // 512))
    used = used_map(disk)
    assert doubts_about(disk, used) == {}
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    assert read(copy, START, 512) == read(disk, START, 512)
    write(copy, START + 32, right)
    there = ensured(tmp_path / "there")
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("mcopy", "-i", device, "::/file*", there)
    for path in plain(files):
        assert (there / path.name).read_bytes() == path.read_bytes()


# --- swap, and what is kept whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [4096, 8192, 65536])
def test_a_swap_area_keeps_its_label_and_uuid(page: int, tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, ["mkswap", "-q", "-L", "label", "-p", str(page)])
    used = used_map(disk)
    assert only(used).method == "swap header"
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    assert view(copy) == view(disk)


def view(disk: Path) -> str:
    return tool("blkid", "-p", "-O", str(START), "-S", str(SIZE), "-o", "export", disk).partition("\n")[2]


@pytest.mark.parametrize(
    "signature", [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"]
)
def test_a_swap_area_that_a_system_hibernates_in_is_whole(signature: bytes, tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, ["mkswap", "-q"])
    write(disk, START + (0 if signature[0] == 0xED else 4086), signature.ljust(10, b"\0"))
    used = used_map(disk)
    assert is_whole(used, START, SIZE), only(used)


FAST = "--pbkdf-force-iterations 1000"
WHOLE = {
    "LVM": ("pvcreate", '-q -q -ff -y "$0"', "LVM2_member", SIZE),
    "minix": ("mkfs.minix", '"$0"', "minix", SIZE),
    "cramfs": ("mkfs.cramfs", '/etc/apt "$0"', "cramfs", SIZE),
    "squashfs": ("mksquashfs", '/etc/apt "$0" -noappend -quiet -no-progress', "squashfs", SIZE),
    "LUKS 2": ("cryptsetup", f'-q luksFormat --pbkdf pbkdf2 {FAST} "$0" - <<<x', "crypto_LUKS", SIZE),
    "LUKS 1": ("cryptsetup", f'-q luksFormat --type luks1 {FAST} "$0" - <<<x', "crypto_LUKS", SIZE),
    "journal": ("mke2fs", '-q -O journal_dev -b 4096 "$0" 4096', "jbd", SIZE),
    "btrfs": ("mkfs.btrfs", '-q -f -M -K "$0"', "btrfs", 128 * MIB),
    "F2FS": ("mkfs.f2fs", '-q -f "$0"', "f2fs", 64 * MIB),
    "nilfs2": ("mkfs.nilfs2", '-q -f "$0"', "nilfs2", 160 * MIB),
    "JFS": ("mkfs.jfs", '-q "$0"', "jfs", SIZE),
    "bcache": ("", "", "bcache", SIZE),
    "APFS": ("", "", "apfs", SIZE),
    "HFS+": ("", "", "hfsplus", SIZE),
}
"""What makes it, blkid's name for it, and the size of its partition."""


def superblock(kind: str, disk: Path) -> None:
    """What blkid looks at of those that no program here makes (util-linux: libblkid, apfs.c and hfs.c)."""
    if kind == "bcache":
        bcache(disk, START, SIZE)
    elif kind == "APFS":
        write(disk, START, struct.pack("<8xQQHHHH4sI", 1, 1, 1, 0, 0, 0, b"NXSB", 4096))
    else:
        write(disk, START + 1024, struct.pack(">2sH36xI", b"H+", 4, 4096).ljust(512, b"\0"))


@pytest.mark.parametrize("old", ["", "mkfs.ext4", "mkswap"])
@pytest.mark.parametrize("kind", WHOLE)
def test_what_no_map_is_made_of_is_whole(kind: str, old: str, tmp_path: Path) -> None:
    """Also where the superblock of an older ext4 or swap area is left below it, and blkid may find several things."""
    program, options, content, size = WHOLE[kind]
    needs(*([program] if program else []))
    disk = single(tmp_path, size, [old, "-q"] if old else ["true"])
    if program:
        with attached(disk, *part(START, size)) as device:
            tool("bash", "-c", f"{program} {options}", device)
    else:
        superblock(kind, disk)
    used = used_map(disk)
    assert is_whole(used, START, size), only(used)
    assert only(used).content in ((content, "") if old else (content,)), only(used)


def test_an_ext4_with_the_labels_of_a_zfs_at_its_end_is_whole(tmp_path: Path) -> None:
    size = 68 * MIB
    disk = single(tmp_path, size, ["mkfs.ext4", "-q"])
    zfs(disk, START, size)
    used = used_map(disk)
    assert is_whole(used, START, size), only(used)
    assert "several things" in used.warnings[0]


def test_the_start_of_an_ext2_before_other_data_is_no_file_system(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, ["mkfs.ext2", "-q"])
    head = read(disk, START, 4096)
    generator = random.Random(5)
    write(disk, START, generator.randbytes(SIZE))
    write(disk, START, head)
    assert only(used_map(disk)).method == "whole"


def test_an_ext4_whose_counts_do_not_fit_its_bitmaps_is_whole(tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, ["mkfs.ext4", "-q", "-O", "^metadata_csum"])
    write(disk, START + 1024 + 12, struct.pack("<I", 5))
    assert only(used_map(disk)).method == "whole"
