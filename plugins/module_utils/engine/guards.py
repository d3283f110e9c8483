# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a disk bootable, so that none boots half-way: down before the first write, up after the last one.

The guards are the boot sector and both GPT headers (UEFI 2.10, section 5.3: the primary header lies in the second sector, the backup
header in the last one).
"""

from __future__ import annotations

from ..disk.raw_io import RawDisk, aligned_buffer
from ..image.geometry import Geometry


class Guards:
    """The guards of one held disk. Raises DiskError."""

    def __init__(self, disk: RawDisk, geometry: Geometry) -> None:
        self._disk = disk
        self._sector = geometry.logical_sector_size
        self._places = (0, self._sector, geometry.disk_size - self._sector)
        self._geometry = geometry
        self._contents: dict[int, memoryview] = {}
        self.down = False

    def chunks(self) -> list[int]:
        """The chunks that hold them, in disk order."""
        return sorted({place // self._geometry.chunk_size for place in self._places})

    def keep(self, chunk: int) -> None:
        """Remember the guards of a chunk that holds its goal, as they are on the disk."""
        for place in self._places:
            if place // self._geometry.chunk_size == chunk:
                self._disk.read_into(place, self._content(place))

    def take_out(self, offset: int, content: memoryview) -> None:
        """Take the guards out of what is about to be written at ``offset``, and remember them for later."""
        for place in self._places:
            if offset <= place < offset + len(content):
                guard = content[place - offset : place - offset + self._sector]
                self._content(place)[:] = guard
                guard[:] = bytes(self._sector)

    def _content(self, place: int) -> memoryview:
        return self._contents.setdefault(place, aligned_buffer(self._sector))

    def lower(self) -> None:
        """Make the disk unbootable, durably."""
        blank = aligned_buffer(self._sector)
        for place in self._places:
            self._disk.write_from(place, blank)
        self._disk.flush()
        self.down = True

    def raise_again(self) -> None:
        """Make the disk bootable, once everything else is on the medium."""
        self._disk.flush()
        for place in sorted(self._contents, reverse=True):
            self._disk.write_from(place, self._contents[place])
        self._disk.flush()
        self.down = False
