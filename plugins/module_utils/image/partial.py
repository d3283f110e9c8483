# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the file of an interrupted capture: an image file without an end. Nothing in it is trusted before it was hashed."""

from __future__ import annotations

from ..errors import ImagingError
from .header import MAX_HEADER_SIZE, ImageHeader
from .index import Index, Row
from .reader import ByteSource, StoredRecords
from .record import FIELDS, HEADER_MAGIC, MAX_RECORD_HEADER_SIZE, RECORD_MAGIC, SKIPPABLE, USED


class PartialImage(StoredRecords):
    """The records at the start of a file, up to the first incomplete one; ``index`` has a row for each used chunk."""

    def __init__(self, source: ByteSource) -> None:
        """Read and hash all records; raises ImagingError when there is no header."""
        super().__init__(source)
        size = self._payload_size(0, HEADER_MAGIC, MAX_HEADER_SIZE)
        self.packed_header = self._skippable(0, SKIPPABLE.size + size, HEADER_MAGIC, MAX_HEADER_SIZE)
        self.header = ImageHeader.unpack(self.packed_header)
        self.index = Index(self.header.geometry)
        offset = SKIPPABLE.size + size
        try:
            for chunk in range(self.header.geometry.chunk_count):
                offset = self._read_record(chunk, offset)
        except ImagingError:
            pass  # the file ends here, or is damaged

    def _payload_size(self, offset: int, magic: int, largest: int) -> int:
        found, size = SKIPPABLE.unpack(self.source.read_range(offset, SKIPPABLE.size))
        if found != magic or size > largest:
            raise ImagingError(f"{self.source.name}: no frame {magic:#x} was found at {offset}.")
        return int(size)

    def _read_record(self, chunk: int, offset: int) -> int:
        """Append the record of a chunk to the index if it is sound; returns the offset of the next record, raises ImagingError."""
        header_size = SKIPPABLE.size + self._payload_size(offset, RECORD_MAGIC, MAX_RECORD_HEADER_SIZE)
        if header_size < SKIPPABLE.size + FIELDS.size:
            raise ImagingError(f"{self.source.name}: no record was found at {offset}.")
        header = self._record_header(self.source.read_range(offset, header_size), offset)
        if header.chunk != chunk:
            raise ImagingError(f"{self.source.name}: the record of chunk {chunk} was expected at {offset}.")
        row = Row.of(header, offset + header_size)
        if header.flags & USED:
            self.check_frame(self.record(row))
            self.index.append(row)
        return offset + header_size + header.frame_size
