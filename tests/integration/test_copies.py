# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks with partition tables in odd states: captured, and restored onto old data on disks of the same size, larger and smaller ones.

Both halves of each transfer are the real ones. docs/disk-states.md lists the states.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import examine_disk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.gpt import GptHeader
from ansible_collections.fleet.imaging.plugins.module_utils.engine.goal import DISCARD, ZERO_UNUSED
from ansible_collections.fleet.imaging.tests.integration.copies import captured, restore
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    TARGET,
    attached,
    needs,
    old_disk,
    part,
    partitioned,
    read,
    write,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated
from ansible_collections.fleet.imaging.tests.integration.test_disks import wait_for_end_of_fuse
from ansible_collections.fleet.imaging.tests.integration.test_owners import BOOT_CODE, boot_record, dos_entry
from ansible_collections.fleet.imaging.tests.integration.test_signatures import blkid, md_090, zfs
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = pytest.mark.skipif(not isolated(), reason="a partition's file system needs a loop device, and so root")

SIZE = 20 * MIB
SECTORS = SIZE // 512
FILE_SYSTEM = (4 * MIB, 4 * MIB)
ANOTHER = (10 * MIB, 4 * MIB)
"""Where these disks have an ext4, and its size."""

NUMBER_1 = "start=8192, size=8192"
NUMBER_2 = "start=20480, size=8192"
Make = Callable[[Path], None]


def make_ext4(disk: Path | str, start: int = FILE_SYSTEM[0], size: int = FILE_SYSTEM[1]) -> None:
    with attached(Path(disk), *part(start, size)) as device:
        tool("mkfs.ext4", "-q", "-F", "-E", "nodiscard", device)


def gpt(*rows: str, more: Make = lambda disk: None) -> Make:
    """A GPT that sfdisk makes, with an ext4 where the first of these disks' partitions is."""

    def make(disk: Path) -> None:
        needs("sgdisk")
        partitioned(disk, "\n".join(["label: gpt", *(rows or [NUMBER_1]), ""]))
        make_ext4(disk)
        more(disk)

    return make


def sgdisk(*options: str) -> Make:
    def make(disk: Path) -> None:
        tool("sgdisk", *options, disk)

    return make


def mbr(*entries: bytes) -> Make:
    """The entries of an MBR, over those that are there."""
    return lambda disk: write(disk, BOOT_CODE, boot_record(*entries))


def protective(start: int, count: int) -> Make:
    return gpt(more=mbr(dos_entry(0xEE, start, count)))


def damaged(place: int) -> Make:
    return gpt(more=lambda disk: write(disk, place, b"\xaa"))


def move_backup_entries(disk: Path) -> None:
    """Have the entries of the backup lie in the middle of the disk, far from their header."""
    sectors, place = 32, 30000

    def read_at(offset: int, length: int) -> bytes:
        return read(disk, offset, length)

    primary, backup = (GptHeader.read(read_at, at, 512) for at in (1, SECTORS - 1))
    assert primary and backup
    write(disk, place * 512, read(disk, backup.entries * 512, sectors * 512))
    write(disk, backup.entries * 512, bytes(sectors * 512))
    write(disk, 512, primary.moved(1, SECTORS - 1, primary.entries, place - 1))
    write(disk, SIZE - 512, backup.moved(SECTORS - 1, 1, place, place - 1))


def stale_backup(disk: Path) -> None:
    """The backup is that of a table which was there before."""
    partitioned(disk, f"label: gpt\n{NUMBER_2}\n")
    old = read(disk, SIZE - 33 * 512, 33 * 512)
    gpt()(disk)
    write(disk, SIZE - 33 * 512, old)


def backup_not_at_the_end(disk: Path) -> None:
    os.truncate(disk, 16 * MIB)
    gpt()(disk)
    os.truncate(disk, SIZE)


