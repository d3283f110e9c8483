# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptops' disks: sparse files, and for root a loop device over each."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from .tools import LabError, run

MIB = 2**20
GARBAGE_ENDS = 4 * MIB
GARBAGE_SPOTS = 32
PAUSE = 0.05
SECONDS_TO_LET_GO = 10.0
"""How long another program may look at a disk, or at a partition."""


def make_empty_disk(path: Path, size: int) -> None:
    """Make a disk that reads as zeros, of so many bytes."""
    with open(path, "xb") as disk:
        os.chmod(path, 0o600)
        disk.truncate(size)


def make_used_disk(path: Path, size: int) -> None:
    """Make a disk with random bytes at its start, at its end and here and there: what a restore must overwrite or may leave."""
    make_empty_disk(path, size)
    garbage = os.urandom(min(GARBAGE_ENDS, size))
    with open(path, "r+b") as disk:
        for spot in range(GARBAGE_SPOTS):
            disk.seek(size // GARBAGE_SPOTS * spot)
            disk.write(garbage[:MIB])
        for position in (0, size - len(garbage)):
            disk.seek(position)
            disk.write(garbage)
        disk.truncate(size)  # a small disk has less than a MiB behind the last spot


def copy_data(source: Path, target: Path, position: int = 0) -> None:
    """Copy a file's data into an existing file at a position (in bytes), and leave out its holes."""
    with open(source, "rb") as reader, open(target, "r+b", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        start = _next(reader.fileno(), 0, os.SEEK_DATA, size)
        while start < size:
            end = _next(reader.fileno(), start, os.SEEK_HOLE, size)
            writer.seek(position + start)
            while start < end:
                start += os.sendfile(writer.fileno(), reader.fileno(), start, end - start)
            start = _next(reader.fileno(), end, os.SEEK_DATA, size)


def _next(file: int, position: int, whence: int, size: int) -> int:
    try:
        return os.lseek(file, position, whence)
    except OSError:
        return size  # No data (ENXIO) up to the end.


def attach_loop_device(path: Path, direct_io: bool) -> str:
    """Return a new loop device over a file."""
    options = ["--direct-io=on"] if direct_io else []
    return run("losetup", "--find", "--show", "--partscan", *options, path).strip()


def detach_loop_device(device: str, path: Path, seconds: float) -> bool:
    """Detach a loop device from the file that it shows; return whether it was let go of in so many seconds.

    A file system in user space may still be writing after umount has returned. And once it is free, anybody may take the device.
    """
    return _detach(device, str(path.resolve()), seconds)


def _detach(device: str, shown: str, seconds: float) -> bool:
    """Detach a loop device, unless it shows another file by now; return whether it was let go of.

    While it is open here, nobody else can take it. Any program that looks at all disks keeps it for a moment longer.
    """
    with open(device, "rb"):
        if _shown_by(device) == shown:
            run("losetup", "--detach", device)
    deadline = time.monotonic() + seconds
    while _shown_by(device) == shown:
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True


def _shown_by(device: str) -> str:
    """Return the path of the file that a loop device shows, empty if there is none."""
    try:
        return Path("/sys/block", Path(device).name, "loop/backing_file").read_text().rstrip("\n")
    except OSError:
        return ""


def read_partitions(device: str) -> None:
    """Have the kernel know the partitions of a device that has a table, also a kernel that can't read the table by itself."""
    run("partx", "--update", device)


def forget_partition(device: str, number: int) -> None:
    """Have the kernel forget a partition, which it does only while no program looks at it."""
    deadline = time.monotonic() + SECONDS_TO_LET_GO
    while True:
        try:
            run("delpart", device, str(number))
            return
        except LabError as error:
            if "busy" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def detach_loop_devices(folder: Path) -> None:
    """Unmount and detach every loop device whose file lies, or lay, in a folder."""
    listed = json.loads(run("losetup", "--json", "--list", "-O", "NAME,BACK-FILE") or '{"loopdevices": []}')
    for entry in listed["loopdevices"]:
        shown = str(entry["back-file"])
        if shown.startswith(f"{folder}/"):
            for mount_point in _mount_points(entry["name"]):
                run("umount", mount_point)
            if not _detach(entry["name"], shown, SECONDS_TO_LET_GO):
                raise LabError(
                    f"{entry['name']} is in use; end what holds it (lsblk {entry['name']}) and run this again"
                )


def _mount_points(device: str) -> list[str]:
    """Return where a disk or its partitions are mounted, the last mount first (proc(5), /proc/PID/mountinfo)."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    fields = [(line.partition(" - ")[0].split(), line.partition(" - ")[2].split()) for line in mounts]
    found = [here[4] for here, there in fields if re.fullmatch(rf"{device}(p\d+)?", there[1])]
    return [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point) for point in reversed(found)]
