# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A regular file that holds a disk, read by the controller's own means, whatever system that is."""

from __future__ import annotations

import errno
import os
import struct
import zlib

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import DiskError, ReadError

GPT_SIGNATURE = b"EFI PART"
"""At the start of the second sector (UEFI 2.10, 5.3.2)."""


class FileDisk:
    """What ``engine.capture`` needs of a disk."""

    alignment = 512

    def __init__(self, path: str) -> None:
        """Open a file; raises OSError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    @property
    def logical_sector_size(self) -> int:
        """What the file shows of it: 4096 when that is where its GPT has its header, else 512."""
        at = {size: os.pread(self._descriptor, len(GPT_SIGNATURE), size) for size in (512, 4096)}
        return 4096 if at[4096] == GPT_SIGNATURE and at[512] != GPT_SIGNATURE else 512

    @property
    def gpt_end(self) -> int:
        """Where the backup of the GPT ends, and with it the disk, as the GPT itself says; 0 when there is none (UEFI 2.10, 5.3.2)."""
        size = self.logical_sector_size
        sector = os.pread(self._descriptor, 512, size)
        if not sector.startswith(GPT_SIGNATURE) or len(sector) < 512:
            return 0
        header_size, checksum, alternate = struct.unpack_from("<II12xQ", sector, 12)
        header = sector[:16] + bytes(4) + sector[20:header_size]
        if not 92 <= header_size <= 512 or zlib.crc32(header) != checksum:
            return 0
        return int(alternate + 1) * size

    def is_hole(self, offset: int, length: int) -> bool:
        """Whether the file has no data at all in these bytes."""
        if not hasattr(os, "SEEK_DATA"):
            return False
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            return error.errno == errno.ENXIO

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset``."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done:]], offset + done)
            except OSError as error:
                raise ReadError(f"{self.path}: reading at {offset + done} failed: {error.strerror}.") from error
            if not count:
                raise DiskError(f"{self.path} became shorter while it was read.")
            done += count

    def salvage_into(self, offset: int, view: memoryview) -> list[tuple[int, int]]:
        """Nothing can be saved of a file that can't be read; says that all of it is bad."""
        return [(offset, offset + len(view))]

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
