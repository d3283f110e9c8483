# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provides a block device of one partition, for programs that can't work on a part of a disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import Iterator

from ..errors import ImagingError
from .command import RunCommand
from .kernel_partitions import kernel_partitions
from .partition_table import Partition

BLKFLSBUF = 0x1261
"""An ioctl of linux/fs.h: drop the kernel's cache of a block device."""


class NoNode(ImagingError):
    """A partition has no block device, and none can be made."""


@contextlib.contextmanager
def partition_node(run: RunCommand, disk: str, partition: Partition, writable: bool = False) -> Iterator[str]:
    """Provide a block device of a partition of ``disk``, a block device or regular file; raises NoNode, MissingTool.

    It is the kernel's own if that agrees with the table, otherwise a temporary loop device.
    """
    node = kernel_node(disk, partition)
    if node is not None:
        drop_cache(node)
        yield node
        return
    with loop_device(run, disk, partition.start, partition.size, writable) as node:
        yield node


def kernel_node(disk: str, partition: Partition) -> str | None:
    """Return the kernel's block device of a partition, or None unless it has the same start and size."""
    try:
        known = kernel_partitions(disk).get(partition.number)
        if known and (known.start, known.size) == (partition.start, partition.size):
            found = os.stat(known.node)
            device = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
            return known.node if stat.S_ISBLK(found.st_mode) and device == known.device else None
    except OSError:
        pass
    return None


@contextlib.contextmanager
def loop_device(run: RunCommand, path: str, offset: int, size: int, writable: bool = False) -> Iterator[str]:
    """Provide a loop device of ``size`` bytes at ``offset`` of a block device or file; raises NoNode, MissingTool."""
    place = ["--offset", str(offset), "--sizelimit", str(size)]
    access = [] if writable else ["--read-only"]
    result = run(["losetup", "--find", "--show", *access, *place, path])
    node = result.out.strip()
    if result.rc or not node.startswith("/dev/"):
        raise NoNode(f"no loop device can be made ({result.complaint()})")
    try:
        device = open(node, "rb", buffering=0)
    except OSError as error:
        raise NoNode(f"no loop device can be opened ({error.strerror})") from error
    finally:
        # A loop device that is detached while open disappears when it is closed, even if this process is killed.
        run(["losetup", "--detach", node])
    with device:
        yield node


def drop_cache(node: str) -> None:
    """Drop the kernel's cache of a block device; each partition and the whole disk have separate caches."""
    try:
        with open(node, "rb", buffering=0) as device:
            fcntl.ioctl(device, BLKFLSBUF)
    except OSError:
        pass  # a regular file has no such cache, and an ordinary user may not drop it


def flush(path: str) -> None:
    """Flush a device or file to the medium, because the machine may be switched off next.

    It is opened for reading only, which is enough for fsync(2): after a writable descriptor is closed, udev examines the disk again.
    """
    with open(path, "rb", buffering=0) as device:
        os.fsync(device)
