# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image on an HTTP server as a source of chunks. The server need not be trusted, and may hold another version of the image.

It must serve ranges (RFC 9110, section 14). No proxy is used.
"""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections import deque
from typing import Callable, Sequence
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

from ..errors import ImagingError
from ..image.index import Index, Row
from ..image.reader import BadImage, ImageReader
from ..image.record import RecordHeader
from ..image.writer import SUFFIX
from .base import SourceFailed

MIRROR = "mirror"

MIN_RATE = 1 << 20
"""Minimum rate in bytes a second. A record may take the time at this rate plus the silence."""

MAX_REDIRECTS = 5

MAX_GAP_SIZE = 256 << 10
"""Maximum gap between two records that is read and discarded; for a larger gap, the second record gets its own request."""

PIECE = 4 << 20
"""Maximum bytes of one read: a whole record, so that everything that has arrived is taken at once.

Source: a reader that pauses for 10 ms after each 2 MiB got 1.1 GB/s from nginx over a virtual link with 4 MiB, 0.2 GB/s with 256 KiB.
"""

CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
REDIRECTS = (301, 302, 303, 307, 308)
BROKEN = (http.client.HTTPException, ConnectionError)
"""The exceptions of a connection that ends too early."""


def image_url(folder: str, image: str) -> str:
    """Return the URL of an image in a copy of the image store; empty when no folder is given."""
    return f"{folder.rstrip('/')}/{quote(image + SUFFIX)}" if folder else ""


class HttpFile:
    """A file on an HTTP server as a byte source (``image.reader.ByteSource``). Raises BadImage when it can't be read.

    All requests use one connection, one after the other.
    """

    def __init__(self, url: str, silence: float) -> None:
        """``url`` begins with http:// or https://. Nothing is asked yet. After so many seconds of silence the server is given up."""
        self.name = url
        self.size = 0
        self._url = url
        self._silence = silence
        self._deadline = 0.0
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._position = self._end = 0
        """Bytes of the current response that were not read yet."""
        self._plan = (0, 0)
        self.stopped = False
        """Whether :meth:`stop` was called."""

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    def reaches(self, offset: int) -> bool:
        """Return whether ``offset`` follows soon in the current response."""
        return self._answer is not None and self._position <= offset < min(self._end, self._position + MAX_GAP_SIZE)

    def plan(self, start: int, end: int) -> None:
        """Announce the range that will be read next in pieces, so that the first read requests all of it."""
        self._plan = (start, end)

    def open(self) -> None:
        """Find out the size of the file, and whether its ranges are served."""
        self.read_range(0, 1)

    def read_range(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        self._deadline = time.monotonic() + self._silence + size / MIN_RATE
        try:
            return self._read(offset, size)
        except BROKEN:
            self._disconnect()  # a server may close an idle connection at any time: try once more over a new one
        try:
            return self._read(offset, size)
        except BROKEN as error:
            raise self._failed(f"the connection broke ({str(error) or type(error).__name__})") from error

    def _read(self, offset: int, size: int) -> bytes:
        try:
            if not self.reaches(offset) or offset + size > self._end:
                self._ask(offset, max(offset + size, self._plan[1] if self._plan[0] == offset else 0))
            if offset > self._position:
                self._take(offset - self._position)
            return self._take(size)
        except BROKEN:
            raise
        except socket.timeout as error:
            raise self._too_slow() from error
        # A name that can't be resolved, an invalid certificate, or a redirect to an invalid address.
        except (OSError, ValueError) as error:
            raise self._failed(f"it can't be read ({error})") from error

    def _take(self, size: int) -> bytes:
        """Return the next bytes of the response."""
        parts = []
        while size:
            self._check_time()
            part = self._answer.read1(min(size, PIECE)) if self._answer is not None else b""
            if not part:
                raise http.client.IncompleteRead(b"", size)
            parts.append(part)
            size -= len(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._too_slow()
        if self.stopped:
            raise self._failed("reading was ended")
        if self._socket is not None:
            self._socket.settimeout(min(left, self._silence))

    def _ask(self, offset: int, end: int) -> None:
        """Request a range, and follow redirects."""
        answer = self._answer
        if answer is not None and (self._position < self._end or answer.will_close):
            self._disconnect()  # the rest of that response would come before the next one
        elif answer is not None:
            answer.close()
        for _redirect in range(MAX_REDIRECTS + 1):
            answer = self._get(offset, end)
            if answer.status not in REDIRECTS:
                self._check_answer(answer, offset, end)
                self._answer, self._position, self._end = answer, offset, end
                return
            self._follow(answer.getheader("Location", ""))
        raise self._failed(f"it redirects more than {MAX_REDIRECTS} times")

    def _get(self, offset: int, end: int) -> http.client.HTTPResponse:
        url = urlsplit(self._url)
        if self._connection is None:
            maker = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
            self._connection = maker(url.hostname or "", url.port, timeout=self._silence)
            self._connection.connect()
            self._socket = self._connection.sock
        self._check_time()
        path = urlunsplit(SplitResult("", "", url.path or "/", url.query, ""))
        headers = {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "identity", "User-Agent": "fleet.imaging"}
        self._connection.request("GET", path, headers=headers)
        return self._connection.getresponse()

    def _check_answer(self, answer: http.client.HTTPResponse, offset: int, end: int) -> None:
        """Raise BadImage unless the response has the requested range of a file whose size did not change."""
        if answer.status == http.client.OK:
            raise self._failed("expected a part of the file and got all of it: the server does not serve ranges")
        if answer.status != http.client.PARTIAL_CONTENT:
            raise self._failed(f"expected a part of the file and got {answer.status} {answer.reason}")
        found = CONTENT_RANGE.fullmatch(answer.getheader("Content-Range", ""))
        first, last, size = map(int, found.groups()) if found else (0, -1, 0)
        if (first, last) != (offset, end - 1) or answer.getheader("Content-Encoding", "identity") != "identity":
            raise self._failed(f"expected the bytes {offset} to {end - 1} and got something else")
        if self.size not in (0, size):
            raise self._failed("the file changed while it was read")
        self.size = size

    def _follow(self, location: str) -> None:
        self._disconnect()
        target = urlsplit(urljoin(self._url, location))
        downgraded = urlsplit(self._url).scheme == "https" and target.scheme != "https"
        if target.scheme not in ("http", "https") or not target.hostname or downgraded:
            raise self._failed(
                f"it redirects to {location[:200]!r}: expected an address with http or https, and after https with https"
            )
        self._url = target.geturl()

    def _too_slow(self) -> BadImage:
        return self._failed(
            f"it is too slow: expected an answer within {self._silence:.0f} seconds and {MIN_RATE >> 20} MiB a second"
        )

    def _failed(self, reason: str) -> BadImage:
        self._disconnect()
        return BadImage(f"{self.name}: {reason}.")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._answer is not None:
            self._answer.close()
        self._connection = self._socket = self._answer = None

    def stop(self) -> None:
        """Make current and later reads fail; from any thread."""
        self.stopped = True
        open_socket = self._socket
        if open_socket is not None:
            try:
                open_socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def restart(self) -> None:
        """Allow reads again after :meth:`stop`."""
        self._disconnect()
        self.stopped = False


class HttpImage:
    """An image on an HTTP server (``sources.base.ChunkSource``)."""

    name = MIRROR
    stage = f"fetch from {MIRROR}"
    max_requests = 2

    def __init__(self, url: str, wanted: Index, warn: Callable[[str], object], silence: float) -> None:
        """``wanted`` is the index of the image to restore. ``warn`` is called when the server has another image."""
        self._file = HttpFile(url, silence)
        self._wanted = wanted
        self._warn = warn
        self._reader: ImageReader | None = None
        self._equal = False
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
            except BadImage as error:
                raise SourceFailed(str(error)) from error
            self._equal = self._reader.root_digest == self._wanted.root_digest()
            if not self._equal:
                self._warn(
                    f"{self._file.name} is not the image that is restored: only chunks that are equal in both were taken from there. "
                    "Copy the image to the mirror again."
                )
        return self._reader

    def request(self, chunks: Sequence[int]) -> None:
        """Remember a request. Its records are read in :meth:`receive`."""
        self._requests.append(deque(chunks))

    def receive(self, buffer: memoryview) -> RecordHeader | None:
        """Read the next record. The first of several neighbouring records requests all of them."""
        reader, chunks = self._opened(), self._requests[0]
        if not chunks:
            self._requests.popleft()
            return None
        row = reader.index.find(chunks.popleft())
        if row is None:
            raise SourceFailed(f"{self._file.name} does not have a chunk that it was asked for.")
        if not self._file.reaches(row.record_offset):
            self._file.plan(row.record_offset, self._end_of_run(reader, row, chunks))
        try:
            record = reader.record(row)
        except BadImage as error:
            raise SourceFailed(str(error)) from error
        buffer[: len(record.frame)] = record.frame
        return record.header

    @staticmethod
    def _end_of_run(reader: ImageReader, row: Row, following: Sequence[int]) -> int:
        end = row.frame_offset + row.frame_size
        for chunk in following:
            after = reader.index.find(chunk)
            if after is None or not 0 <= after.record_offset - end < MAX_GAP_SIZE:
                break
            end = after.frame_offset + after.frame_size
        return end

    def leave_sender(self, chunk: int, error: ImagingError) -> bool:
        """Return False: there is one server."""
        return False

    def close(self) -> None:
        """Make a read of another thread fail."""
        self._file.stop()


def _content(row: Row | None) -> tuple[int, bytes, bytes] | None:
    return None if row is None else (row.flags, row.ranges, row.content_hash)
