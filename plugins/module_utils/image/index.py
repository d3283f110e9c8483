# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of an image: one packed row for each used chunk, their used ranges, totals, and the root digest.

Chunks without a row are unused. The image file contains the same bytes that are sent at the start of a restore.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Union

from ..errors import ImagingError
from ..reasons import DAMAGED_IMAGE
from .geometry import UNIT, Geometry
from .record import FIELDS, RANGE, SKIPPABLE, USED, RecordHeader, check_flags, max_frame_size, unpack_ranges

MAGIC = b"FLIMIDX1"
HEAD = struct.Struct("<8sQQI32s32s")
"""Magic, rows, bytes of used ranges, bytes of totals (JSON), SHA-256 of packed header and totals, root digest."""

ROW = struct.Struct("<IBBHIQI32s")
"""Chunk, flags, a reserved zero, count of used ranges, where they begin (in ranges), frame offset in the file, frame size, SHA-256 of the content."""

MAX_TOTALS_SIZE = 1 << 20

MAX_INDEX_SIZE = 512 << 20
"""Bytes: the index of a disk of 8 TiB with a hundred used ranges in each chunk of 4 MiB. Both ends keep it in memory."""

NO_HASH = bytes(32)
"""In place of the hash of a chunk that was not hashed yet (``image.hashes``)."""

FLAGS_OFFSET, HASH_OFFSET = 4, ROW.size - len(NO_HASH)
"""Where flags and hash lie in a row."""

Buffer = Union[bytes, bytearray, memoryview]


class BadIndex(ImagingError):
    """An index contradicts itself or the disk that it describes."""

    code = DAMAGED_IMAGE


@dataclass(frozen=True)
class Row:
    """The entry of one used chunk in the index."""

    chunk: int
    flags: int
    ranges: bytes
    content_hash: bytes
    frame_offset: int = 0
    frame_size: int = 0

    @classmethod
    def of(cls, header: RecordHeader, frame_offset: int = 0) -> Row:
        """Return the entry for a record."""
        return cls(
            chunk=header.chunk,
            flags=header.flags,
            ranges=header.ranges,
            content_hash=header.content_hash,
            frame_offset=frame_offset,
            frame_size=header.frame_size,
        )

    def describes(self, header: RecordHeader) -> bool:
        """Return whether a record has the content of this entry."""
        mine = (self.chunk, self.flags, self.ranges, self.content_hash)
        return mine == (header.chunk, header.flags, header.ranges, header.content_hash)

    @property
    def hashed(self) -> bool:
        """Whether the hash of the content is known."""
        return self.content_hash != NO_HASH

    @property
    def record_offset(self) -> int:
        """The offset of the chunk's record in the file."""
        return self.frame_offset - SKIPPABLE.size - FIELDS.size - len(self.ranges)