def dos(*rows: str, ext4: tuple[int, int] = FILE_SYSTEM, boot_code: int = 0) -> Make:
    """A DOS table that sfdisk makes, with an ext4, and text where boot code may be."""

    def make(disk: Path) -> None:
        partitioned(disk, "\n".join(["label: dos", *rows, ""]))
        write(disk, 0, b"\xeb\x63\x90 boot code")
        write(disk, boot_code or 512, b"more boot code")
        make_ext4(disk, *ext4)

    return make


def up_to_the_end(disk: Path) -> None:
    dos("start=8192, size=8192, type=83", f"start=20480, size={SECTORS - 20480}, type=83")(disk)
    make_ext4(disk, 10 * MIB, SIZE - 10 * MIB)


LOGICAL = [
    f"{number}: start={start}, size=1024, type=83"
    for number, start in zip(range(5, 11), (30720, 18432, 34816, 22528, 38912, 26624), strict=True)
]

KEPT: dict[str, tuple[Make, Sequence[int]]] = {
    "GPT of 4 entries": (gpt("table-length: 4", NUMBER_1), [512, -512, 8 * MIB + 2 * 512 - SIZE]),
    "GPT of 56 entries": (gpt("table-length: 56", NUMBER_1), [0, 8 * MIB + 15 * 512 - SIZE]),
    "GPT of 256 entries": (gpt("table-length: 256", NUMBER_1), [512, 8 * MIB + 65 * 512 - SIZE]),
    "GPT of 1024 entries": (gpt("table-length: 1024", NUMBER_1), [-512, 8 * MIB + 257 * 512 - SIZE]),
    "GPT whose entries lie elsewhere": (gpt(more=sgdisk("-j", "4000")), [MIB, -8 * MIB]),
    "GPT whose backup lies apart": (gpt(more=move_backup_entries), [MIB, -8 * MIB]),
    "GPT with an older backup": (stale_backup, [0, MIB]),
    "GPT whose backup is not at the end": (backup_not_at_the_end, [0, MIB, -4 * MIB]),
    "hybrid MBR, EE last": (gpt(more=sgdisk("-h", "1:EE")), [MIB, -8 * MIB]),
    "hybrid MBR, EE first": (gpt(more=sgdisk("-h", "EE:1")), [MIB, -8 * MIB]),
    "hybrid MBR with two EE": (
        gpt(more=mbr(dos_entry(0xEE, 1, 2047), dos_entry(0x83, 8192, 8192), dos_entry(0xEE, 20480, 9000))),
        [MIB, -8 * MIB],
    ),
    "protective MBR that is too small": (protective(1, 100), [0]),
    "protective MBR of twice the disk": (protective(1, 2 * SECTORS), [0]),
    "protective MBR that starts at 0": (protective(0, SECTORS), [0, MIB]),
    "protective MBR that starts at 2": (protective(2, SECTORS - 2), [MIB]),
    "primary header of a GPT damaged": (damaged(512 + 16), [0]),
    "primary entries of a GPT damaged": (damaged(1024 + 40), [0]),
    "GPT without partitions 1 and 2": (gpt(f"3: {NUMBER_1}", f"4: {NUMBER_2}"), [512]),
    "first partition far behind, and boot code before it": (
        dos("3: start=20480, size=8192, type=83", ext4=ANOTHER, boot_code=7 * MIB),
        [0, -512],
    ),
    "up to the very end": (up_to_the_end, [512, 2 * MIB + 1024]),
    "six logical partitions in another order than on the disk": (
        dos("1: start=8192, size=8192, type=83, bootable", "3: start=16384, type=f", *LOGICAL),
        [0, 512],
    ),
    "logical partition two sectors behind its extended one": (
        dos("2: start=8190, size=20000, type=5", "5: start=8192, size=8192, type=83"),
        [0, -512],
    ),
    "dynamic disk with a GPT": (gpt(f"{NUMBER_1}, type=AF9B60A0-1431-4F62-BC68-3311714A69AD"), [0, MIB]),
}
"""How the disk is made, and by how many bytes the disks are larger on which it must be equal."""


