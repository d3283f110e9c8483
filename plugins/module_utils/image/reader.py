# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads an untrusted image file: header, index and seek table must agree before the first record is read.

A reader needs only sizes and ``read_range`` of a store, so an image need not lie in a folder.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from array import array
from dataclasses import dataclass
from typing import Iterable, Iterator, Protocol

from ..errors import ImagingError
from ..reasons import DAMAGED_IMAGE, UNREADABLE_IMAGE
from ..zstd import Codec
from .header import MAX_HEADER_SIZE, ImageHeader
from .index import Index, Row, max_index_size
from .record import (
    FIELDS,
    HEADER_MAGIC,
    INDEX_MAGIC,
    MAX_RECORD_HEADER_SIZE,
    RECORD_MAGIC,
    SKIPPABLE,
    RecordHeader,
)
from .seek_table import FOOTER, SeekTable

MAX_GAP_SIZE = 256 << 10
"""Maximum gap between two records, in bytes, that is read and discarded; for a larger gap, the second record gets its own request."""

PLANNED_CHUNKS = 64
"""Maximum number of chunks whose records are announced at once."""


class BadImage(ImagingError):
    """A file is damaged, cut short, or not an image."""

    code = DAMAGED_IMAGE


class Unreadable(ImagingError):
    """An image can't be read now, which does not say that it is damaged."""

    code = UNREADABLE_IMAGE


