# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol between two ends. The sink requests, the source answers (``serving.server``); either may be the laptop.

sink   -> DESCRIBE                        source -> HEADER INDEX ... INDEX(empty)
sink   -> HEADER INDEX ... INDEX(empty)   an older image that the sink has; not answered
sink   -> WANT(ranges of chunks)          source -> RECORD or KEPT ... SERVED, or CHANGED: the sink begins with DESCRIBE again
laptop -> PROGRESS(report)                whenever the laptop may send; not answered
sink   -> DAMAGED(chunk)                  source checks its own copy, and ends if that is damaged; not answered
sink   -> HASHES(how many it has)         source -> HASHES ... ROOT, beside all else: the index that was sent had no hashes yet
sink   -> DONE                            source -> DONE
either -> END(reason)

After a broken link the sink requests what it still lacks over a new one, so no end has to remember what was sent.
"""

from __future__ import annotations

import struct
from typing import Callable, Iterable, NoReturn, Protocol, TypeVar

from ..errors import ImagingError
from .link import INDEX_PIECE, Kind, Link, LinkError, Message

RANGE = struct.Struct("<II")
CHUNK = struct.Struct("<I")
COUNT = struct.Struct("<I")

MAX_WANTS = 64
"""Maximum number of unanswered requests of a sink. More would only wait in the source's memory."""


class PeerEnded(ImagingError):
    """The other end gave up and gave the reason."""


class Changed(LinkError):
    """The source's description of its disk is not valid any more. A sink that does not expect this makes a new link."""


def describe(link: Link, header: bytes, index: bytes) -> None:
    """Send packed header and index: the source as an answer, the sink to describe what it already has."""
    link.send(Kind.HEADER, header)
    view = memoryview(index)
    for offset in range(0, len(view), INDEX_PIECE):
        link.send(Kind.INDEX, bytes(view[offset : offset + INDEX_PIECE]))
    link.send(Kind.INDEX)


def ask_header(link: Link) -> bytes:
    """Request the source's description and return its packed header. The index follows (:func:`receive_index`)."""
    link.send(Kind.DESCRIBE)
    return expect(link, Kind.HEADER).payload


def receive_index(link: Link, most: int) -> bytes:
    """Receive the source's packed index, empty when there is none yet; raises ImagingError when it has more than ``most`` bytes."""
    return join_index(link.receive, most)


def join_index(receive: Callable[[], Message], most: int) -> bytes:
    """Join the pieces of a packed index that ``receive`` returns; raises ImagingError when it has more than ``most`` bytes."""
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
            raise ImagingError(
                f"The other end sends an index of more than {most} bytes, which is too large for this disk."
            )
        pieces.append(piece)


def want(link: Link, ranges: Iterable[tuple[int, int]]) -> None:
    """Request the records of half-open ranges of chunks. They come in this order, followed by SERVED."""
    link.send(Kind.WANT, b"".join(RANGE.pack(start, end) for start, end in ranges))


def expect(link: Link, *kinds: Kind) -> Message:
    """Receive the next message, which must be one of ``kinds``; raises PeerEnded, LinkError."""
    message = link.receive()
    if message.kind not in kinds:
        raise_end(message)
    return message


H = TypeVar("H", bound="FrameSize")


class FrameSize(Protocol):
    """The part of a record's header that is needed to receive its frame."""

    @property
    def frame_size(self) -> int:
        """The size of the frame in bytes."""


def receive_record(
    link: Link,
    unpack: Callable[[bytes], H],
    buffer: memoryview,
    kept: Callable[[bytes], None] | None = None,
    on_progress: Callable[[bytes], object] | None = None,
    begun: Message | None = None,
) -> H | None:
    """Receive the next record: return its header, as ``unpack`` reads it, and put its frame at the start of ``buffer``; None after SERVED.

    The frame is not hashed yet. ``kept`` is called with the header of each record that comes without a frame, which happens only after the sink
    described an older image. ``on_progress`` is called with each progress report, if the source is a laptop. ``begun`` is the first message, if it
    was received already. Raises PeerEnded, LinkError, Changed, and what ``unpack``, ``kept`` and ``on_progress`` raise.
    """
    also = {kind: call for kind, call in ((Kind.KEPT, kept), (Kind.PROGRESS, on_progress)) if call is not None}
    message = begun or link.receive()
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
        raise LinkError("A record arrived whose frame does not have the size that its header says.")
    link.receive_body(buffer[: header.frame_size])
    return header


def finish(link: Link) -> None:
    """Tell the source that everything has arrived, and wait for its confirmation; raises LinkError, PeerEnded."""
    link.send(Kind.DONE)
    expect(link, Kind.DONE)


def send_progress(link: Link, report: bytes) -> None:
    """Send the laptop's progress report (``engine.status.Status``) to the controller."""
    link.send(Kind.PROGRESS, report)


def ask_hashes(link: Link, count: int) -> None:
    """Request the hashes after the first ``count``, which this end has. They come from now on, and are taken by a handler of the link."""
    link.send(Kind.HASHES, COUNT.pack(count))


def damaged(link: Link, chunk: int) -> None:
    """Tell the source that a chunk's frame did not match its hash."""
    link.send(Kind.DAMAGED, CHUNK.pack(chunk))


def raise_end(message: Message) -> NoReturn:
    """Raise the error for an unexpected message: PeerEnded with its reason, or LinkError."""
    if message.kind == Kind.END:
        raise PeerEnded(message.payload.decode(errors="replace") or "The other end gave up and did not say why.")
    raise LinkError(f"The other end said {message.kind.name} out of turn.")


def unpack_want(payload: bytes, chunks: int) -> list[tuple[int, int]]:
    """Return the ranges of a WANT, in ascending order, for a disk with so many chunks; raises ImagingError."""
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


def unpack_count(payload: bytes) -> int:
    """Return the number in a request for hashes; raises ImagingError."""
    if len(payload) != COUNT.size:
        raise ImagingError("The other end asked for hashes in a form that can't be read.")
    count: int = COUNT.unpack(payload)[0]
    return count


def unpack_damaged(payload: bytes, chunks: int) -> int:
    """Return the chunk of a DAMAGED, for a disk with so many chunks; raises ImagingError."""
    chunk: int = CHUNK.unpack(payload)[0] if len(payload) == CHUNK.size else chunks
    if chunk >= chunks:
        raise ImagingError("The other end asked for chunks again that the disk does not have.")
    return chunk
