# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The serving end of a conversation (``stream.conversation``), for any machine that has chunks."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import Callable, Generator, Iterator, Protocol

from ..stream.conversation import (
    Changed,
    describe,
    join_index,
    raise_end,
    send_progress,
    unpack_damaged,
    unpack_want,
)
from ..stream.link import Kind, Link, LinkError, Message

MAX_WAITING = 4 << 20
"""Maximum bytes of messages that wait to be answered; then the other end has to wait. Sixty-four requests take less."""

MESSAGE_OVERHEAD = 256
"""Memory of a message in addition to its payload, in bytes, roughly."""


class Source(Protocol):
    """An image that can be served."""

    @property
    def chunk_count(self) -> int:
        """The number of chunks of the disk."""

    def header(self) -> bytes:
        """Return the packed image header."""

    def index(self) -> bytes:
        """Return the packed index; empty when it is made only while the records are."""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, bytes | memoryview | None], None, None]:
        """Yield packed record headers and frames of the used chunks in [start, end), in ascending order; None for a frame that the sink has.

        Raises Changed.
        """

    def on_damaged(self, chunk: int) -> None:
        """Handle a report that the frame of a chunk arrived with a wrong hash.

        Raises ImagingError when this end's own copy is damaged.
        """


class LiveSource(Source, Protocol):
    """A source that captures a disk: it uses what the sink already has, reports its progress, and may change its description of the disk."""

    @property
    def max_known_size(self) -> int:
        """Maximum size of the index that :meth:`known` takes, in bytes."""

    def known(self, header: bytes, index: bytes) -> None:
        """Take the packed header and index of an older image that the sink has."""

    def report(self) -> bytes:
        """Return a progress report for the sink; empty when none is due."""

    def conclude(self) -> Iterator[bytes]:
        """Check what was served before the sink learns that it is complete; yields progress reports meanwhile. Raises Changed."""


class _Inbox:
    """Reads a link in a thread of its own, so that a source receives messages while it sends. Progress reports are passed on at once.

    Other messages wait here, up to ``MAX_WAITING`` bytes; beyond that, the link is not read any further.
    """

    def __init__(self, link: Link, on_progress: Callable[[bytes], object]) -> None:
        self._link = link
        self._on_progress = on_progress
        self._error: Exception | None = None
        self._end: Message | None = None
        self._messages: deque[Message | Exception] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                message = self._link.receive()
                if message.kind == Kind.PROGRESS:
                    self._on_progress(message.payload)
                    continue
                if message.kind == Kind.END:
                    self._end = message
                    self._link.close()  # wakes a thread that is blocked in sending
                self._put(message, len(message.payload) + MESSAGE_OVERHEAD)
                if message.kind in (Kind.END, Kind.DONE):
                    return
        except LinkError as error:
            self._put(error)
        except Exception as error:  # whatever happens, nobody must wait here for ever
            self._error = error
            self._link.close()
            self._put(error)

    def _put(self, message: Message | Exception, size: int = 0) -> None:
        with self._changed:
            while size and self._waiting and self._waiting + size > MAX_WAITING and not self._link.closed:
                self._changed.wait(1.0)
            self._messages.append(message)
            self._waiting += size
            self._changed.notify_all()

    def next(self) -> Message:
        with self._changed:
            while not self._messages:
                self._changed.wait()
            message = self._messages.popleft()
            if isinstance(message, Exception):
                raise message
            self._waiting -= len(message.payload) + MESSAGE_OVERHEAD
            self._changed.notify_all()
        return message

    def raise_if_ended(self) -> None:
        """Raise PeerEnded when the sink gave up, or the error of its reports, without waiting for a message."""
        if self._error is not None:
            raise self._error
        if self._end is not None:
            raise_end(self._end)


def _ignore(_report: bytes) -> None:
    """Ignore a progress report."""


def serve(link: Link, source: Source, on_progress: Callable[[bytes], object] = _ignore) -> None:
    """Serve an unchanging image until the sink is done; raises LinkError, PeerEnded, and what the source raises.

    ``on_progress`` is called with each progress report of the sink, in another thread.
    """
    _Server(link, source, None, on_progress).run()


def serve_live(link: Link, source: LiveSource) -> None:
    """Serve a disk until the sink is done, and send progress reports; raises LinkError, PeerEnded, and what the source raises."""
    _Server(link, source, source, _ignore).run()


class _Server:
    def __init__(
        self, link: Link, source: Source, live: LiveSource | None, on_progress: Callable[[bytes], object]
    ) -> None:
        self._link = link
        self._source = source
        self._live = live
        self._inbox = _Inbox(link, on_progress)

    def run(self) -> None:
        while True:
            message = self._inbox.next()
            if message.kind == Kind.DESCRIBE:
                describe(self._link, self._source.header(), self._source.index())
            elif message.kind == Kind.HEADER:
                self._receive_known(message.payload)
            elif message.kind == Kind.WANT:
                self._answer_want(message.payload)
            elif message.kind == Kind.DAMAGED:
                self._source.on_damaged(unpack_damaged(message.payload, self._source.chunk_count))
            elif message.kind == Kind.DONE:
                self._link.send(Kind.DONE)
                return
            else:
                raise_end(message)

    def _receive_known(self, header: bytes) -> None:
        index = join_index(self._inbox.next, self._live.max_known_size if self._live else 0)
        if self._live:
            self._live.known(header, index)

    def _answer_want(self, payload: bytes) -> None:
        try:
            for start, end in unpack_want(payload, self._source.chunk_count):
                self._send_records(start, end)
            for report in self._live.conclude() if self._live else ():
                self._send_report(report)
        except Changed:
            self._link.send(Kind.CHANGED)
        else:
            self._link.send(Kind.SERVED)

    def _send_records(self, start: int, end: int) -> None:
        with contextlib.closing(self._source.records(start, end)) as records:
            for header, frame in records:
                report = self._live.report() if self._live else b""
                if report:
                    self._send_report(report)
                with self._ended_by_sink():
                    self._link.send(*((Kind.KEPT, header) if frame is None else (Kind.RECORD, header, frame)))

    def _send_report(self, report: bytes) -> None:
        with self._ended_by_sink():
            send_progress(self._link, report)

    @contextlib.contextmanager
    def _ended_by_sink(self) -> Iterator[None]:
        """Replace the error of a broken link by the reason that the sink gave for ending, if it gave one."""
        try:
            yield
        except LinkError:
            self._inbox.raise_if_ended()
            raise
