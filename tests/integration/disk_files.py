# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks in files, with real partition tables and file systems, for tests of the used map that need no laptop."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.bounded_run import BoundedRun, Bounds
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool, RunCommand
from ansible_collections.fleet.imaging.plugins.module_utils.disk.consistency import ConsistencyChecks
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import describe
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.disk.used_map import PartitionUse, UsedMap, read_used_map
from ansible_collections.fleet.imaging.tests.lab.disks import detach_loop_device
from ansible_collections.fleet.imaging.tests.lab.tools import SEARCH_PATH, find
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

MIB = 1 << 20
START = MIB

needs_loop_devices = pytest.mark.skipif(
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
        assert detach_loop_device(device, path, 20), f"{device} is still in use"


def part(start: int, size: int) -> list[str]:
    return ["--offset", str(start), "--sizelimit", str(size)]


def old_disk(path: Path, size: int, seed: int = 1) -> Path:
    """A disk that is full of old data, so that nothing is right by being zero; of other data with another seed."""
    noise = random.Random(seed).randbytes(MIB)
    with open(path, "wb") as disk:
        for _megabyte in range(-(-size // MIB)):
            disk.write(noise)
    os.truncate(path, size)
    return path


TARGET = 2
"""The seed for what is copied onto: with the same old data as the source, what was not copied would be right."""


def partitioned(path: Path, script: str) -> Path:
    tool("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "never", path, stdin=script)
    return path


def used_map(path: Path | str, run: RunCommand = RUN, mode: str = "auto") -> UsedMap:
    disk = describe(run, str(path))
    return read_used_map(run, disk, read_partition_table(run, str(path)), mode)


def only(used: UsedMap) -> PartitionUse:
    assert len(used.partitions) == 1
    return used.partitions[0]


def proven_map(disk: Path | str) -> UsedMap:
    """The used map of a disk with one file system, of which a map is made that its check finds consistent."""
    used = used_map(disk)
    assert only(used).method == "partclone", only(used).reason
    assert doubts_about(disk, used) == {}
    return used


def single(tmp_path: Path, size: int, make: Sequence[str], label: str = "gpt", kind: str = "linux") -> Path:
    """A disk with one partition of ``size`` bytes, made by a command whose last word becomes its device."""
    disk = old_disk(tmp_path / "disk", size + 3 * MIB)
    partitioned(disk, f"label: {label}\nstart={START // 512}, size={size // 512}, type={kind}\n")
    with attached(disk, *part(START, size)) as device:
        tool(*make, device)
    return disk


def copy_used(disk: Path, used: UsedMap, target: Path, noise: bool = False) -> Path:
    """A disk of which only the used ranges were copied, and everything else is zero, or other old data than that of ``old_disk``."""
    with open(target, "wb") as copy:
        copy.truncate(disk.stat().st_size)
    if noise:
        old_disk(target, disk.stat().st_size, TARGET)
    with open(disk, "rb") as source, open(target, "r+b") as copy:
        for start, end in used.ranges:
            source.seek(start)
            copy.seek(start)
            copy.write(source.read(end - start))
    return target


def doubts_about(disk: Path | str, used: UsedMap, run: BoundedRun | None = None) -> dict[int, str]:
    """What the checks of the mapped file systems find against them, by partition."""
    checks = ConsistencyChecks(str(disk), used.partitions, run or BoundedRun(Bounds(60.0, 1 << 30)))
    checks.start()
    assert checks.wait(120)
    checks.close()
    return checks.doubts()


def write(disk: Path, offset: int, content: bytes) -> None:
    """Put bytes at an offset of a disk."""
    with open(disk, "r+b") as file:
        file.seek(offset)
        file.write(content)


def read(disk: Path, offset: int, length: int) -> bytes:
    """What lies at an offset of a disk."""
    with open(disk, "rb") as file:
        file.seek(offset)
        return file.read(length)
