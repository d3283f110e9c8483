# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves a stored image."""

from __future__ import annotations

from typing import Generator

from ..engine.stopwatch import Stopwatches
from ..image.reader import ImageReader


class StoredSource:
    """A stored image as a source (``serving.server.Source``)."""

    def __init__(self, image: ImageReader) -> None:
        self._image = image
        self.watches = Stopwatches()
        """The stopwatches of reading and sending."""
        self._watch = self.watches.new()
        self.frames_sent = 0
        """Bytes."""
        self.described = False
        """Whether the sink has the index, without which it writes nothing."""

    @property
    def chunk_count(self) -> int:
        """Of the whole image."""
        return self._image.header.geometry.chunk_count

    def header(self) -> bytes:
        """Return the packed header of the image."""
        return self._image.packed_header

    def index(self) -> bytes:
        """Return the packed index of the image."""
        self.described = True
        return self._image.packed_index

    def records(self, start: int, end: int) -> Generator[tuple[bytes, memoryview], None, None]:
        """Yield the stored records of the used chunks in [start, end)."""
        watch = self._watch
        watch.restart()
        for record in self._image.records(start, end):
            watch.busy("read store")
            yield record.header.pack(), record.frame
            self.frames_sent += len(record.frame)
            watch.busy("send")

    def on_damaged(self, chunk: int) -> None:
        """Raise BadImage when the image's own copy of a chunk is damaged."""
        row = self._image.index.find(chunk)
        if row is not None:
            self._image.check_frame(self._image.record(row))