class ByteSource(Protocol):
    """A sequence of bytes of a known size, read by ranges, by one thread at a time."""

    name: str
    size: int

    @property
    def version(self) -> object:
        """A value that differs once the file was replaced by another one."""

    def fileno(self) -> int:
        """Return the descriptor of the file, or -1 when there is none."""

    def plan(self, start: int, end: int) -> None:
        """Announce that this range will be read next, in pieces: a source that must request its bytes requests all of it at once."""

    def read_range(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``; raises BadImage when there are fewer, and Unreadable."""


class FileSource:
    """A file as a byte source."""

    def __init__(self, path: str) -> None:
        """Open ``path``; raises OSError, and BadImage when it is not a regular file."""
        self.name = path
        # Opening a FIFO or a device must neither block nor have effects.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        self._file = open(descriptor, "rb", buffering=0)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            self._file.close()
            raise BadImage(f"{path} is not a regular file, so it can't be an image.")
        self.size = found.st_size

    @property
    def version(self) -> os.stat_result:
        """The status of the opened file, which tells it from all others."""
        return os.fstat(self._file.fileno())

    def plan(self, start: int, end: int) -> None:
        """Do nothing: the system reads ahead."""

    def read_range(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BadImage(f"{self.name}: {size} bytes were expected at {offset}, and the file ends at {self.size}.")
        parts = []
        while size:
            part = os.pread(self._file.fileno(), size, offset)
            if not part:
                raise BadImage(f"{self.name} became shorter while it was read: something else writes to it. {REPAIR}")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Record:
    """The header and the frame of a record, as stored in the file."""

    header: RecordHeader
    frame: memoryview


class StoredRecords:
    """The records of a complete or partial image file: ``header``, ``packed_header``, ``index``, and each record on request."""

    packed_header: bytes
    header: ImageHeader
    index: Index

    def __init__(self, source: ByteSource) -> None:
        self.source = source

    def _skippable(self, offset: int, stored: int, magic: int, largest: int) -> bytes:
        if not SKIPPABLE.size <= stored <= largest + SKIPPABLE.size:
            raise BadImage(f"{self.source.name}: a frame at {offset} has the impossible size of {stored} bytes.")
        data = self.source.read_range(offset, stored)
        found, size = SKIPPABLE.unpack_from(data)
        if found != magic or size != stored - SKIPPABLE.size:
            raise BadImage(
                f"{self.source.name}: at {offset} a skippable frame {magic:#x} was expected and {found:#x} was found."
            )
        return data[SKIPPABLE.size :]

    def record(self, row: Row) -> Record:
        """Return the record of a row of the index. Its header is checked against the row; its frame is not hashed yet."""
        offset = row.record_offset
        header_size = row.frame_offset - offset
        data = self.source.read_range(offset, header_size + row.frame_size)
        header = self._record_header(data[:header_size], offset)
        if Row.of(header, row.frame_offset) != row:
            raise BadImage(f"{self.source.name}: the record of chunk {row.chunk} and the index disagree. {REPAIR}")
        return Record(header, memoryview(data)[header_size:])

    def _record_header(self, data: bytes, offset: int) -> RecordHeader:
        magic, size = SKIPPABLE.unpack_from(data)
        if magic != RECORD_MAGIC or size != len(data) - SKIPPABLE.size:
            raise BadImage(f"{self.source.name}: no record was found at {offset}. {REPAIR}")
        try:
            return RecordHeader.unpack(data[SKIPPABLE.size :], self.header.geometry, self.header.image_id)
        except ImagingError as error:
            raise BadImage(f"{self.source.name}: {error} {REPAIR}") from error

    def records(self, start: int, end: int) -> Iterator[Record]:
        """Yield the records of the used chunks in [start, end), like :meth:`record`."""
        planned = 0
        for row in self.index.rows_between(start, end):
            if row.record_offset >= planned:
                planned = self.plan(self.index.rows_between(row.chunk, min(end, row.chunk + PLANNED_CHUNKS)))
            yield self.record(row)

    def plan(self, rows: Iterable[Row]) -> int:
        """Announce that the records of these rows will be read next, as far as they lie close to each other; returns where these end."""
        start = end = -1
        for row in rows:
            if end >= 0 and not 0 <= row.record_offset - end < MAX_GAP_SIZE:
                break
            start = row.record_offset if start < 0 else start
            end = row.frame_offset + row.frame_size
        self.source.plan(start, end)
        return end

    def check_frame(self, record: Record) -> None:
        """Raise BadImage unless a record's frame has the hash that its header says."""
        if hashlib.sha256(record.frame).digest() != record.header.frame_hash:
            raise BadImage(f"{self.source.name}: the frame of chunk {record.header.chunk} is damaged. {REPAIR}")


class ImageReader(StoredRecords):
    """An opened image: ``header``, ``index``, ``packed_header`` and ``packed_index`` (their bytes), ``root_digest``, and its records on request."""

    def __init__(self, source: ByteSource, like: Index | None = None) -> None:
        """Check the structure of the file, but no record; raises BadImage with the file's name and the problem.

        With ``like``, only an image of a disk with this geometry is accepted, whose index is at most twice as large: that bounds the memory for
        an untrusted file.
        """
        super().__init__(source)
        try:
            self._open(like)
        except (BadImage, Unreadable):
            raise
        except ImagingError as error:
            raise BadImage(f"{source.name}: {error}") from error

    def _open(self, like: Index | None) -> None:
        table_size = self._seek_table_size()
        header_size = SKIPPABLE.size + self._skippable_size(0)
        self.packed_header = self._skippable(0, header_size, HEADER_MAGIC, MAX_HEADER_SIZE)
        self.header = ImageHeader.unpack(self.packed_header)
        geometry = self.header.geometry
        if like is not None and like.geometry != geometry:
            raise BadImage(
                f"{self.source.name} is the image of another disk: its sizes are {geometry.to_json()}, expected {like.geometry.to_json()}."
            )
        # Checked before the table is read, because only the header bounds its size.
        if table_size != SeekTable.size_of(2 + 2 * geometry.chunk_count):
            raise BadImage(f"{self.source.name}: the seek table does not have two frames for each chunk of the disk.")
        table = SeekTable.unpack(self.source.read_range(self.source.size - table_size, table_size))
        stored, content = table.stored, table.content
        if sum(stored) + table_size != self.source.size or stored[0] != header_size:
            raise BadImage(f"{self.source.name} is not as long as its seek table says: it was cut short or damaged.")
        if content[0] or any(content[1::2]):
            raise BadImage(f"{self.source.name}: the seek table gives content to frames that have none.")
        for chunk, length in enumerate(content[2::2]):
            if length != geometry.length(chunk):
                raise BadImage(f"{self.source.name}: the seek table gives chunk {chunk} a length of {length} bytes.")
        index_offset = self.source.size - table_size - stored[-1]
        largest = max_index_size(geometry) if like is None else 2 * like.packed_size
        self.packed_index = self._skippable(index_offset, stored[-1], INDEX_MAGIC, largest)
        self._read_index(stored)
        self.stored_bytes = self.source.size

    def _seek_table_size(self) -> int:
        size = self.source.size
        if size < FOOTER.size:
            raise BadImage(f"{self.source.name} has only {size} bytes: it is not an image.")
        return SeekTable.packed_size(self.source.read_range(size - FOOTER.size, FOOTER.size), size)

    def _read_index(self, stored: array[int]) -> None:
        """Unpack the index and check each of its rows against the seek table."""
        ends = itertools.accumulate(stored)
        position = -1
        end = 0

        def check_row(row: Row) -> None:
            nonlocal position, end
            frame = 2 + 2 * row.chunk
            while position < frame:
                end = next(ends)
                position += 1
            if row.frame_offset + row.frame_size != end or stored[frame] != row.frame_size:
                raise BadImage(f"{self.source.name}: index and seek table disagree on where chunk {row.chunk} lies.")

        self.index = Index.unpack(self.packed_index, self.packed_header, self.header.geometry, check_row)
        self.root_digest = self.index.root_digest()

    def all_records(self) -> Iterator[Record]:
        """Yield every record of the file in file order, which is disk order, including those of unused chunks."""
        offset = SKIPPABLE.size + self._skippable_size(0)
        self.source.plan(offset, self.source.size)
        for chunk in range(self.header.geometry.chunk_count):
            start = self.source.read_range(offset, SKIPPABLE.size)
            size = SKIPPABLE.size + SKIPPABLE.unpack(start)[1]
            if not SKIPPABLE.size + FIELDS.size <= size <= SKIPPABLE.size + MAX_RECORD_HEADER_SIZE:
                raise BadImage(f"{self.source.name}: no record was found at {offset}. {REPAIR}")
            rest = self.source.read_range(offset + len(start), size - len(start))
            header = self._record_header(start + rest, offset)
            row = self.index.find(chunk)
            known = (row.flags, row.ranges, row.content_hash) if row else (0, b"", header.content_hash)
            if header.chunk != chunk or known != (header.flags, header.ranges, header.content_hash):
                raise BadImage(f"{self.source.name}: the record of chunk {chunk} and the index disagree. {REPAIR}")
            yield Record(header, memoryview(self.source.read_range(offset + size, header.frame_size)))
            offset += size + header.frame_size

    def _skippable_size(self, offset: int) -> int:
        size: int = SKIPPABLE.unpack(self.source.read_range(offset, SKIPPABLE.size))[1]
        return size


REPAIR = "The image can't be used: restore it from a backup, or capture it again."


def check_record(reader: ImageReader, record: Record, codec: Codec, room: memoryview) -> None:
    """Raise BadImage unless a record's frame decompresses to the content that its header says; ``room`` is a buffer for at least a chunk."""
    header = record.header
    reader.check_frame(record)
    content = room[: header.content_size]
    try:
        codec.decompress_into(record.frame, content)
    except ImagingError as error:
        raise BadImage(f"Chunk {header.chunk}: {error} {REPAIR}") from error
    if hashlib.sha256(content).digest() != header.content_hash:
        raise BadImage(
            f"The frame of chunk {header.chunk} decompresses to something else than its record says. {REPAIR}"
        )
