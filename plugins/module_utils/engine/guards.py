# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sectors that make a disk bootable. They are zeroed before the first write and written last, so an incomplete disk never boots.

These guards are the boot sector and both GPT headers (UEFI 2.10, section 5.3: the primary header lies in the second sector, the backup
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

    def chunks(self) -> list[int]:
        """Return the chunks that hold guards, in disk order."""
        return sorted({place // self._geometry.chunk_size for place in self._places})

    def keep(self, chunk: int) -> None:
        """Remember the guards of a chunk that already has its desired content, as the disk holds them."""
        for place in self._places:
            if place // self._geometry.chunk_size == chunk:
                self._disk.read_into(place, self._held_back(place))

    def hold_back(self, offset: int, content: memoryview) -> None:
        """Zero the guards in ``content``, which is about to be written at ``offset``, and remember them for later."""
        for place in self._places:
            if offset <= place < offset + len(content):
                guard = content[place - offset : place - offset + self._sector]
                self._held_back(place)[:] = guard
                guard[:] = bytes(self._sector)

    def _held_back(self, place: int) -> memoryview:
        return self._contents.setdefault(place, aligned_buffer(self._sector))

    def blank(self) -> None:
        """Overwrite the guards with zeros, and flush: the disk does not boot any more."""
        blank = aligned_buffer(self._sector)
        for place in self._places:
            self._disk.write_from(place, blank)
        self._disk.flush()

    def write_back(self) -> None:
        """Write the remembered guards once everything else is on the medium: the disk boots again."""
        self._disk.flush()
        for place in sorted(self._contents, reverse=True):
            self._disk.write_from(place, self._contents[place])
        self._disk.flush()
