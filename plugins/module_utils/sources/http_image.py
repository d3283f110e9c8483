# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image on an HTTP server as a source of chunks. The server need not be trusted, and may hold another version of the image."""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import Callable, Sequence

from ..errors import ImagingError
from ..image.index import Index, Row
from ..image.reader import BadImage, ImageReader, Unreadable
from ..image.record import RecordHeader
from .base import Pace, SourceFailed
from .http_file import HttpFile

MIRROR = "mirror"
STORE = "store"
"""The names of the servers in results: a copy of the image store, and the image store itself."""

MIN_REQUESTS, MAX_REQUESTS = 8, 64
"""Requests at a time: a laptop that may be told to take chunks from another one requests them one by one, and one request of the server reads all of
them. Few are enough over a slow line, where they take long; they are read in any case."""

ENOUGH = 2.0
"""Seconds that a request of the server should take, because before its first byte nothing comes for the time of a round trip.

Source: through a proxy with 40 MB/s and a round trip of 30 ms, each request of 16 MiB took 35 ms until its first byte, 8 % of its time.
"""


class HttpImage:
    """An image on an HTTP server (``sources.base.ChunkSource``)."""

    names = (MIRROR, STORE)
    max_requests = MIN_REQUESTS

    def __init__(
        self,
        name: str,
        file: HttpFile,
        wanted: Index,
        warn: Callable[[str], object],
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``name`` is one of MIRROR and STORE, ``wanted`` the index of the image to restore. ``warn`` is called when the server has another image.

        ``pace`` is told how fast records arrive.
        """
        self.name = name
        self.stage = f"fetch from {name}"
        self._file = file
        self._wanted = wanted
        self._warn = warn
        self._pace = pace or Pace()
        self._reader: ImageReader | None = None
        self._equal = False
        self._clock = clock
        self._asked = 0.0
        """When the server was asked last."""
        self._records = 0
        """How many records were read since then."""
        self._requests: deque[deque[int]] = deque()

    def has(self, chunk: int) -> bool:
        """Return whether a chunk of the server's image equals that of the wanted image."""
        if self._file.stopped:
            self._file.restart()
            self._requests.clear()
        reader = self._opened()
        return self._equal or _content(reader.index.find(chunk)) == _content(self._wanted.find(chunk))

    def _opened(self) -> ImageReader:
        if self._reader is None:
            try:
                self._file.open()
                self._reader = ImageReader(self._file, like=self._wanted)
            except (BadImage, Unreadable) as error:
                raise SourceFailed(str(error)) from error
            self._file.patience.end()
            self._equal = self._reader.root_digest == self._wanted.root_digest()
            if not self._equal:
                self._warn(
                    f"{self._file.name} is not the image that is restored: only chunks that are equal in both were taken from there. "
                    f"Copy the image to the {self.name} again."
                )
        return self._reader

    def request(self, chunks: Sequence[int]) -> None:
        """Remember a request. Its records are read in :meth:`receive`."""
        self._requests.append(deque(chunks))

    def receive(self, buffer: memoryview) -> RecordHeader | None:
        """Read the next record. One request of the server reads all neighbouring records that are requested now."""
        reader, chunks = self._opened(), self._requests[0]
        if not chunks:
            self._requests.popleft()
            return None
        row = reader.index.find(chunks.popleft())
        if row is None:
            raise SourceFailed(f"{self._file.name} does not have a chunk that it was asked for.")
        if not self._file.reaches(row.record_offset):
            self._lengthen()
            following = itertools.chain([row.chunk], *self._requests)
            reader.plan(row for row in map(reader.index.find, following) if row is not None)
        self._records += 1
        try:
            record = reader.record(row)
        except (BadImage, Unreadable) as error:
            raise SourceFailed(str(error)) from error
        self._pace.add(record.header.content_size, self._file.body_seconds)
        buffer[: len(record.frame)] = record.frame
        return record.header

    def _lengthen(self) -> None:
        """Allow for more chunks by one request of the server, if those of the latest one were many, and came in a moment."""
        now = self._clock()
        if now - self._asked < ENOUGH and self._records > self.max_requests // 2:
            self.max_requests = min(MAX_REQUESTS, 2 * self.max_requests)
        self._asked, self._records = now, 0

    def leave_sender(self, chunk: int, error: ImagingError) -> bool:
        """Return False: there is one server."""
        return False

    def close(self) -> None:
        """Make a read of another thread fail."""
        self._file.stop()


def _content(row: Row | None) -> tuple[int, bytes, bytes] | None:
    return None if row is None else (row.flags, row.ranges, row.content_hash)
