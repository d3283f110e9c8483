# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record: one chunk as it is stored and sent.

In the file it is a skippable frame (RFC 8878, section 3.1.2) with the fields below, followed by one zstd frame. On a link, the same
fields and the same zstd frame are sent. All numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Iterable, Sequence

from ..errors import ImagingError
from ..reasons import DAMAGED_IMAGE
from .geometry import UNIT, Geometry

SKIPPABLE = struct.Struct("<II")
"""Head of a skippable frame: magic, size of what follows."""

HEADER_MAGIC = 0x184D2A5B
RECORD_MAGIC = 0x184D2A5C
INDEX_MAGIC = 0x184D2A5D
SEEK_TABLE_MAGIC = 0x184D2A5E

USED = 1
ZERO = 2

FIELDS = struct.Struct("<IBBHII8s32s32s")
"""Chunk, flags, a reserved zero, count of used ranges, content size, frame size, stream, SHA-256 of the masked content, SHA-256 of the frame."""

RANGE = struct.Struct("<HH")
"""One used range of a chunk, start and end in units of 512 bytes."""

IMAGE_ID_SIZE = 8
MAX_RECORD_HEADER_SIZE = FIELDS.size + RANGE.size * (1 << 14)
"""Bytes; a chunk of 16 MiB can have at most 2^14 separate ranges."""


class RecordError(ImagingError):
    """A record contradicts itself or its image."""

    code = DAMAGED_IMAGE


def max_frame_size(content_size: int) -> int:
    """Return the maximum size of a zstd frame for so much content, in bytes (ZSTD_COMPRESSBOUND of zstd.h, rounded up)."""
    return content_size + (content_size >> 8) + 1024


def pack_ranges(ranges: Iterable[tuple[int, int]], length: int) -> bytes:
    """Pack a chunk's used ranges, half-open and in bytes; the result is empty when the whole chunk of ``length`` bytes is used."""
    pairs = list(ranges)
    if pairs == [(0, length)]:
        return b""
    return b"".join(RANGE.pack(start // UNIT, -(-end // UNIT)) for start, end in pairs)


def unpack_ranges(packed: bytes, length: int) -> list[tuple[int, int]]:
    """Return the used ranges in bytes of a used chunk of ``length`` bytes; raises RecordError unless they are in order and inside the chunk."""
    if not packed:
        return [(0, length)]
    pairs = [(start * UNIT, end * UNIT) for start, end in RANGE.iter_unpack(packed)]
    before = -1
    for start, end in pairs:
        if not before < start < end <= length:
            raise RecordError(f"Used ranges out of order or outside a chunk of {length} bytes: {start} to {end}.")
        before = end
    return pairs


@lru_cache(maxsize=8)
def zeros_hash(length: int) -> bytes:
    """Return the SHA-256 of ``length`` zero bytes."""
    return hashlib.sha256(bytes(length)).digest()


@dataclass(frozen=True)
class RecordHeader:
    """The header of a record: facts of its chunk and of the frame that follows it."""

    chunk: int
    flags: int
    ranges: bytes
    content_size: int
    content_hash: bytes
    frame_size: int
    frame_hash: bytes
    image_id: bytes

    def pack(self) -> bytes:
        """Return the fields as they are stored and sent, without the head of the skippable frame."""
        return (
            FIELDS.pack(
                self.chunk,
                self.flags,
                0,
                len(self.ranges) // RANGE.size,
                self.content_size,
                self.frame_size,
                self.image_id,
                self.content_hash,
                self.frame_hash,
            )
            + self.ranges
        )

    @classmethod
    def unpack(cls, data: bytes, geometry: Geometry, image_id: bytes, framed: bool = True) -> RecordHeader:
        """Read a packed header, checked against the geometry and the image's ``image_id``; raises RecordError.

        ``framed`` says whether a frame follows. Without a frame, its size and hash are zeros.
        """
        if len(data) < FIELDS.size:
            raise RecordError(f"A record header of {len(data)} bytes is too short: expected at least {FIELDS.size}.")
        chunk, flags, reserved, count, content_size, frame_size, found, content_hash, frame_hash = FIELDS.unpack_from(
            data
        )
        ranges = bytes(data[FIELDS.size :])
        if reserved or len(ranges) != count * RANGE.size:
            raise RecordError(
                f"The record of chunk {chunk} announces {count} used ranges and carries {len(ranges)} bytes of them."
            )
        if found != image_id:
            raise RecordError(
                f"The record of chunk {chunk} belongs to another image (image ID {found.hex()}, not {image_id.hex()})."
            )
        if chunk >= geometry.chunk_count or content_size != geometry.length(chunk):
            raise RecordError(
                f"The record of chunk {chunk} with {content_size} bytes does not fit the disk's geometry."
            )
        if (framed and not 0 < frame_size <= max_frame_size(content_size)) or (
            not framed and (frame_size or any(frame_hash))
        ):
            raise RecordError(
                f"The record of chunk {chunk} announces a frame of {frame_size} bytes for {content_size} bytes."
            )
        check_flags(chunk, flags, ranges, content_hash, content_size)
        return cls(
            chunk=chunk,
            flags=flags,
            ranges=ranges,
            content_size=content_size,
            content_hash=content_hash,
            frame_size=frame_size,
            frame_hash=frame_hash,
            image_id=image_id,
        )


def check_flags(chunk: int, flags: int, ranges: bytes, content_hash: bytes, content_size: int) -> None:
    """Raise RecordError unless flags, used ranges and hash of a chunk agree with one another."""
    if flags not in (0, USED, USED | ZERO):
        raise RecordError(f"The record of chunk {chunk} has unknown flags {flags:#x}.")
    if flags & USED:
        unpack_ranges(ranges, content_size)
    elif ranges:
        raise RecordError(f"Chunk {chunk} is unused and yet has used ranges.")
    if (flags != USED) != (content_hash == zeros_hash(content_size)):
        raise RecordError(
            f"The flags of chunk {chunk} and the hash of its content disagree on whether it is all zeros."
        )


def mask(content: memoryview, ranges: Sequence[tuple[int, int]], zeros: bytes) -> None:
    """Set every byte of ``content`` outside the used ranges to zero; ``zeros`` is at least as long as ``content``."""
    position = 0
    for start, end in ranges:
        if start > position:
            content[position:start] = zeros[: start - position]
        position = end
    if position < len(content):
        content[position:] = zeros[: len(content) - position]