def layout(disk: Path | str) -> list[str]:
    """Its partitions, as sfdisk says; none when it sees no table."""
    said = RUN(["sfdisk", "--dump", str(disk)]).out
    return [line.partition(" : ")[2] for line in said.splitlines() if " : " in line]


def problems(disk: Path | str) -> str:
    """What sgdisk finds wrong with a GPT."""
    found = subprocess.run(["sgdisk", "-v", disk], capture_output=True, text=True, check=False).stdout
    return "".join(re.findall(r"^(?:No|Identified \d+) problems", found, re.MULTILINE))


@pytest.mark.parametrize("kind", KEPT)
def test_it_is_equal_on_disks_of_other_sizes_and_a_second_restore_changes_nothing(kind: str, tmp_path: Path) -> None:
    make, sizes = KEPT[kind]
    disk = old_disk(tmp_path / "disk", SIZE)
    make(disk)
    image = captured(disk, tmp_path)
    target = tmp_path / "target"
    for more in sizes:
        old_disk(target, SIZE + more, TARGET)
        restored = restore(image, target, tmp_path)
        assert (restored.get("msg"), restored.get("verified")) == (None, True)
        assert layout(target) == layout(disk) != []
        gap = image.header.source["partitions"][0]["start"] if "GPT" not in kind and "MBR" not in kind else 440
        assert read(target, 0, gap) == read(disk, 0, gap)
        if "GPT" in kind:
            assert problems(target) == ("No problems" if more else problems(disk))
        check_ext4(target, disk)
    assert restore(image, target, tmp_path)["changed"] is False


def check_ext4(target: Path, disk: Path) -> None:
    place = next(place for place in (FILE_SYSTEM, ANOTHER) if read(disk, place[0] + 1080, 2) == b"\x53\xef")
    with attached(target, "--read-only", *part(*place)) as device:
        tool("e2fsck", "-fn", device)


def whole_ext4(disk: Path) -> None:
    with attached(disk) as device:
        tool("mkfs.ext4", "-q", "-F", "-E", "nodiscard", device)


REFUSED: dict[str, tuple[Make, Sequence[int], str]] = {
    "primary header of a GPT damaged": (damaged(512 + 16), [MIB, -8 * MIB], "primary header of the GPT is damaged"),
    "primary entries of a GPT damaged": (damaged(1024 + 40), [MIB, -8 * MIB], "entries of the GPT are damaged"),
    "dynamic disk with an MBR": (
        lambda disk: mbr(dos_entry(0x42, 2048, SECTORS - 4096))(partitioned(disk, "label: dos\n")),
        [512, -512],
        "dynamic disk of Windows",
    ),
    "GPT of 256 entries": (
        gpt("table-length: 256", NUMBER_1),
        [8 * MIB + 64 * 512 - SIZE],
        "512 bytes too few, because of the end of partition 1 (ext4)",
    ),
    "up to the very end": (up_to_the_end, [-512], "512 bytes too few, because of the end of partition 2"),
    "no table": (whole_ext4, [-512], "512 bytes too few"),
    "an empty table": (lambda disk: mbr()(disk), [-512], "512 bytes too few"),
}
"""How the disk is made, by how many bytes those disks are larger which are refused, and why they are."""


@pytest.mark.parametrize("kind", REFUSED)
def test_a_disk_of_another_size_is_refused_with_the_reason_and_left_alone(kind: str, tmp_path: Path) -> None:
    make, sizes, words = REFUSED[kind]
    disk = old_disk(tmp_path / "disk", SIZE)
    make(disk)
    image = captured(disk, tmp_path)
    for more in sizes:
        target = old_disk(tmp_path / "target", SIZE + more, TARGET)
        before = target.read_bytes()
        assert words in restore(image, target, tmp_path)["msg"]
        assert target.read_bytes() == before


