# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seek table of the zstd seekable format, version 0.1.0.

Source: zstd's contrib/seekable_format/zstd_seekable_compression_format.md. The table has one row for each frame of the file. Skippable
frames have a decompressed size of 0. There are no checksums (descriptor 0).
"""

from __future__ import annotations

import struct
import sys
from array import array

from ..errors import ImagingError
from .geometry import MAX_CHUNKS
from .record import SEEK_TABLE_MAGIC, SKIPPABLE

FOOTER = struct.Struct("<IBI")
"""Number of frames, descriptor, magic."""

FOOTER_MAGIC = 0x8F92EAB1
ROW_SIZE = 8
MAX_ROWS = 2 + 2 * MAX_CHUNKS
"""Header, index, and two frames for each chunk; fewer than the format's own bound (ZSTD_SEEKABLE_MAXFRAMES, 2^27)."""


class SeekTable:
    """Stored and decompressed sizes of all frames before the table itself, in file order."""

    def __init__(self) -> None:
        self._sizes = array("I")

    def add(self, stored: int, content: int) -> None:
        """Add the next frame: bytes in the file, bytes of content (0 for a skippable frame)."""
        self._sizes.append(stored)
        self._sizes.append(content)

    @property
    def stored(self) -> array[int]:
        """The stored size of each frame, in bytes."""
        return self._sizes[0::2]

    @property
    def content(self) -> array[int]:
        """The decompressed size of each frame, in bytes."""
        return self._sizes[1::2]

    def pack(self) -> bytes:
        """Return the table as the last skippable frame of a file."""
        rows = self._sizes
        if sys.byteorder == "big":
            rows = array("I", rows)
            rows.byteswap()
        count = len(rows) // 2
        head = SKIPPABLE.pack(SEEK_TABLE_MAGIC, self.size_of(count) - SKIPPABLE.size)
        return b"".join((head, memoryview(rows).cast("B"), FOOTER.pack(count, 0, FOOTER_MAGIC)))

    @staticmethod
    def size_of(rows: int) -> int:
        """Return the size of the skippable frame of a table with so many rows."""
        return SKIPPABLE.size + rows * ROW_SIZE + FOOTER.size

    @staticmethod
    def packed_size(footer: bytes, file_size: int) -> int:
        """Return the size of the skippable frame, from a file's last nine bytes; raises ImagingError when there is no such table."""
        count, descriptor, magic = FOOTER.unpack(footer)
        if magic != FOOTER_MAGIC:
            raise ImagingError(
                "The file does not end with a seek table: it is cut short, or it is not an image of this collection."
            )
        size = SeekTable.size_of(count)
        if descriptor or count > MAX_ROWS or size > file_size:
            raise ImagingError(
                f"The seek table announces {count} frames with descriptor {descriptor:#x}, which can't be."
            )
        return size

    @classmethod
    def unpack(cls, data: bytes) -> SeekTable:
        """Read a packed table; raises ImagingError."""
        magic, size = SKIPPABLE.unpack_from(data)
        if magic != SEEK_TABLE_MAGIC or size != len(data) - SKIPPABLE.size:
            raise ImagingError("The seek table's head and its footer disagree: the image file is damaged.")
        table = cls()
        table._sizes.frombytes(data[SKIPPABLE.size : len(data) - FOOTER.size])
        if sys.byteorder == "big":
            table._sizes.byteswap()
        return table
