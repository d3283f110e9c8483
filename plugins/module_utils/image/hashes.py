# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hashes of an index that is in use while the disk is still hashed.

They are kept, and sent on, in the order in which they were made. So what an end has is always the beginning of what the other one has, and a number
says what it lacks.
"""

from __future__ import annotations

import struct

from .index import BadIndex, Index

HASH = struct.Struct("<IB32s")
"""Chunk, flags, SHA-256 of the content."""


class Hashes:
    """The hashes of an index, which one thread adds. ``root`` is the root digest, once there are all and the other end has the same; empty before."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.root = b""
        self._packed = bytearray()

    def __len__(self) -> int:
        """Return how many hashes were added."""
        return len(self._packed) // HASH.size

    def add(self, chunk: int, flags: int, content_hash: bytes) -> None:
        """Add the hash of a chunk; again has no effect. Raises BadIndex when it can't be that."""
        if self.index.set_hash(chunk, flags, content_hash):
            self._packed += HASH.pack(chunk, flags, content_hash)

    def unpack(self, data: bytes) -> None:
        """Add packed hashes; raises BadIndex."""
        if len(data) % HASH.size:
            raise BadIndex("Hashes arrived in a form that can't be read.")
        for chunk, flags, content_hash in HASH.iter_unpack(data):
            self.add(chunk, flags, content_hash)

    def pack(self, start: int, most: int) -> bytes:
        """Return the hashes after the first ``start``, in up to ``most`` bytes."""
        begin = start * HASH.size
        return bytes(self._packed[begin : begin + most // HASH.size * HASH.size])

    def agree(self, root: bytes) -> None:
        """Take the root digest of the other end; raises BadIndex unless all hashes are there, and have the same."""
        if self.index.missing:
            raise BadIndex(f"{self.index.missing} hashes have not arrived before the root digest.")
        found = self.index.root_digest()
        if found != root:
            raise BadIndex(
                f"The hashes that arrived have the root digest {found.hex()}, and those of the other end {root.hex()}."
            )
        self.root = root
