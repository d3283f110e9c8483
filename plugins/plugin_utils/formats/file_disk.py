# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A regular file that holds a disk, read by the controller's own means, whatever system that is."""

import os

from ...module_utils.disk.gpt import GPT_SIGNATURE, GptHeader
from ...module_utils.disk.raw_io import DiskError, ReadError, is_hole


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
        header = GptHeader.read(lambda offset, length: os.pread(self._descriptor, length, offset), 1, size)
        return (header.backup + 1) * size if header and header.sound else 0

    def is_hole(self, offset: int, length: int) -> bool:
        """Whether the file has no data at all in these bytes."""
        return is_hole(self._descriptor, offset, length)

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
        os.close(self._descriptor)
