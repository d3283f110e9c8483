# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol of a probe: it sends pieces of data only to time them.

controller -> DESCRIBE                   laptop -> HEADER(empty), once it has measured what needs no link
controller -> WANT(KiB, milliseconds)    laptop -> RECORD ... SERVED
controller -> RECORD ... SERVED          laptop -> PROGRESS(KiB, microseconds), as it saw them come
controller -> DONE                       laptop -> DONE
either     -> END(reason)

A RECORD has a piece for its body, and for its payload the piece's SHA-256 and how many bytes the piece decompresses to: 0 when it is
random. Its hash is checked at the other end, as a transfer does.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from dataclasses import dataclass
from typing import Iterator, Protocol, Sequence

from ..errors import ImagingError
from .conversation import expect, finish, raise_end
from .link import LARGEST_BODY, Kind, Link, LinkError, Message

ZONES = ("beginning", "middle", "end")
"""The zones of the disk in which the laptop measures the read rate."""

AMOUNT = struct.Struct("<II")
HEAD = struct.Struct("<I32s")
"""Size of a piece's content, SHA-256 of the piece."""

RANDOM_PIECE = 256 << 10
"""Bytes; small enough that even a slow link carries several pieces in the given time."""

LARGEST_CONTENT = 16 << 20
"""Maximum content of a piece, in bytes."""

MOST_KIB = 1 << 20
MOST_MILLISECONDS = 60000


@dataclass(frozen=True)
class Piece:
    """Something to send: a frame and how many bytes it decompresses to, or random bytes (0)."""

    body: bytes
    content_size: int = 0

    def head(self) -> bytes:
        """Return the payload that announces the piece."""
        return HEAD.pack(self.content_size, hashlib.sha256(self.body).digest())


@dataclass(frozen=True)
class Carried:
    """The traffic in one direction: bytes, elapsed seconds, and processor seconds of this process."""

    size: int
    seconds: float
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Bytes a second; 0 when nothing was measured."""
        return self.size / self.seconds if self.seconds > 0 else 0.0

    @property
    def cpu(self) -> float:
        """Seconds of processor time for each byte."""
        return self.cpu_seconds / self.size if self.size else 0.0


class Probed(Protocol):
    """The laptop's end: it measures everything that needs no link, and takes the pieces."""

    def measure(self) -> None:
        """Measure everything that is measured while the link is idle."""

    def take(self, content_size: int, body: memoryview) -> None:
        """Use a piece with a correct hash; its memory is reused afterwards."""

    def carried(self, sent: Carried | None, received: Carried | None) -> None:
        """Take the traffic that was measured."""


def random_pieces() -> list[Piece]:
    """Return incompressible pieces."""
    return [Piece(os.urandom(RANDOM_PIECE)) for dummy in range(4)]


def serve_probe(link: Link, probed: Probed) -> None:
    """Do the laptop's part until the controller is done; raises LinkError, PeerEnded, and what measuring raises."""
    while True:
        message = link.receive()
        if message.kind == Kind.DESCRIBE:
            probed.measure()
            link.send(Kind.HEADER)
        elif message.kind == Kind.WANT:
            kib, milliseconds = _unpack_amount(message.payload)
            if not 0 < kib <= MOST_KIB or not 0 < milliseconds <= MOST_MILLISECONDS:
                raise LinkError(f"The other end asked for {kib} KiB in {milliseconds} ms, which no probe needs.")
            probed.carried(send_pieces(link, random_pieces(), kib << 10, milliseconds / 1000), None)
        elif message.kind == Kind.RECORD:
            received = _receive(link, message, probed, (MOST_KIB << 10) + LARGEST_BODY)
            probed.carried(None, received)
            link.send(Kind.PROGRESS, AMOUNT.pack(received.size >> 10, min(int(received.seconds * 1e6), (1 << 32) - 1)))
        elif message.kind == Kind.DONE:
            link.send(Kind.DONE)
            return
        else:
            raise_end(message)