class RootDigest:
    """Accumulates the digest of an image's content: its geometry and, for each used chunk, flags, used ranges and content hash.

    Two images of equal disks have the same digest, whatever their compression.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._hash = hashlib.sha256(b"fleet.imaging root digest 1\n")
        self._hash.update(struct.pack("<QII", geometry.disk_size, geometry.logical_sector_size, geometry.chunk_size))

    def add(self, chunk: int, flags: int, ranges: bytes, content_hash: bytes) -> None:
        """Add the next used chunk, in ascending order."""
        self._hash.update(struct.pack("<IBH", chunk, flags, len(ranges) // RANGE.size) + ranges + content_hash)

    def digest(self) -> bytes:
        """Return the digest so far, 32 bytes."""
        return self._hash.digest()


class Index:
    """Packed rows in ascending order of chunks; 56 bytes a used chunk and 4 a used range."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.totals: dict[str, Any] = {}
        self._rows: Buffer = bytearray()
        self._ranges: Buffer = bytearray()
        self._checked_root: bytes | None = None
        self.missing = 0
        """How many rows have no hash yet."""

    def __len__(self) -> int:
        """Return how many chunks are used."""
        return len(self._rows) // ROW.size

    @property
    def packed_size(self) -> int:
        """The maximum size of the packed form in bytes, with totals of any size."""
        return HEAD.size + MAX_TOTALS_SIZE + len(self._rows) + len(self._ranges)

    def append(self, row: Row) -> None:
        """Add the next used chunk; raises BadIndex when it is not beyond the last one."""
        if len(self) and row.chunk <= self.chunk_at(len(self) - 1):
            raise BadIndex(f"Chunk {row.chunk} is out of order in the index.")
        first = len(self._ranges) // RANGE.size
        packed = ROW.pack(
            row.chunk,
            row.flags,
            0,
            len(row.ranges) // RANGE.size,
            first,
            row.frame_offset,
            row.frame_size,
            row.content_hash,
        )
        if len(self._rows) + len(self._ranges) + ROW.size + len(row.ranges) > MAX_INDEX_SIZE:
            raise BadIndex(
                f"The index of this disk would take more than {MAX_INDEX_SIZE} bytes: its used space is too fragmented."
            )
        self._rows += packed  # type: ignore[operator]  # only an index being built is appended to; its buffers are bytearrays
        self._ranges += row.ranges  # type: ignore[operator]
        self.missing += not row.hashed

    def set_hash(self, chunk: int, flags: int, content_hash: bytes) -> bool:
        """Give a row its hash, and the flags that its content has; returns whether that is new. Raises BadIndex when it can't be the row's."""
        position = self.position(chunk)
        row = None if position is None else self.row_at(position)
        if position is None or row is None or content_hash == NO_HASH or not flags & USED:
            raise BadIndex(f"A hash of chunk {chunk} arrived, which is not one of a used chunk of this disk.")
        if row.hashed:
            if (row.flags, row.content_hash) != (flags, content_hash):
                raise BadIndex(f"Another hash of chunk {chunk} arrived than before.")
            return False
        check_flags(chunk, flags, row.ranges, content_hash, self.geometry.length(chunk))
        start = position * ROW.size
        # Other threads read meanwhile: a row that has its hash has its flags. The buffer of an index without hashes is a bytearray.
        self._rows[start + FLAGS_OFFSET] = flags  # type: ignore[index]
        self._rows[start + HASH_OFFSET : start + ROW.size] = content_hash  # type: ignore[index]
        self._checked_root = None
        self.missing -= 1
        return True

    def truncate(self, chunk: int) -> None:
        """Remove the rows of ``chunk`` and of all chunks after it, so that they can be appended again."""
        position = bisect.bisect_left(_Chunks(self), chunk)
        if position < len(self):
            first = struct.unpack_from("<I", self._rows, position * ROW.size + 8)[0]
            del self._ranges[first * RANGE.size :]  # type: ignore[union-attr]  # an index being built, as in append
            del self._rows[position * ROW.size :]  # type: ignore[union-attr]

    def chunk_at(self, position: int) -> int:
        """Return the chunk of row ``position``."""
        chunk: int = struct.unpack_from("<I", self._rows, position * ROW.size)[0]
        return chunk

    def row_at(self, position: int) -> Row:
        """Return row ``position``."""
        chunk, flags, _reserved, count, first, offset, size, content_hash = ROW.unpack_from(
            self._rows, position * ROW.size
        )
        ranges = bytes(self._ranges[first * RANGE.size : (first + count) * RANGE.size])
        return Row(
            chunk=chunk, flags=flags, ranges=ranges, frame_offset=offset, frame_size=size, content_hash=content_hash
        )

    def find(self, chunk: int) -> Row | None:
        """Return the row of a chunk, or None when it is unused."""
        position = self.position(chunk)
        return None if position is None else self.row_at(position)

    def position(self, chunk: int) -> int | None:
        """Return the position of a chunk's row, or None when it is unused."""
        position = bisect.bisect_left(_Chunks(self), chunk)
        return position if position < len(self) and self.chunk_at(position) == chunk else None

    def count_before(self, chunk: int) -> int:
        """Return how many of the chunks before this one are used."""
        return bisect.bisect_left(_Chunks(self), chunk)

    def __iter__(self) -> Iterator[Row]:
        """All rows, in ascending order of chunks."""
        return (self.row_at(position) for position in range(len(self)))

    def rows_between(self, start: int, end: int) -> Iterator[Row]:
        """Yield the rows of the used chunks in [start, end)."""
        chunks = _Chunks(self)
        return (
            self.row_at(position)
            for position in range(bisect.bisect_left(chunks, start), bisect.bisect_left(chunks, end))
        )

    def root_digest(self) -> bytes:
        """Return the root digest of the rows."""
        if self._checked_root is not None:
            return self._checked_root
        root = RootDigest(self.geometry)
        for row in self:
            root.add(row.chunk, row.flags, row.ranges, row.content_hash)
        return root.digest()

    def used_bytes(self) -> int:
        """Return the sum of all used ranges, in bytes."""
        return sum(self.used_in(row) for row in self)

    def used_in(self, row: Row) -> int:
        """Return the used bytes of one chunk."""
        return sum(end - start for start, end in unpack_ranges(row.ranges, self.geometry.length(row.chunk)))

    def pack(self, packed_header: bytes) -> bytes:
        """Return the index as it is stored and sent, bound to the image's packed header."""
        totals = json.dumps(self.totals, sort_keys=True).encode()
        words = hashlib.sha256(packed_header + totals).digest()
        head = HEAD.pack(MAGIC, len(self), len(self._ranges), len(totals), words, self.root_digest())
        return b"".join((head, totals, self._rows, self._ranges))

    @classmethod
    def unpack(
        cls,
        data: Buffer,
        packed_header: bytes,
        geometry: Geometry,
        check_row: Callable[[Row], None] = lambda row: None,
        hashed: bool = True,
    ) -> Index:
        """Read a packed index without copying its rows, and check each of them; raises BadIndex.

        ``check_row`` is called with each row, for further checks by the caller. Unless ``hashed``, rows need no hash yet.
        """
        view = memoryview(data)
        if len(view) < HEAD.size:
            raise BadIndex(f"An index of {len(view)} bytes is too short.")
        magic, rows, ranges, totals, words, root = HEAD.unpack_from(view)
        if magic != MAGIC:
            raise BadIndex(f"An index begins with {magic!r} where {MAGIC!r} was expected.")
        if (
            rows > geometry.chunk_count
            or totals > MAX_TOTALS_SIZE
            or HEAD.size + totals + rows * ROW.size + ranges != len(view)
        ):
            raise BadIndex(
                f"The lengths in the index ({rows} rows, {ranges} and {totals} bytes) do not add up to its {len(view)}."
            )
        packed_totals = bytes(view[HEAD.size : HEAD.size + totals])
        if hashlib.sha256(packed_header + packed_totals).digest() != words:
            raise BadIndex("The header is not the one that belongs to the index: one of them is damaged.")
        index = cls(geometry)
        index.totals = _read_totals(packed_totals)
        start = HEAD.size + totals
        packed_rows = view[start : start + rows * ROW.size]
        index._rows = packed_rows if hashed else bytearray(packed_rows)
        index._ranges = view[start + rows * ROW.size :]
        index._check(root, check_row)
        if hashed and index.missing:
            raise BadIndex(f"{index.missing} rows of the index have no hash.")
        return index

    def _check(self, root: bytes, check_row: Callable[[Row], None]) -> None:
        digest = RootDigest(self.geometry)
        before, first = -1, 0
        for position in range(len(self)):
            row = self.row_at(position)
            reserved, count, begins = struct.unpack_from("<5xBHI", self._rows, position * ROW.size)
            if not before < row.chunk < self.geometry.chunk_count:
                raise BadIndex(f"Row {position} of the index names chunk {row.chunk}, out of order or beyond the disk.")
            length = self.geometry.length(row.chunk)
            if begins != first or len(row.ranges) != count * RANGE.size:
                raise BadIndex(f"Row {position} of the index points to used ranges that are not its own.")
            if reserved or not row.flags & USED or not 0 < row.frame_size <= max_frame_size(length):
                raise BadIndex(f"Row {position} of the index (chunk {row.chunk}) has impossible flags or frame size.")
            check_flags(row.chunk, row.flags, row.ranges, row.content_hash, length)
            check_row(row)
            self.missing += not row.hashed
            digest.add(row.chunk, row.flags, row.ranges, row.content_hash)
            before, first = row.chunk, first + len(row.ranges) // RANGE.size
        if first * RANGE.size != len(self._ranges):
            raise BadIndex("The index holds used ranges that belong to no chunk.")
        if digest.digest() != root:
            raise BadIndex("The index does not match its own root digest.")
        self._checked_root = root


def max_index_size(geometry: Geometry) -> int:
    """Return the maximum size of the packed index of a disk, in bytes."""
    max_ranges = geometry.chunk_size // UNIT // 2
    return (
        min(MAX_INDEX_SIZE, geometry.chunk_count * (ROW.size + max_ranges * RANGE.size)) + HEAD.size + MAX_TOTALS_SIZE
    )


class _Chunks:
    """The chunk numbers of an index as a sequence, for bisect."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: int) -> int:
        return self._index.chunk_at(position)


def _read_totals(data: bytes) -> dict[str, Any]:
    try:
        totals = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadIndex(f"The totals of the index can't be read: {error}.") from error
    if not isinstance(totals, Mapping):
        raise BadIndex("The totals of the index are not a JSON object.")
    return dict(totals)
