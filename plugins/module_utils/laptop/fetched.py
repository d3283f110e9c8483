# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads single places of an image that the controller has."""

from __future__ import annotations

from ..engine.restore import decode
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.index import Index
from ..image.record import ZERO, RecordHeader, largest_frame
from ..stream.conversation import expect, receive_record, want
from ..stream.link import Kind, Link
from ..zstd import Zstd


class Fetched:
    """The content of an image, chunk by chunk as it is needed; each is kept."""

    def __init__(self, link: Link, header: ImageHeader, index: Index, zstd: Zstd) -> None:
        self._link = link
        self._header = header
        self._index = index
        self._codec = zstd.codec()
        self._watch = Stopwatches().new()
        self._chunks: dict[int, memoryview] = {}

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``, fewer at the disk's end; what is not used is zeros. Raises DamagedFrame, LinkError, PeerEnded."""
        geometry = self._header.geometry
        end = min(offset + length, geometry.disk_size)
        pieces = []
        for chunk in range(offset // geometry.chunk_size, -(-end // geometry.chunk_size)):
            begin = geometry.offset(chunk)
            pieces.append(self._chunk(chunk)[max(0, offset - begin) : end - begin])
        return b"".join(pieces)

    def _chunk(self, chunk: int) -> memoryview:
        if chunk not in self._chunks:
            content = memoryview(bytearray(self._header.geometry.length(chunk)))
            row = self._index.find(chunk)
            if row is not None and not row.flags & ZERO:
                self._fetch(chunk, content)
            self._chunks[chunk] = content
        return self._chunks[chunk]

    def _fetch(self, chunk: int, content: memoryview) -> None:
        def unpack(payload: bytes) -> RecordHeader:
            return RecordHeader.unpack(payload, self._header.geometry, self._header.stream)

        want(self._link, [(chunk, chunk + 1)])
        room = memoryview(bytearray(largest_frame(len(content))))
        record = receive_record(self._link, unpack, room)
        if record is None or record.chunk != chunk:
            raise ImagingError(f"The controller did not send chunk {chunk}, which the image has. Run again.")
        decode(self._index, record, room[: record.frame_size], self._codec, content, self._watch)
        expect(self._link, Kind.SERVED)