def two_extended(disk: Path) -> None:
    mbr(dos_entry(5, 2048, 10000), dos_entry(5, 20480, 10000), dos_entry(0x83, 32768, 8000))(disk)
    for start in (2048, 20480):
        write(disk, start * 512 + BOOT_CODE, boot_record(dos_entry(0x83, 8, 8192)))


def record_outside(disk: Path) -> None:
    """The chain of boot records leads out of the extended partition."""
    mbr(dos_entry(5, 2048, 10000), dos_entry(0x83, 32768, 8000))(disk)
    write(disk, 2048 * 512 + BOOT_CODE, boot_record(dos_entry(0x83, 8, 8192), dos_entry(5, 18432, 8192)))
    write(disk, 20480 * 512 + BOOT_CODE, boot_record(dos_entry(0x83, 8, 8000)))


def hidden_extended(disk: Path) -> None:
    mbr(dos_entry(0x15, 2048, 10000), dos_entry(0x83, 32768, 8000))(disk)
    write(disk, 2048 * 512 + BOOT_CODE, boot_record(dos_entry(0x83, 8, 8192)))


def cut_gpt(disk: Path) -> None:
    os.truncate(disk, 2 * SIZE)
    partitioned(disk, f"label: gpt\n{NUMBER_1}\nstart=30000, size=30000\n")
    os.truncate(disk, SIZE)


ODD: dict[str, Make] = {
    "two extended partitions": two_extended,
    "a boot record outside of the extended partition": record_outside,
    "a hidden extended partition": hidden_extended,
    "a partition that ends beyond the disk": mbr(dos_entry(0x83, 2048, 16384), dos_entry(0x83, 32768, 90000)),
    "a partition that begins beyond the disk": mbr(dos_entry(0x83, 2048, 16384), dos_entry(0x83, 90000, 90000)),
    "a GPT of a larger disk": cut_gpt,
    "a partition that begins at sector 0": mbr(dos_entry(0x83, 0, 30000)),
    "a partition that begins at sector 1": mbr(dos_entry(0x83, 1, 20000), dos_entry(0x83, 32768, 8000)),
    "no table": whole_ext4,
    "an empty table": mbr(),
}
"""Disks of which nothing is left out that the table speaks of."""


@pytest.mark.parametrize("kind", ODD)
def test_a_disk_whose_table_is_odd_or_missing_is_kept_with_all_that_it_names(kind: str, tmp_path: Path) -> None:
    disk = old_disk(tmp_path / "disk", SIZE)
    ODD[kind](disk)
    assert examine_disk(RUN, str(disk)).findings == []
    image = captured(disk, tmp_path)
    partitions = image.header.source["partitions"]
    named = [(each["start"], min(SIZE, each["start"] + each["size"])) for each in partitions if each["start"] < SIZE]
    for more in (0, MIB):
        target = old_disk(tmp_path / "target", SIZE + more, TARGET)
        restored = restore(image, target, tmp_path)
        assert (restored.get("msg"), restored.get("verified"), restored["seen_differences"]) == (None, True, [])
        assert kind == "a GPT of a larger disk" or layout(target) == layout(disk)
        for start, end in named or [(0, SIZE)]:
            assert read(target, start, end - start) == read(disk, start, end - start)


