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
import shutil
import struct
from collections.abc import Iterator, Sequence
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
    read,
    single,
    used_map,
    write,
)
from ansible_collections.fleet.imaging.tests.integration.test_disks import mounted, same_tree
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


# --- partition tables -------------------------------------------------------------------------------------------------


def layout(disk: Path) -> list[str]:
    """Its partitions, as sfdisk says."""
    return [line.partition(" : ")[2] for line in tool("sfdisk", "--dump", disk).splitlines() if " : " in line]


def copied(disk: Path, tmp_path: Path) -> Path:
    return copy_used(disk, used_map(disk), tmp_path / "copy", noise=True)


@pytest.mark.parametrize("entries", [4, 56, 256, 1024])
def test_a_gpt_of_any_length_is_kept(entries: int, tmp_path: Path) -> None:
    needs("sgdisk")
    disk = old_disk(tmp_path / "disk", SIZE)
    tool("sgdisk", "-o", "-S", str(entries), "-n", "1:4M:+8M", disk)
    assert "No problems found" in tool("sgdisk", "-v", copied(disk, tmp_path))


def test_a_moved_array_of_a_gpt_is_kept(tmp_path: Path) -> None:
    needs("sgdisk")
    disk = old_disk(tmp_path / "disk", SIZE)
    tool("sgdisk", "-o", "-j", "4000", "-n", "1:4M:+8M", disk)
    assert "No problems found" in tool("sgdisk", "-v", copied(disk, tmp_path))


@pytest.mark.parametrize("order", ["1:EE", "EE:1"])
def test_a_hybrid_mbr_is_kept(order: str, tmp_path: Path) -> None:
    needs("sgdisk")
    disk = old_disk(tmp_path / "disk", SIZE)
    tool("sgdisk", "-o", "-n", "1:4M:+8M", "-n", "2:12M:+4M", disk)
    tool("sgdisk", "-h", order, disk)
    copy = copied(disk, tmp_path)
    assert read(copy, 0, 512) == read(disk, 0, 512)
    assert layout(copy) == layout(disk)


@pytest.mark.parametrize("field", [(1, 100), (1, 0xFFFFFFFF), (0, 4096), (2, 4096)])
def test_an_odd_protective_mbr_is_kept(field: tuple[int, int], tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, ["mkfs.ext4", "-q"])
    write(disk, 446, struct.pack("<4xB3xII", 0xEE, *field))
    copy = copied(disk, tmp_path)
    assert layout(copy) == layout(disk)
    assert read(copy, 0, 512) == read(disk, 0, 512)


@pytest.mark.parametrize("damage", [512 + 16, 1024 + 40], ids=["header", "entries"])
def test_a_gpt_with_a_damaged_half_is_kept_as_it_is(damage: int, tmp_path: Path) -> None:
    disk = single(tmp_path, SIZE, ["mkfs.ext4", "-q"])
    write(disk, damage, b"\xaa")
    copy = copied(disk, tmp_path)
    assert read(copy, 0, START) == read(disk, 0, START)
    assert read(copy, START + SIZE + MIB, 1 << 20) == read(disk, START + SIZE + MIB, 1 << 20)
    assert layout(copy) == layout(disk)


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


