# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity of a disk, by which another disk in its place is noticed, even without serial number and WWN."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import uuid
from typing import Any, Iterator, Mapping

from ..errors import ImagingError
from ..reasons import ANOTHER_DISK, RESTARTED
from .command import RunCommand
from .devices import Disk, disk_at, resolve
from .gpt import BOOT_SIGNATURE, GPT_SIGNATURE
from .raw_io import logical_sector_size

IDENTITY = {
    "size": "int",
    "serial": "str",
    "wwn": "str",
    "logical_sector_size": "int",
    "diskseq": "int",
    "boot_id": "str",
    "table": "str",
}
"""The names and types of the values that identify a disk. An unknown value is empty or 0, and is compared like any other."""

DISK_ARGUMENTS: dict[str, Any] = {
    "device": {"type": "path", "required": True},
    "expect": {
        "type": "dict",
        "options": {name: {"type": kind} for name, kind in IDENTITY.items()},
    },
}
"""The arguments of all modules that work on one disk. The documentation fragment ``disk`` describes them."""

BLKGETDISKSEQ = 0x80081280
"""An ioctl of linux/fs.h, since Linux 5.15: a number that no other disk gets until the next boot."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"

UNREADABLE = "unreadable"


class AnotherDisk(ImagingError):
    """A disk is not the selected one, or can't be identified."""

    code = ANOTHER_DISK


def identify(disk: Disk, descriptor: int) -> dict[str, Any]:
    """Return the identity of an opened disk. Serial number and WWN come from ``disk``, the other values from the descriptor."""
    sector_size = logical_sector_size(descriptor)
    return {
        "size": os.lseek(descriptor, 0, os.SEEK_END),
        "serial": disk.serial,
        "wwn": disk.wwn,
        "logical_sector_size": sector_size,
        "diskseq": _sequence_number(descriptor),
        "boot_id": _boot_id(),
        "table": _table(descriptor, sector_size),
    }


def look_at(disk: Disk) -> dict[str, Any]:
    """Return the identity of a disk that is not open; raises ImagingError when it can't be opened."""
    with _opened(disk.path) as descriptor:
        return identify(disk, descriptor)


@contextlib.contextmanager
def selected_disk(run: RunCommand, device: str, expect: Mapping[str, Any] | None) -> Iterator[Disk]:
    """Return the disk at ``device`` for work that can't hold it; raises AnotherDisk unless ``expect`` identifies it (:func:`check_same`).

    The disk stays open meanwhile: the kernel does not give its name to another disk as long as it is open.
    """
    path, _found = resolve(device)
    with _opened(path) as descriptor:
        disk = disk_at(run, path)
        check_same(path, expect, identify(disk, descriptor))
        yield disk


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImagingError(f"{path} can't be opened: {error.strerror}. Reading a disk needs root.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_same(path: str, expected: Mapping[str, Any] | None, found: Mapping[str, Any]) -> None:
    """Raise AnotherDisk unless a disk is the selected one; values that are None or missing in ``expected`` are not compared."""
    for name in sorted(IDENTITY, key=lambda name: name != "boot_id"):
        was, now = (expected or {}).get(name), found[name]
        if was is None or was == now:
            continue
        if name == "boot_id":
            raise AnotherDisk(
                f"This machine was restarted since {path} was selected, so another disk may have that name now. It was not touched. "
                "Run again, and look at the disks once more.",
                [RESTARTED],
            )
        raise AnotherDisk(
            f"{path} is not the disk that was selected: its {name} was {was!r} and is now {now!r}. "
            "It was not touched. Disks may have been plugged in or swapped: run again."
        )


def _sequence_number(descriptor: int) -> int:
    """Return the kernel's number of a disk, 0 before Linux 5.15; for a regular file, its inode number."""
    status = os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return status.st_ino
    try:
        answer = fcntl.ioctl(descriptor, BLKGETDISKSEQ, bytes(8))
    except OSError:
        return 0
    number: int = struct.unpack("=Q", answer)[0]
    return number


def _boot_id() -> str:
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _table(descriptor: int, sector_size: int) -> str:
    """Return kind and id of the partition table, empty when there is none."""
    try:
        first, second = (os.pread(descriptor, sector_size, place * sector_size) for place in (0, 1))
    except OSError:
        return UNREADABLE
    if second[:8] == GPT_SIGNATURE:
        return f"gpt {uuid.UUID(bytes_le=second[56:72])}"
    if first[510:512] == BOOT_SIGNATURE:
        return f"dos {struct.unpack_from('<I', first, 440)[0]:08x}"
    return ""