def ask_to_measure(link: Link) -> None:
    """Let the laptop measure itself, and wait for it; raises LinkError, PeerEnded."""
    link.send(Kind.DESCRIBE)
    expect(link, Kind.HEADER)


def measure_from_laptop(link: Link, size: int, seconds: float) -> Carried:
    """Let the laptop send for so many bytes or seconds, whichever ends first; raises LinkError, PeerEnded."""
    link.send(Kind.WANT, AMOUNT.pack(size >> 10, int(seconds * 1000)))
    return _receive(link, link.receive(), None, size + LARGEST_BODY)


def measure_to_laptop(link: Link, pieces: Sequence[Piece], size: int, seconds: float) -> Carried:
    """Send pieces repeatedly for so many bytes or seconds; returns the traffic as the laptop saw it. Raises LinkError, PeerEnded."""
    sent = send_pieces(link, pieces, size, seconds)
    kib, microseconds = _unpack_amount(expect(link, Kind.PROGRESS).payload)
    if kib << 10 > sent.size:
        raise LinkError("The other end says that more came to it than was sent.")
    return Carried(kib << 10, microseconds / 1e6, sent.cpu * (kib << 10))


def end_probe(link: Link) -> None:
    """Tell the laptop that everything is measured; raises LinkError, PeerEnded."""
    finish(link)


def send_pieces(link: Link, pieces: Sequence[Piece], size: int, seconds: float) -> Carried:
    """Send pieces repeatedly for so many bytes or seconds, then SERVED; returns the traffic. Raises LinkError."""
    ready = [(piece.head(), piece.body) for piece in pieces]
    sent, began, cpu = 0, time.monotonic(), time.process_time()
    for head, body in _over_and_over(ready):
        if sent >= size or (sent and time.monotonic() - began >= seconds):
            break
        link.send(Kind.RECORD, head, body)
        sent += len(body)
    link.send(Kind.SERVED)
    return Carried(sent, time.monotonic() - began, time.process_time() - cpu)


def _over_and_over(ready: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    while ready:
        yield from ready


def _receive(link: Link, message: Message, probed: Probed | None, most: int) -> Carried:
    """Take pieces of ``most`` bytes in all, from the one that ``message`` announces to SERVED.

    Time counts from the end of the first piece, so that it is the link's alone, unless there is only one.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    first_end: tuple[float, float] | None = None
    room = memoryview(bytearray(RANDOM_PIECE))
    size = counted = 0
    now, cpu_now = began, cpu_began
    while message.kind == Kind.RECORD:
        content_size, digest = _unpack_head(message.payload)
        if message.body_size > len(room):
            room = memoryview(bytearray(message.body_size))  # the link has checked that it is not too large
        if size + message.body_size > most:
            raise ImagingError(f"The other end sent more than the {most} bytes that a probe asks for at the most.")
        body = room[: message.body_size]
        link.receive_body(body)
        if hashlib.sha256(body).digest() != digest:
            raise LinkError("A piece of a probe arrived damaged.")
        now, cpu_now = time.monotonic(), time.process_time()
        size += len(body)
        if first_end is None:
            first_end = now, cpu_now
        else:
            counted += len(body)
        if probed is not None:
            probed.take(content_size, body)
        message = link.receive()
    if message.kind != Kind.SERVED:
        raise_end(message)
    if counted and first_end is not None:
        return Carried(counted, now - first_end[0], cpu_now - first_end[1])
    return Carried(size, now - began, cpu_now - cpu_began)


def _unpack_head(payload: bytes) -> tuple[int, bytes]:
    if len(payload) != HEAD.size:
        raise LinkError("The other end announced a piece of a probe in a form that can't be read.")
    content_size, digest = HEAD.unpack(payload)
    if content_size > LARGEST_CONTENT:
        raise LinkError(f"The other end announced a piece of {content_size} bytes of content, which no chunk has.")
    return content_size, digest


def _unpack_amount(payload: bytes) -> tuple[int, int]:
    if len(payload) != AMOUNT.size:
        raise LinkError("The other end named an amount in a form that can't be read.")
    first, second = AMOUNT.unpack(payload)
    return first, second
