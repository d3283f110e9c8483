# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A partition and its file system grow to the end of the disk: real file systems, checked afterwards by their own tools."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.blkid import detect
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.registry import file_system_size
from ansible_collections.fleet.imaging.plugins.module_utils.disk.grow import Growth, grow
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    attached,
    needs,
    needs_loop_devices,
    part,
    partitioned,
    runner,
    single,
)
from ansible_collections.fleet.imaging.tests.integration.test_disks import NTFS, ntfs_dirty
from ansible_collections.fleet.imaging.tests.integration.test_signatures import md_090
from ansible_collections.fleet.imaging.tests.lab import udev_stand_in

pytestmark = needs_loop_devices

OLD, NEW = 400 * MIB, 600 * MIB
FIRST = 20 * MIB
MAKERS = {
    "ntfs": NTFS,
    "ext2": ["mkfs.ext2", "-q", "-F"],
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
CHECKS = {
    "ntfs": ["ntfsresize", "--info", "--force", "--force"],
    "ext2": ["e2fsck", "-f", "-n"],
    "ext4": ["e2fsck", "-f", "-n"],
    "xfs": ["xfs_repair", "-n"],
    "btrfs": ["btrfs", "check", "--readonly"],
}


def disk_with(tmp_path: Path, kind: str, label: str = "gpt", layout: str = "") -> Path:
    """A disk with a small first partition and a second one of a kind, and 200 MiB behind that."""
    needs(*(command[0] for command in (MAKERS[kind], CHECKS[kind])))
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(OLD)
    names = ('name="first", ', 'name="Data", ') if label == "gpt" else ("", "")
    second = OLD - FIRST - 2 * MIB
    lines = [
        f"label: {label}",
        f"{names[0]}start=2048, size={(FIRST - 2 * MIB) // 512}",
        f"{names[1]}start={FIRST // 512}, size={second // 512}",
    ]
    partitioned(disk, "\n".join([*lines, layout, ""]))
    with attached(disk, *part(FIRST, second)) as node:
        subprocess.run([*MAKERS[kind], node], check=True, capture_output=True)
    subprocess.run(["truncate", "--size", str(NEW), disk], check=True)
    if label == "gpt":
        subprocess.run(["sgdisk", "-e", disk], check=True, capture_output=True)
    return disk


def table(disk: Path) -> list[str]:
    dump = subprocess.run(["sfdisk", "--dump", disk], check=True, capture_output=True, text=True).stdout
    return [" ".join(line.split()) for line in dump.splitlines() if line]


@pytest.mark.parametrize(("kind", "label"), [*((kind, "gpt") for kind in MAKERS), ("ntfs", "dos")])
def test_it_grows_once_and_is_sound(tmp_path: Path, kind: str, label: str) -> None:
    disk = disk_with(tmp_path, kind, label)
    before = table(disk)
    content = disk.read_bytes()
    end = NEW - MIB if label == "gpt" else NEW
    old = OLD - FIRST - 2 * MIB
    planned = grow(RUN, str(disk), "last", write=False)
    assert planned == Growth(2, kind, old, end - FIRST, True)
    assert disk.read_bytes() == content
    assert grow(RUN, str(disk), "last", write=True) == planned
    after = table(disk)
    assert after[:-1] == before[:-1]  # only the second partition is another, and of that only the size
    assert after[-1] == before[-1].replace(f"{old // 512}", f"{(end - FIRST) // 512}")
    with attached(disk, *part(FIRST, end - FIRST)) as node:
        checked = subprocess.run([*CHECKS[kind], node], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        size = file_system_size(node, 0, kind)
        assert size and end - FIRST - MIB < size <= end - FIRST
    assert grow(RUN, str(disk), "last", write=True) == Growth(2, kind, end - FIRST, end - FIRST, False)


def test_what_a_former_owner_left_at_the_new_end_does_not_come_alive(tmp_path: Path) -> None:
    """The room ends where the GPT says that it does, far from the disk's end, which a restore has made zeros."""
    disk = disk_with(tmp_path, "ext4")
    subprocess.run(["truncate", "--size", str(NEW + 100 * MIB), disk], check=True)
    end = NEW - MIB
    md_090(disk, FIRST, end - FIRST)
    assert detect(RUN, str(disk), FIRST, end - FIRST).type == "linux_raid_member"
    assert grow(RUN, str(disk), "last", write=True).new_size == end - FIRST
    assert detect(RUN, str(disk), FIRST, end - FIRST).type == "ext4"


def test_a_file_system_that_was_left_behind_is_grown(tmp_path: Path) -> None:
    disk = disk_with(tmp_path, "ext4")
    subprocess.run(["sgdisk", "-d", "2", "-n", f"2:{FIRST // 512}:0", disk], check=True, capture_output=True)
    growth = grow(RUN, str(disk), "2", write=True)
    assert growth.changed and growth.old_size == growth.new_size
    assert not grow(RUN, str(disk), "2", write=True).changed


@pytest.mark.parametrize("which", ["Data", "data", "2", "last"])
def test_it_is_found_by_name_or_number(tmp_path: Path, which: str) -> None:
    assert grow(RUN, str(disk_with(tmp_path, "ext2")), which, write=False).partition == 2


def refused(disk: Path, which: str, words: str) -> None:
    before = disk.read_bytes()
    with pytest.raises(ImagingError, match=words):
        grow(RUN, str(disk), which, write=True)
    assert disk.read_bytes() == before


def test_what_others_lie_behind_is_refused_and_they_are_named(tmp_path: Path) -> None:
    refused(disk_with(tmp_path, "ext2"), "first", r"2 \(Data\) lies behind it.*reagentc")


def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    refused(disk_with(tmp_path, "ext2"), "Windows", r"1 \(first\), 2 \(Data\)")


def test_what_is_not_clean_or_not_known_is_refused(tmp_path: Path) -> None:
    disk = single(tmp_path, OLD, NTFS)
    ntfs_dirty(disk)
    subprocess.run(["truncate", "--size", str(NEW), disk], check=True)
    refused(disk, "last", "marked for a check")
    with open(disk, "r+b") as file:
        file.seek(MIB)
        file.write(bytes(1 << 20))
    refused(disk, "last", "nothing known")


def test_a_missing_program_is_said_before_anything_is_changed(tmp_path: Path) -> None:
    disk = disk_with(tmp_path, "ext4")
    before = disk.read_bytes()
    with pytest.raises(MissingTool, match="resize2fs"):
        grow(runner("resize2fs"), str(disk), "last", write=True)
    assert disk.read_bytes() == before


# --- udev ---


@contextlib.contextmanager
def udev(device: str, seconds: float, log: Path) -> Iterator[None]:
    """Have somebody lock a disk for some time whenever a program that could write to it has closed it."""
    with (
        open(log, "w") as said,
        subprocess.Popen([sys.executable, udev_stand_in.__file__, device, str(seconds)], stdout=said) as process,
    ):
        try:
            deadline = time.monotonic() + 20
            while "watching" not in log.read_text():
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            yield
        finally:
            process.kill()


def test_udev_which_looks_at_what_was_written_is_waited_for(tmp_path: Path) -> None:
    """One file system that is grown by programs on its partition, and one that is mounted."""
    log = tmp_path / "udev.log"
    for kind in ("ext4", "xfs"):
        disk = disk_with(tmp_path, kind)
        with attached(disk) as device, udev(device, 1.0, log):
            with open(device, "rb+"):  # as a restore leaves it
                pass
            assert grow(RUN, device, "last", write=True).changed
            assert not grow(RUN, device, "last", write=True).changed
        assert log.read_text().count("locked")
        disk.unlink()


def test_who_does_not_let_go_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    disk = disk_with(tmp_path, "ext4")
    before = disk.read_bytes()
    with attached(disk) as device, subprocess.Popen(["flock", "--shared", device, "sleep", "60"]) as holder:
        try:
            while not locked(device):
                time.sleep(0.02)
            with pytest.raises(ImagingError, match=rf"{device} is locked by process \d+ \((flock|sleep)\)"):
                grow(RUN, device, "last", write=True, patience=0.5)
        finally:
            subprocess.run(["pkill", "--parent", str(holder.pid)], check=False)
    assert disk.read_bytes() == before


def test_a_partition_that_somebody_looks_at_is_waited_for_and_named(tmp_path: Path) -> None:
    """While one is open, the kernel reads no partition table."""
    disk = disk_with(tmp_path, "ext2")
    with attached(disk, "--partscan") as device:
        subprocess.run(["partx", "--update", device], check=True)
        node = f"{device}p2"
        for seconds, patience in ((0.5, 20.0), (60.0, 0.2)):
            descriptor = os.open(node, os.O_RDONLY)
            with subprocess.Popen(["sleep", str(seconds)], stdin=descriptor) as looking:
                os.close(descriptor)
                with RawDisk(device, writable=True, patience=patience) as held:
                    said = held.reread_partition_table()
                looking.kill()
            if seconds < patience:
                assert said is None
                subprocess.run(["partx", "--update", device], check=True)
            else:
                assert said and f"a partition may be open in process {looking.pid} (sleep)" in said


def locked(device: str) -> bool:
    descriptor = os.open(device, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_what_is_half_done_is_said_and_gone_on_with(tmp_path: Path) -> None:
    """The partition grows, and the program that grows the file system fails."""
    disk = disk_with(tmp_path, "ext4")

    def failing(command: Sequence[str]) -> CommandResult:
        grows = command[0] == "resize2fs" and command[-1] != "-V"
        return CommandResult(1, "", "no memory") if grows else RUN(command)

    with pytest.raises(ImagingError, match=r"no memory.*was enlarged and its file system was not: run again"):
        grow(failing, str(disk), "last", write=True)
    growth = grow(RUN, str(disk), "last", write=True)
    assert growth.changed and growth.old_size == growth.new_size
    assert not grow(RUN, str(disk), "last", write=True).changed
