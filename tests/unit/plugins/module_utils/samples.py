# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small disks and images that unit tests share."""

from __future__ import annotations

import hashlib
import os
import random

from ansible_collections.fleet.imaging.plugins.module_utils import zstd
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import Geometry
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import (
    USED,
    ZERO,
    RecordHeader,
    mask,
    pack_ranges,
)
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter

CHUNK = 64 << 10
STREAM = b"stream01"


class Used:
    """Used ranges as a plain list."""

    def __init__(self, *ranges: tuple[int, int]) -> None:
        self.ranges = ranges

    def total(self) -> int:
        """How many bytes are used."""
        return sum(high - low for low, high in self.ranges)

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The used ranges between two offsets, clipped to them."""
        clipped = ((max(start, low), min(end, high)) for low, high in self.ranges)
        return [(low, high) for low, high in clipped if low < high]


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that compress by about half, the same for the same seed."""
    generator = random.Random(seed)
    return b"".join(generator.getrandbits(64).to_bytes(8, "little") + b"\7" * 8 for dummy in range(size // 16 + 1))[
        :size
    ]


def geometry(size: int, chunk_size: int = CHUNK) -> Geometry:
    """A disk of ``size`` bytes."""
    return Geometry(size, 512, 512, chunk_size)


def make_file(path: object, content: bytes) -> str:
    """Write a file and return its path as a string."""
    with open(str(path), "wb") as file:
        file.write(content)
    return str(path)


def make_image(path: str, disk: bytes, used: Used, chunk_size: int = CHUNK) -> tuple[bytes, bytes]:
    """Write the image of ``disk``; returns its root digest, and the disk with every unused byte set to zero."""
    measures = geometry(len(disk), chunk_size)
    codec = zstd.find_zstd().codec()
    staged = StagedFile(path)
    writer = ImageWriter(staged, ImageHeader(measures, STREAM, "2026-01-02T03:04:05Z", None, {"serial": "S1"}), codec)
    masked = bytearray(len(disk))
    for chunk in range(measures.chunk_count):
        offset, length = measures.offset(chunk), measures.length(chunk)
        ranges = [(low - offset, high - offset) for low, high in used.within(offset, offset + length)]
        if ranges:
            content = bytearray(disk[offset : offset + length])
            mask(memoryview(content), ranges, bytes(chunk_size))
            masked[offset : offset + length] = content
            flags = USED if any(content) else USED | ZERO
            frame = codec.compress(memoryview(content), 3)
            digest = hashlib.sha256(content).digest()
            packed = pack_ranges(ranges, length)
            frame_hash = hashlib.sha256(frame).digest()
            writer.append(RecordHeader(chunk, flags, packed, length, digest, len(frame), frame_hash, STREAM), frame)
    root = writer.finish({"used_bytes": writer.index.used_bytes()})
    staged.commit(None)
    return root, bytes(masked)


def scratch_name(folder: object, name: str) -> str:
    """A path below a temporary folder."""
    return os.path.join(str(folder), name)
