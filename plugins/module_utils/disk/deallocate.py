# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the kernel zero or discard a range of a disk, so that its bytes need not be written.

Sources: fallocate(2) and linux/falloc.h, for files and (since Linux 4.9) block devices; linux/fs.h for BLKDISCARD.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10

BLKDISCARD = 0x1277
BLKDISCARD_RANGE = struct.Struct("=QQ")
"""Start and length in bytes."""

CAN_NOT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.ENODEV)
"""The kernel's errors when a device or file system does not support the operation, or not for this range."""


def zero_range(descriptor: int, offset: int, length: int) -> bool:
    """Make a range read as zeros; returns False when that is not supported. Raises OSError."""
    return _fallocate(descriptor, ZERO_RANGE | KEEP_SIZE, offset, length)


def discard_range(descriptor: int, is_device: bool, offset: int, length: int) -> bool:
    """Discard a range; returns False when that is not supported. Raises OSError."""
    if not is_device:
        return _fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, offset, length)
    try:
        fcntl.ioctl(descriptor, BLKDISCARD, BLKDISCARD_RANGE.pack(offset, length))
    except OSError as error:
        if error.errno in CAN_NOT:
            return False
        raise
    return True


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    # Where offsets have 32 bits by default, the function for 64 bits has a separate name.
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        return False
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if not function(descriptor, mode, offset, length):
        return True
    number = ctypes.get_errno()
    if number in CAN_NOT:
        return False
    raise OSError(number, os.strerror(number))
