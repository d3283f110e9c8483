# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The used map and the refusals, on real disks: loop devices with real partition tables and file systems."""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool, RunCommand
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import Disk, describe, list_disks
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_node import loop_device
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.used_map import PartitionUse, UsedMap, read_used_map
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.tests.lab.tools import SEARCH_PATH, LabError, find
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

MIB = 1 << 20
START = MIB

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"),
    reason="loop devices need root and a kernel that has them",
)


def runner(*hidden: str) -> RunCommand:
    """Runs programs as a module does, on a machine where ``hidden`` ones are not installed."""

    def run(command: Sequence[str]) -> CommandResult:
        program = None if command[0] in hidden else find(command[0])
        if program is None:
            raise MissingTool(command[0])
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            env={**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C"},
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


RUN = runner()


def needs(*programs: str) -> None:
    missing = [program for program in programs if not find(program)]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")


@contextlib.contextmanager
def attached(path: Path, *options: str) -> Iterator[str]:
    """A loop device over a file, or over a part of it."""
    device = tool("losetup", "--find", "--show", *options, path).strip()
    try:
        yield device
    finally:
        tool("losetup", "--detach", device)
        # A file system in user space may still be writing after umount has returned.
        backing = Path("/sys/block", Path(device).name, "loop")
        deadline = time.monotonic() + 20
        while backing.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not backing.exists(), f"{device} is still in use"


def part(start: int, size: int) -> list[str]:
    return ["--offset", str(start), "--sizelimit", str(size)]


def old_disk(path: Path, size: int) -> Path:
    """A disk that is full of old data, so that nothing is right by being zero."""
    noise = random.Random(1).randbytes(MIB)
    with open(path, "wb") as disk:
        for _ in range(size // MIB):
            disk.write(noise)
    return path


def partitioned(path: Path, script: str) -> Path:
    tool("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "never", path, stdin=script)
    return path


def used_map(path: Path | str, run: RunCommand = RUN, mode: str = "auto") -> UsedMap:
    disk = describe(run, str(path))
    return read_used_map(run, disk, read_partition_table(run, str(path)), mode)


def only(used: UsedMap) -> PartitionUse:
    assert len(used.partitions) == 1
    return used.partitions[0]


def single(tmp_path: Path, size: int, make: Sequence[str], label: str = "gpt", kind: str = "linux") -> Path:
    """A disk with one partition of ``size`` bytes, made by a command whose last word becomes its device."""
    disk = old_disk(tmp_path / "disk", size + 3 * MIB)
    partitioned(disk, f"label: {label}\nstart={START // 512}, size={size // 512}, type={kind}\n")
    with attached(disk, *part(START, size)) as device:
        tool(*make, device)
    return disk


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


def fill_and_age(folder: Path, share: float, seed: int = 2) -> None:
    """Fill a part of a file system with files of many sizes, and remove a third of them."""
    generator = random.Random(seed)
    room = shutil.disk_usage(folder).free * share
    files = []
    while room > 0:
        place = folder / f"d{generator.randrange(6)}" / f"e{generator.randrange(3)}"
        place.mkdir(parents=True, exist_ok=True)
        size = generator.choice([0, 1, 100, 700, 5000, 70000, 300000])
        files.append(place / f"file {len(files)}")
        files[-1].write_bytes(generator.randbytes(size))
        room -= size + 4096
    for file in files[::3]:
        file.unlink()


def copy_used(disk: Path, used: UsedMap, target: Path) -> Path:
    """A disk of which only the used ranges were copied, and everything else is zero."""
    with open(disk, "rb") as source, open(target, "wb") as copy:
        copy.truncate(disk.stat().st_size)
        for start, end in used.ranges:
            source.seek(start)
            copy.seek(start)
            copy.write(source.read(end - start))
    return target


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
    "ext4 with bigalloc": (["mkfs.ext4", "-q", "-O", "bigalloc", "-E", "nodiscard"], SIZE, [], ["e2fsck", "-fn"]),
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
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    assert not used.warnings
    assert used.ranges.total() < 0.75 * size
    assert used.ranges.total() == only(used).used + START + MIB
    copy = copy_used(disk, used, tmp_path / "copy")
    with attached(copy, "--read-only", *part(START, size)) as device:
        tool(*check, device)
    with (
        mounted(disk, size, tmp_path / "one", "-r", *options) as one,
        mounted(copy, size, tmp_path / "other", "-r", *options) as other,
    ):
        assert same_tree(one, other) > 50
