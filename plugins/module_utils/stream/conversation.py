# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two ends say to one another. The sink asks, the source answers; which of them is the laptop does not matter.

sink   -> DESCRIBE                        source -> HEADER INDEX ... INDEX(empty)
sink   -> HEADER INDEX ... INDEX(empty)   what the sink has of an older image; not answered
sink   -> WANT(ranges of chunks)          source -> RECORD or KEPT ... SERVED, or CHANGED: the sink begins with DESCRIBE again
laptop -> PROGRESS(report)                at any time that it is the one to speak; not answered
sink   -> DAMAGED(chunk)                  source looks whether its own copy is at fault, and ends if so; not answered
sink   -> DONE                            source -> DONE
either -> END(reason)

A broken link is made again and the sink asks for what it still lacks: nobody has to remember what was sent.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections import deque
from typing import Callable, Generator, Iterable, Iterator, NoReturn, Protocol, TypeVar

from ..errors import ImagingError
from .link import INDEX_PIECE, Kind, Link, LinkError, Message

RANGE = struct.Struct("<II")
CHUNK = struct.Struct("<I")

MOST_WANTS = 64
"""How many of its requests a sink has under way. More would only wait in the source's memory."""

MOST_WAITING = 4 << 20
"""Bytes of messages that a source keeps until it comes to them; from then on the other end has to wait. Sixty-four requests take less."""

MESSAGE_OVERHEAD = 256
"""Bytes that a message takes beside its payload, roughly."""


class PeerEnded(ImagingError):
    """The other end gave up and said why."""


class Changed(LinkError):
    """What a source said of itself no longer holds. Whoever does not expect that makes a new link, as after any other message out of turn."""


class Source(Protocol):
    """The end that has the content."""

    @property
    def chunk_count(self) -> int:
        """How many chunks there are to be asked for."""

    @property
    def largest_known(self) -> int:
        """Bytes that the index may have which :meth:`known` hears; 0 where nothing is to be heard."""

    def header(self) -> bytes:
        """The packed image header."""

    def index(self) -> bytes:
        """The packed index; empty when it comes into being only with the records."""

    def known(self, header: bytes, index: bytes) -> None:
        """Hear what the sink has already: packed header and index of an older image."""

    def progress(self, report: bytes) -> None:
        """Hear how the sink gets on; called from a thread of its own."""

    def report(self) -> bytes:
        """What the sink is to hear of how this end gets on; empty when nothing is due."""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, bytes | memoryview | None], None, None]:
        """Packed record headers and frames of the used chunks in [start, end), in ascending order; None for a frame that the sink has.

        Raises Changed.
        """

    def conclude(self) -> Iterator[bytes]:
        """Make sure of what was served, before the sink hears that it was all; yields reports meanwhile. Raises Changed."""

    def check(self, chunk: int) -> None:
        """Raise ImagingError when the source's own copy of a chunk's frame is damaged."""


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


def serve(link: Link, source: Source) -> None:
    """The source's part, until the sink is done; raises LinkError, PeerEnded, and whatever the source raises."""
    inbox = _Inbox(link, source.progress)
    while True:
        message = inbox.next()
        if message.kind == Kind.DESCRIBE:
            describe(link, source.header(), source.index())
        elif message.kind == Kind.HEADER:
            source.known(message.payload, _index_pieces(inbox.next, source.largest_known))
        elif message.kind == Kind.WANT:
            try:
                _serve_records(link, inbox, source, message.payload)
            except Changed:
                link.send(Kind.CHANGED)
        elif message.kind == Kind.DAMAGED:
            source.check(_unpack_damaged(message.payload, source.chunk_count))
        elif message.kind == Kind.DONE:
            link.send(Kind.DONE)
            return
        else:
            raise_end(message)


def _serve_records(link: Link, inbox: _Inbox, source: Source, payload: bytes) -> None:
    for start, end in _unpack_want(payload, source.chunk_count):
        with contextlib.closing(source.records(start, end)) as records:
            for header, frame in records:
                try:
                    report = source.report()
                    if report:
                        tell_progress(link, report)
                    link.send(*((Kind.KEPT, header) if frame is None else (Kind.RECORD, header, frame)))
                except LinkError:
                    inbox.raise_if_ended()
                    raise
    for report in source.conclude():
        try:
            tell_progress(link, report)
        except LinkError:
            inbox.raise_if_ended()
            raise
    link.send(Kind.SERVED)


def describe(link: Link, header: bytes, index: bytes) -> None:
    """Send packed header and index: the source when it was asked, the sink to say what it has already."""
    link.send(Kind.HEADER, header)
    view = memoryview(index)
    for offset in range(0, len(view), INDEX_PIECE):
        link.send(Kind.INDEX, bytes(view[offset : offset + INDEX_PIECE]))
    link.send(Kind.INDEX)


