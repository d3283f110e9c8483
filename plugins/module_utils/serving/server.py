# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answering end of a conversation (``stream.conversation``): any machine that has chunks serves them with this."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import Callable, Generator, Iterator, Protocol

from ..errors import ImagingError
from ..stream.conversation import (
    Changed,
    describe,
    join_index,
    raise_end,
    tell_progress,
    unpack_damaged,
    unpack_want,
)
from ..stream.link import Kind, Link, LinkError, Message

MOST_WAITING = 4 << 20
"""Bytes of messages that a source keeps until it comes to them; from then on the other end has to wait. Sixty-four requests take less."""

MESSAGE_OVERHEAD = 256
"""Bytes that a message takes beside its payload, roughly."""


class Source(Protocol):
    """What is served."""

    @property
    def chunk_count(self) -> int:
        """How many chunks there are to be asked for."""

    def header(self) -> bytes:
        """The packed image header."""

    def index(self) -> bytes:
        """The packed index; empty when it comes into being only with the records."""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, bytes | memoryview | None], None, None]:
        """Packed record headers and frames of the used chunks in [start, end), in ascending order; None for a frame that the sink has.

        Raises Changed.
        """

    def arrived_damaged(self, chunk: int) -> None:
        """Hear that a chunk's frame did not have its hash any more when it arrived.

        Raises ImagingError when it can't be served soundly.
        """


class LiveSource(Source, Protocol):
    """A source that is a disk: it takes into account what the sink has already, reports how it gets on, and may have to change its mind."""

    @property
    def largest_known(self) -> int:
        """Bytes that the index may have which :meth:`known` hears."""

    def known(self, header: bytes, index: bytes) -> None:
        """Hear what the sink has already: packed header and index of an older image."""

    def report(self) -> bytes:
        """What the sink is to hear of how this end gets on; empty when nothing is due."""

    def conclude(self) -> Iterator[bytes]:
        """Make sure of what was served, before the sink hears that it was all; yields reports meanwhile. Raises Changed."""


class _Inbox:
    """Reads a link in a thread of its own, so that a source hears its sink while it sends. Reports of progress are passed on at once.

    What the source has not come to yet is kept, up to ``MOST_WAITING`` bytes; then the link is not read any further.
    """

    def __init__(self, link: Link, heard: Callable[[bytes], object]) -> None:
        self._link = link
        self._heard = heard
        self._error: ImagingError | None = None
        self._end: Message | None = None
        self._messages: deque[Message | ImagingError] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                message = self._link.receive()
                if message.kind == Kind.PROGRESS:
                    self._heard(message.payload)
                    continue
                if message.kind == Kind.END:
                    self._end = message
                    self._link.close()  # wakes whoever is blocked in sending
                self._put(message, len(message.payload) + MESSAGE_OVERHEAD)
                if message.kind in (Kind.END, Kind.DONE):
                    return
        except LinkError as error:
            self._put(error)
        except ImagingError as error:
            self._error = error
            self._link.close()
            self._put(error)

    def _put(self, message: Message | ImagingError, size: int = 0) -> None:
        with self._changed:
            while size and self._waiting and self._waiting + size > MOST_WAITING and not self._link.closed:
                self._changed.wait(1.0)
            self._messages.append(message)
            self._waiting += size
            self._changed.notify_all()

    def next(self) -> Message:
        with self._changed:
            while not self._messages:
                self._changed.wait()
            message = self._messages.popleft()
            if isinstance(message, ImagingError):
                raise message
            self._waiting -= len(message.payload) + MESSAGE_OVERHEAD
            self._changed.notify_all()
        return message

    def raise_if_ended(self) -> None:
        """Raise PeerEnded when the sink gave up, or what is wrong with its reports, without waiting for a message."""
        if self._error is not None:
            raise self._error
        if self._end is not None:
            raise_end(self._end)


def _ignore(_report: bytes) -> None:
    """Nobody wants to hear it."""


def serve(link: Link, source: Source, heard: Callable[[bytes], object] = _ignore) -> None:
    """Serve an image, which stays as it is, until the sink is done; raises LinkError, PeerEnded, and whatever the source raises.

    ``heard`` is called with what the sink reports of itself, by a thread of its own.
    """
    _Server(link, source, None, heard).run()


def serve_live(link: Link, source: LiveSource) -> None:
    """Serve a disk until the sink is done, and tell it meanwhile how that gets on; raises LinkError, PeerEnded, and whatever the source raises."""
    _Server(link, source, source, _ignore).run()


class _Server:
    def __init__(self, link: Link, source: Source, live: LiveSource | None, heard: Callable[[bytes], object]) -> None:
        self._link = link
        self._source = source
        self._live = live
        self._inbox = _Inbox(link, heard)

    def run(self) -> None:
        while True:
            message = self._inbox.next()
            if message.kind == Kind.DESCRIBE:
                describe(self._link, self._source.header(), self._source.index())
            elif message.kind == Kind.HEADER:
                self._hear_known(message.payload)
            elif message.kind == Kind.WANT:
                self._answer_want(message.payload)
            elif message.kind == Kind.DAMAGED:
                self._source.arrived_damaged(unpack_damaged(message.payload, self._source.chunk_count))
            elif message.kind == Kind.DONE:
                self._link.send(Kind.DONE)
                return
            else:
                raise_end(message)

    def _hear_known(self, header: bytes) -> None:
        index = join_index(self._inbox.next, self._live.largest_known if self._live else 0)
        if self._live:
            self._live.known(header, index)

    def _answer_want(self, payload: bytes) -> None:
        try:
            for start, end in unpack_want(payload, self._source.chunk_count):
                self._send_records(start, end)
            for report in self._live.conclude() if self._live else ():
                self._tell(report)
        except Changed:
            self._link.send(Kind.CHANGED)
        else:
            self._link.send(Kind.SERVED)

    def _send_records(self, start: int, end: int) -> None:
        with contextlib.closing(self._source.records(start, end)) as records:
            for header, frame in records:
                report = self._live.report() if self._live else b""
                if report:
                    self._tell(report)
                with self._ended_by_sink():
                    self._link.send(*((Kind.KEPT, header) if frame is None else (Kind.RECORD, header, frame)))

    def _tell(self, report: bytes) -> None:
        with self._ended_by_sink():
            tell_progress(self._link, report)

    @contextlib.contextmanager
    def _ended_by_sink(self) -> Iterator[None]:
        """Have a link that can't be sent on raise what the sink said in its last word, if it has said one."""
        try:
            yield
        except LinkError:
            self._inbox.raise_if_ended()
            raise
