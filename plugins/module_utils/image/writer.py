# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes an image file, record by record, into the file of :mod:`.staged_file`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Any, Mapping, Sequence

from ..errors import ImagingError
from ..zstd import Codec
from .copy import copy_range
from .header import ImageHeader
from .index import Index, Row
from .record import FIELDS, HEADER_MAGIC, INDEX_MAGIC, RECORD_MAGIC, SKIPPABLE, RecordHeader, zeros_hash
from .seek_table import SeekTable
from .staged_file import StagedFile

SUFFIX = ".img.zst"
UNUSED_LEVEL = 3


class ImageWriter:
    """Writes the records of used chunks in ascending order, and those of the unused chunks in between.

    The file only grows at its end.
    """

    def __init__(self, staged: StagedFile, header: ImageHeader, codec: Codec, header_room: int = 0) -> None:
        """Begin a file, with a header of at least ``header_room`` bytes; raises OSError."""
        self.staged = staged
        self.header = header
        self._packed_header = header.pack(header_room)
        self.index = Index(header.geometry)
        self._codec = codec
        self._seek_table = SeekTable()
        self._unused: dict[int, tuple[RecordHeader, bytes]] = {}
        self._position = 0
        self._next = 0
        self._file = staged.file
        self._skippable(HEADER_MAGIC, self._packed_header)

    @property
    def next_chunk(self) -> int:
        """The first chunk that is not written yet."""
        return self._next

    @property
    def stored_bytes(self) -> int:
        """Return the size of the file so far, in bytes."""
        return self._position

    def append(self, header: RecordHeader, frame: bytes | memoryview, stored: tuple[int, int] | None = None) -> None:
        """Write the record of the next used chunk; the caller has checked the frame's hash. Raises OSError, ImagingError.

        ``stored``: descriptor of a file that has the frame already, and its offset there; the file system then copies it.
        """
        if header.chunk < self._next:
            raise ImagingError(f"The record of chunk {header.chunk} came after that of chunk {self._next - 1}.")
        self._fill(header.chunk)
        self.index.append(Row.of(header, self._position + SKIPPABLE.size + FIELDS.size + len(header.ranges)))
        self._record(header, frame, stored)

    def _record(self, header: RecordHeader, frame: bytes | memoryview, stored: tuple[int, int] | None = None) -> None:
        self._skippable(RECORD_MAGIC, header.pack())
        if stored is None or not copy_range(*stored, self._file, len(frame)):
            self._file.write(frame)
        self._position += len(frame)
        self._seek_table.add(len(frame), header.content_size)
        self._next = header.chunk + 1

    def _skippable(self, magic: int, payload: bytes) -> None:
        self._file.write(SKIPPABLE.pack(magic, len(payload)))
        self._file.write(payload)
        self._position += SKIPPABLE.size + len(payload)
        self._seek_table.add(SKIPPABLE.size + len(payload), 0)

    def _fill(self, end: int) -> None:
        """Write records of unused chunks up to chunk ``end``."""
        for chunk in range(self._next, end):
            length = self.header.geometry.length(chunk)
            if length not in self._unused:
                self._unused[length] = self._make_unused(length)
            template, frame = self._unused[length]
            self._record(replace(template, chunk=chunk), frame)

    def _make_unused(self, length: int) -> tuple[RecordHeader, bytes]:
        frame = self._codec.compress(memoryview(bytearray(length)), UNUSED_LEVEL)
        frame_hash = hashlib.sha256(frame).digest()
        return RecordHeader(
            chunk=0,
            flags=0,
            ranges=b"",
            content_size=length,
            content_hash=zeros_hash(length),
            frame_size=len(frame),
            frame_hash=frame_hash,
            image_id=self.header.image_id,
        ), frame

    def finish(self, totals: Mapping[str, Any], bad_ranges: Sequence[Mapping[str, Any]] = ()) -> bytes:
        """Write the end of the file and flush it to the medium; returns the root digest.

        ``bad_ranges`` are added to the header, which must have room for them.
        """
        self._fill(self.header.geometry.chunk_count)
        if bad_ranges:
            self._rewrite_header(replace(self.header, bad_ranges=bad_ranges))
        self.index.totals = dict(totals)
        self._skippable(INDEX_MAGIC, self.index.pack(self._packed_header))
        self._file.write(self._seek_table.pack())
        self._position = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.index.root_digest()

    def _rewrite_header(self, header: ImageHeader) -> None:
        packed = header.pack(len(self._packed_header))
        if len(packed) != len(self._packed_header):
            raise ImagingError(
                f"The list of what can't be read takes {len(packed)} bytes and the image's header has room for {len(self._packed_header)}."
            )
        self._packed_header = packed
        self._file.seek(SKIPPABLE.size)
        self._file.write(packed)
        self._file.seek(self._position)