@pytest.mark.parametrize("unused", [ZERO_UNUSED, DISCARD])
def test_of_former_owners_nothing_is_left_where_unused_space_is_cleared(unused: str, tmp_path: Path) -> None:
    """Not even the copy of the superblock that a btrfs has at 64 MiB, for which nobody looks by itself."""
    needs("mkfs.btrfs")
    size, place = 132 * MIB, (MIB, 128 * MIB)
    disk, target = tmp_path / "disk", tmp_path / "target"
    for path in (disk, target):
        path.touch()
        os.truncate(path, size)
    partitioned(disk, f"label: gpt\nstart=2048, size={place[1] // 512}\n")
    with attached(disk, *part(*place)) as device:
        tool("mkswap", "-q", device)
    with attached(target, *part(*place)) as device:
        tool("mkfs.btrfs", "-q", "-f", "-M", "-m", "single", device)
    zfs(target, *place)
    md_090(target, 0, size)
    copy = MIB + (64 << 20) + 64
    assert read(target, copy, 8) == b"_BHRfS_M"
    with attached(target) as device:
        if unused == DISCARD and not int(Path("/sys/block", Path(device).name, "queue/discard_max_bytes").read_text()):
            pytest.skip("loop devices take no discards here")
        assert restore(captured(disk, tmp_path), device, tmp_path, unused=unused)["verified"] is True
    assert not any(read(target, copy, 8))
    for where in (place, (0, size)):
        assert blkid(target, *where) == blkid(disk, *where)


SECTOR_4K = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-E", "nodiscard"], 24, "ext4", ["e2fsck", "-fn"]),
    "ntfs": (["mkntfs", "-Q", "-q", "-F"], 24, "ntfs-3g", ["ntfsresize", "--info", "--no-progress-bar"]),
    "vfat": (["mkfs.fat", "-F", "32", "-s", "1"], 300, "", ["fsck.fat", "-n"]),
    "exfat": (["mkfs.exfat"], 24, "exfat-fuse", ["fsck.exfat", "-n"]),
    "xfs": (["mkfs.xfs", "-q", "-f", "-K"], 320, "xfs", ["xfs_repair", "-n"]),
}
"""How a file system is made, its MiB, how it is mounted, and its check."""


def test_all_file_systems_of_a_disk_with_large_sectors_are_equal_on_disks_of_other_sizes(tmp_path: Path) -> None:
    needs("sgdisk", "mount.exfat-fuse", *(make[0] for make, *_more in SECTOR_4K.values()))
    size = sum(each[1] for each in SECTOR_4K.values()) * MIB + 70 * MIB
    disk, target = tmp_path / "disk", tmp_path / "target"
    disk.touch()
    os.truncate(disk, size)
    rows = "".join(f"size={mib * MIB // 4096}\n" for _make, mib, *_more in SECTOR_4K.values())
    with attached(disk, "--sector-size", "4096") as device:
        tool("sfdisk", "--quiet", device, stdin=f"label: gpt\n{rows}")
        start, places = MIB, {}
        for name, (make, mib, mount, _check) in SECTOR_4K.items():
            places[name] = ["--sector-size", "4096", *part(start, mib * MIB)]
            with attached(Path(device), *places[name]) as node:
                tool(*make, node)
                fill(node, mount, tmp_path)
            start += mib * MIB
        image = captured(device, tmp_path)
        assert [each["method"] for each in image.header.source["partitions"]] == ["partclone"] * len(places)
    for more in (-4096, 4096, 3 * MIB, -60 * MIB):
        target.unlink(missing_ok=True)
        target.touch()
        os.truncate(target, size + more)
        with attached(target, "--sector-size", "4096") as device:
            assert restore(image, device, tmp_path)["verified"] is True
            assert problems(device) == "No problems"
            for name, place in places.items():
                with attached(Path(device), "--read-only", *place) as node:
                    tool(*SECTOR_4K[name][3], node)


def fill(node: str, mount: str, tmp_path: Path) -> None:
    """Put some files into a file system; a FAT is not mounted."""
    if not mount:
        tool("mcopy", "-i", node, __file__, "::/")
        return
    folder = tmp_path / "mount"
    folder.mkdir(exist_ok=True)
    tool("mount", "-t", mount, node, folder)
    try:
        for number in range(20):
            shutil.copy(__file__, folder / f"file {number}")
    finally:
        tool("umount", folder)
        wait_for_end_of_fuse(node)
