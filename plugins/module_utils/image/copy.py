# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies bytes between two files of the store with copy_file_range(2), so that the file system can share the blocks."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of the file system itself, for which another way of copying would not help."""


def copy_range(source: int, offset: int, target: BinaryIO, length: int) -> bool:
    """Copy ``length`` bytes at ``offset`` of the descriptor ``source`` to the position of ``target``, which moves behind them.

    Returns False, with ``target`` at its old position, when the system or the file system does not support that. Raises OSError when the file
    system is full or fails.
    """
    copy = getattr(os, "copy_file_range", None)
    if copy is None or source < 0:  # macOS
        return False
    target.flush()
    start = target.tell()
    done = 0
    while done < length:
        try:
            count = copy(source, target.fileno(), length - done, offset + done, start + done)
        except OSError as error:
            if error.errno in FAILURES:
                raise
            count = 0
        if not count:
            target.seek(start)
            return False
        done += count
    target.seek(start + length)
    return True