def ask_header(link: Link) -> bytes:
    """The sink's first question: the source's packed header, which its index follows (:func:`receive_index`)."""
    link.send(Kind.DESCRIBE)
    return expect(link, Kind.HEADER).payload


def receive_index(link: Link, most: int) -> bytes:
    """The source's packed index, empty when there is none yet; raises ImagingError when it has more than ``most`` bytes."""
    return _index_pieces(link.receive, most)


def _index_pieces(receive: Callable[[], Message], most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = receive()
        if message.kind != Kind.INDEX:
            raise_end(message)
        piece = message.payload
        if not piece:
            return b"".join(pieces)
        size += len(piece)
        if size > most:
            raise ImagingError(f"The other end sends an index of more than {most} bytes, which this disk can't have.")
        pieces.append(piece)


def want(link: Link, ranges: Iterable[tuple[int, int]]) -> None:
    """Ask for the records of ranges of chunks, half-open, to come in this order and be followed by SERVED."""
    link.send(Kind.WANT, b"".join(RANGE.pack(start, end) for start, end in ranges))


def expect(link: Link, *kinds: Kind) -> Message:
    """The next message, which must be one of ``kinds``; raises PeerEnded, LinkError."""
    message = link.receive()
    if message.kind not in kinds:
        raise_end(message)
    return message


H = TypeVar("H", bound="FrameSize")


class FrameSize(Protocol):
    """What is read of a record's header to receive its frame."""

    @property
    def frame_size(self) -> int:
        """Bytes of the frame."""


def receive_record(
    link: Link,
    unpack: Callable[[bytes], H],
    room: memoryview,
    kept: Callable[[bytes], None] | None = None,
    heard: Callable[[bytes], object] | None = None,
) -> H | None:
    """The next record: its header, as ``unpack`` reads it, and its frame at the start of ``room``; None when a request is SERVED.

    The frame is not hashed yet. ``kept`` is called with the header of each record before it that comes without a frame; who
    says nothing of what it has is sent none. ``heard`` is called with what the source reports of itself, if it is a laptop. Raises
    PeerEnded, LinkError, Changed, and what ``unpack``, ``kept`` and ``heard`` raise.
    """
    also = {kind: call for kind, call in ((Kind.KEPT, kept), (Kind.PROGRESS, heard)) if call is not None}
    message = link.receive()
    while message.kind in also:
        also[message.kind](message.payload)
        message = link.receive()
    if message.kind == Kind.SERVED:
        return None
    if message.kind == Kind.CHANGED:
        raise Changed("The other end is to be asked anew.")
    if message.kind != Kind.RECORD:
        raise_end(message)
    header = unpack(message.payload)
    if header.frame_size != message.body_size:
        raise LinkError("A record arrived whose frame has another size than it says.")
    link.receive_body(room[: header.frame_size])
    return header


def finish(link: Link) -> None:
    """Tell the source that everything is there, and wait until it has heard so; raises LinkError, PeerEnded."""
    link.send(Kind.DONE)
    expect(link, Kind.DONE)


def tell_progress(link: Link, report: bytes) -> None:
    """Tell the controller how the laptop gets on (``engine.status.Status``)."""
    link.send(Kind.PROGRESS, report)


def damaged(link: Link, chunk: int) -> None:
    """Tell the source that a chunk's frame did not match its hash."""
    link.send(Kind.DAMAGED, CHUNK.pack(chunk))


def raise_end(message: Message) -> NoReturn:
    """Raise what a message means that was not expected: PeerEnded with its reason, or LinkError."""
    if message.kind == Kind.END:
        raise PeerEnded(message.payload.decode(errors="replace") or "The other end gave up and did not say why.")
    raise LinkError(f"The other end said {message.kind.name} out of turn.")


def _unpack_want(payload: bytes, chunks: int) -> list[tuple[int, int]]:
    """Ranges in ascending order of a disk with so many chunks; raises ImagingError."""
    if len(payload) % RANGE.size:
        raise ImagingError("The other end asked for chunks in a form that can't be read.")
    ranges, before = [], 0
    for start, end in RANGE.iter_unpack(payload):
        if not before <= start <= end <= chunks:
            raise ImagingError(
                f"The other end asked for chunks {start} to {end}, out of order or beyond the {chunks} that the disk has."
            )
        ranges.append((start, end))
        before = end
    return ranges


def _unpack_damaged(payload: bytes, chunks: int) -> int:
    chunk: int = CHUNK.unpack(payload)[0] if len(payload) == CHUNK.size else chunks
    if chunk >= chunks:
        raise ImagingError("The other end asked for chunks again that the disk does not have.")
    return chunk
