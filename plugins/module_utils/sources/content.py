# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random access to the content of an image whose records come from a source."""

from __future__ import annotations

from ..engine.restore import decode
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.index import Index
from ..image.record import ZERO, RecordHeader, max_frame_size
from ..zstd import Zstd
from .router import Router


class ImageContent:
    """The content of an image. Chunks are fetched when they are needed, and kept."""

    def __init__(self, router: Router, header: ImageHeader, index: Index, zstd: Zstd) -> None:
        self._router = router
        self._header = header
        self._index = index
        self._codec = zstd.codec()
        self._watch = Stopwatches().new()
        self._chunks: dict[int, memoryview] = {}

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``, fewer at the disk's end. Unused bytes are zeros. Raises what the router's last source raises."""
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
                while not self._fetch(chunk, content):
                    pass
            self._chunks[chunk] = content
        return self._chunks[chunk]

    def _fetch(self, chunk: int, content: memoryview) -> bool:
        """Request a chunk once and return whether a valid record arrived."""
        buffer = memoryview(bytearray(max_frame_size(len(content))))
        record = self._record(chunk, buffer)
        if record is None and self._router.take_lost():
            return False
        if record is None or record.chunk != chunk:
            raise ImagingError(f"The controller did not send chunk {chunk}, which the image has. Run again.")
        try:
            decode(self._index, record, buffer[: record.frame_size], self._codec, content, self._watch)
        except ImagingError as error:
            self._router.reject(chunk, error)
            self._router.take_lost()
            return False
        return True

    def _record(self, chunk: int, buffer: memoryview) -> RecordHeader | None:
        found: RecordHeader | None = None
        self._router.request([chunk])
        while self._router.in_flight:
            header = self._router.receive(buffer)
            if header is not None and found is not None:
                raise ImagingError(f"The controller sent chunk {header.chunk}, which was not asked for. Run again.")
            found = header or found
        return found
