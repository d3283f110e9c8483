# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The geometry of a disk in an image: size, sectors, chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from ..errors import ImagingError

UNIT = 512
"""Used ranges are counted in units of this many bytes, the smallest sector size."""

DEFAULT_CHUNK_SIZE = 4 << 20
MIN_CHUNK_SIZE = 64 << 10
MAX_CHUNK_SIZE = 16 << 20
MAX_DISK_SIZE = 1 << 50
MAX_CHUNKS = 1 << 23
"""A disk of 32 TiB in chunks of 4 MiB. Each chunk takes about 200 bytes of an image, even if it is unused."""

SECTOR_SIZES = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Geometry:
    """Sizes in bytes. Chunk ``i`` lies at ``i * chunk_size``; the last one may be short."""

    disk_size: int
    logical_sector_size: int
    physical_sector_size: int
    chunk_size: int = DEFAULT_CHUNK_SIZE

    @property
    def chunk_count(self) -> int:
        """The number of chunks of the disk."""
        return -(-self.disk_size // self.chunk_size)

    def offset(self, chunk: int) -> int:
        """Return the offset of a chunk on the disk, in bytes."""
        return chunk * self.chunk_size

    def length(self, chunk: int) -> int:
        """Return the length of a chunk in bytes."""
        return min(self.chunk_size, self.disk_size - chunk * self.chunk_size)

    def to_json(self) -> dict[str, int]:
        """Return the form that an image's header contains."""
        return {
            "size": self.disk_size,
            "logical_sector_size": self.logical_sector_size,
            "physical_sector_size": self.physical_sector_size,
            "chunk_size": self.chunk_size,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Geometry:
        """Read the form of :meth:`to_json` from an untrusted header; raises ImagingError."""
        numbers = []
        for name in ("size", "logical_sector_size", "physical_sector_size", "chunk_size"):
            number = value.get(name)
            if not isinstance(number, int) or isinstance(number, bool):
                raise ImagingError(f"The disk geometry gives {number!r} as {name}: expected a whole number.")
            numbers.append(number)
        geometry = cls(*numbers)
        geometry.check()
        return geometry

    def check(self) -> None:
        """Raise ImagingError unless every size is valid for a disk."""
        if not 0 < self.disk_size <= MAX_DISK_SIZE or self.disk_size % UNIT:
            raise ImagingError(f"Invalid disk size {self.disk_size}: expected a positive multiple of {UNIT}.")
        for size in (self.logical_sector_size, self.physical_sector_size):
            # Physical sectors beyond 4 KiB exist (optimal erase blocks reported as such); the logical ones are what we write.
            if size < UNIT or size & (size - 1) or size > MAX_CHUNK_SIZE:
                raise ImagingError(f"Invalid sector size {size}.")
        if self.logical_sector_size not in SECTOR_SIZES:
            raise ImagingError(
                f"A logical sector size of {self.logical_sector_size} bytes is not one of {SECTOR_SIZES}."
            )
        chunk = self.chunk_size
        if not MIN_CHUNK_SIZE <= chunk <= MAX_CHUNK_SIZE or chunk & (chunk - 1):
            raise ImagingError(
                f"A chunk size of {chunk} bytes is out of bounds: expected a power of two from "
                f"{MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE}."
            )
        if self.chunk_count > MAX_CHUNKS:
            raise ImagingError(
                f"A disk of {self.disk_size} bytes is too large: expected at most {MAX_CHUNKS * chunk}, in chunks of {chunk} bytes."
            )