def test_logical_partitions_out_of_order_with_a_gap_and_boot_code_are_kept(tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", 64 * MIB)
    rows = [
        "4: start=65536, size=20480, type=7",
        "3: start=20480, type=5, size=40000",
        "5: start=40960, size=8192, type=83",
    ]
    rows += ["6: start=22528, size=8192, type=83"]
    partitioned(disk, "label: dos\n" + "\n".join(rows) + "\n")
    write(disk, 5 * MIB, b"boot code")
    copy = copied(disk, tmp_path)
    assert layout(copy) == layout(disk)
    assert read(copy, 0, 10 * MIB) == read(disk, 0, 10 * MIB)


@pytest.mark.parametrize("label", ["mac", "sun", "sgi", "bsd"])
def test_other_tables_have_their_disk_captured_whole(label: str, tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", SIZE)
    if label == "mac":
        write(disk, 0, b"ER" + struct.pack(">HI", 512, SIZE // 512) + bytes(504))
        write(
            disk,
            512,
            b"PM"
            + struct.pack(">HIII", 0, 1, 1, 63)
            + b"Apple".ljust(32, b"\0")
            + b"Apple_partition_map".ljust(32, b"\0"),
        )
    elif label == "bsd":
        write(disk, 0, bytes(512) + struct.pack("<I", 0x82564557).ljust(512, b"\0"))
    else:
        tool("sfdisk", "--quiet", disk, stdin=f"label: {label}\n")
    assert is_whole(used_map(disk), 0, SIZE)


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
    "without sparse superblocks": ["-O", "^sparse_super,^resize_inode", "-g", "1024", "-b", "1024"],
}


@pytest.mark.parametrize("kind", EXT)
def test_an_ext4_of_any_make_is_mapped_rightly(kind: str, files: Path, tmp_path: Path) -> None:
    size = 4 * SIZE if "64" in kind else SIZE
    make = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard", "-d", str(files), *EXT[kind]]
    if "-E" in EXT[kind]:
        make = ["mkfs.ext4", "-q", "-F", "-d", str(files), "-E", "nodiscard," + EXT[kind][1]]
    try:
        disk = single(tmp_path, size, make)
    except LabError as error:
        pytest.skip(f"mkfs.ext4 here can't make it: {error}")
    with attached(disk, *part(START, size)) as device:
        tool("sh", "-c", 'e2fsck -fy "$0" || [ $? = 1 ]', device)  # what mkfs leaves of quotas
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    assert doubts_about(disk, used) == {}
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
}


@pytest.mark.parametrize("kind", XFS)
def test_an_xfs_of_any_make_is_mapped_rightly(kind: str, files: Path, tmp_path: Path) -> None:
    needs("mkfs.xfs", "xfs_repair")
    size = 320 * MIB
    try:
        disk = single(tmp_path, size, ["mkfs.xfs", "-q", "-f", "-K", *XFS[kind]])
    except LabError as error:
        pytest.skip(f"mkfs.xfs here can't make it: {error}")
    with mounted(disk, size, tmp_path / "one", "-t", "xfs") as folder:
        shutil.copytree(files, folder / "files", symlinks=True)
        (folder / "gone").write_bytes(bytes(range(256)) * 4096)
        os.sync()
        (folder / "gone").unlink()
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    assert doubts_about(disk, used) == {}
    assert used.ranges.total() < 0.6 * size
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("xfs_repair", "-n", device)
    with mounted(copy, size, tmp_path / "other", "-t", "xfs", "-r") as folder:
        assert same_tree(files, folder / "files") == 19


# --- NTFS, exFAT, FAT -------------------------------------------------------------------------------------------------


def plain(files: Path) -> Iterator[Path]:
    return (path for path in sorted(files.rglob("*")) if path.is_file() and not path.is_symlink())


@pytest.mark.parametrize("cluster", ["512", "1024", "65536", "2097152"])
def test_an_ntfs_with_clusters_of_any_size_is_mapped_rightly(cluster: str, files: Path, tmp_path: Path) -> None:
    needs("mkntfs", "ntfscp", "ntfscat")
    size = SIZE if len(cluster) < 6 else 8 * SIZE
    disk = single(tmp_path, size, ["mkntfs", "-Q", "-q", "-F", "-c", cluster])
    with attached(disk, *part(START, size)) as device:
        for path in plain(files):
            tool("ntfscp", "-q", device, path, path.name)
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    assert doubts_about(disk, used) == {}
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("ntfsfix", "--no-action", device)
        for path in plain(files):
            assert tool("sh", "-c", 'ntfscat "$0" "$1" | cmp - "$2" && echo same', device, path.name, path) == "same\n"


@pytest.mark.parametrize("options", [["-c", "512"], ["-c", "1M"], ["-b", "4M"], ["--pack-bitmap"]])
def test_an_exfat_of_any_make_is_mapped_rightly(options: Sequence[str], files: Path, tmp_path: Path) -> None:
    needs("mkfs.exfat", "fsck.exfat")
    size = 2 * SIZE
    disk = single(tmp_path, size, ["mkfs.exfat", *options])
    with mounted(disk, size, tmp_path / "one", "-t", "exfat-fuse") as folder:
        for path in plain(files):
            shutil.copyfile(path, folder / path.name)
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    assert doubts_about(disk, used) == {}
    copy = copy_used(disk, used, tmp_path / "copy", noise=True)
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool("fsck.exfat", "-n", device)
    with mounted(copy, size, tmp_path / "other", "-t", "exfat-fuse", "-r") as folder:
        for path in plain(files):
            assert (folder / path.name).read_bytes() == path.read_bytes()


FAT = {
    "wrong count of free clusters": (["-F", "32", "-s", "1"], [(512 + 488, b"\x01\0\0\0")]),
    "extended signature 28": (["-F", "32", "-s", "1"], [(66, b"\x28")]),
    "extended signature 0": (["-F", "16", "-s", "4"], [(38, b"\0")]),
    "misleading type": (["-F", "32", "-s", "1"], [(82, b"FAT12   ")]),
    "one table": (["-F", "32", "-s", "1", "-f", "1"], []),
    "four tables": (["-F", "16", "-s", "4", "-f", "4"], []),
    "sectors of 1 KiB": (["-F", "16", "-s", "2", "-S", "1024"], []),
    "sectors of 4 KiB": (["-F", "16", "-s", "1", "-S", "4096"], []),
}


@pytest.mark.parametrize("kind", FAT)
def test_an_odd_fat_is_mapped_rightly_or_whole(kind: str, files: Path, tmp_path: Path) -> None:
    needs("mkfs.fat", "mcopy")
    options, patches = FAT[kind]
    size = 2 * SIZE
    disk = single(tmp_path, size, ["mkfs.fat", *options])
    with attached(disk, *part(START, size)) as device:
        tool("mcopy", "-i", device, *plain(files), "::/")
        tool("mdel", "-i", device, "::/file-8")
    for offset, content in patches:
        write(disk, START + offset, content)
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


BTRFS = ["mkfs.btrfs", "-q", "-f", "-M", "-K"]


@pytest.mark.parametrize(
    ("make", "content"),
    [
        (["pvcreate", "-q", "-q", "-ff", "-y"], "LVM2_member"),
        (["mkfs.minix"], "minix"),
        (["mkfs.cramfs", "/etc/apt"], "cramfs"),
        (
            ["sh", "-c", 'cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$0" - <<<x'],
            "crypto_LUKS",
        ),
        (
            ["sh", "-c", 'cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 "$0" - <<<x'],
            "crypto_LUKS",
        ),
        (["sh", "-c", 'mke2fs -q -O journal_dev -b 4096 "$0" 4096'], "jbd"),
    ],
)
def test_what_no_map_is_made_of_is_whole(make: Sequence[str], content: str, tmp_path: Path) -> None:
    """Below it lies the superblock of an older ext4, where the new owner leaves it."""
    needs(make[0] if make[0] != "sh" else "cryptsetup")
    script = ["bash", "-c", make[2]] if make[0] == "sh" else list(make)
    disk = single(tmp_path, SIZE, ["mkfs.ext4", "-q"])
    with attached(disk, *part(START, SIZE)) as device:
        tool(*script, device)
    used = used_map(disk)
    assert only(used).method == "whole"
    assert only(used).content in (content, ""), only(used)


def test_a_btrfs_is_whole(tmp_path: Path) -> None:
    needs("mkfs.btrfs")
    assert only(used_map(single(tmp_path, 128 * MIB, BTRFS))).method == "whole"


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
