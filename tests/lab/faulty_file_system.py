# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A FUSE file system with one file, which passes everything on to another file, but for what is to fail, and as slowly as it is told to.

Usage: faulty_file_system.py MOUNT_POINT BACKING_FILE FAULTS

FAULTS is a JSON file that is read anew at each request: "read" and "write" are lists of ranges in bytes, and with "gone" everything fails.
"read_rate" and "write_rate" are bytes a second, 0 for no limit; reads and writes wait for one another, as on a disk.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time
from typing import Any

import mfusepy

NAME = "disk"


def serve(mount_point: str, backing_file: str, faults: str) -> None:
    """Be the file system, until it is unmounted."""

    free_at = time.monotonic()

    def check(kind: str, offset: int, size: int) -> None:
        nonlocal free_at
        with open(faults, encoding="utf-8") as file:
            told = json.load(file)
        rate = told[f"{kind}_rate"]
        if rate:
            free_at = max(free_at, time.monotonic()) + size / rate
            time.sleep(max(0.0, free_at - time.monotonic()))
        if told["gone"] or any(start < offset + size and offset < end for start, end in told[kind]):
            raise mfusepy.FuseOSError(errno.EIO)

    class Through(mfusepy.Operations):
        """One file, by way of its descriptor."""

        use_ns = True

        def __init__(self) -> None:
            self._file = os.open(backing_file, os.O_RDWR)

        def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path != f"/{NAME}":
                raise mfusepy.FuseOSError(errno.ENOENT)
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": os.fstat(self._file).st_size}

        def readdir(self, path: str, fh: Any) -> list[str]:
            return [".", "..", NAME]

        def open(self, path: str, flags: int) -> int:
            return 0

        def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
            check("read", offset, size)
            return os.pread(self._file, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: Any) -> int:
            check("write", offset, len(data))
            return os.pwrite(self._file, data, offset)

        def fsync(self, path: str, datasync: int, fh: Any) -> int:
            check("write", 0, 0)
            os.fsync(self._file)
            return 0

    mfusepy.FUSE(Through(), mount_point, foreground=True, nothreads=True, direct_io=True, fsname="faulty-disk")


if __name__ == "__main__":
    serve(*sys.argv[1:])
