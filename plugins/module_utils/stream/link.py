# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connected byte stream between two ends, and the messages on it.

A message on the wire: head (kind, payload size, body size), payload, body. Only a record has a body (its frame). TLS below (``stream.tls``) sees to
it that nothing can be read, changed, dropped, repeated, reordered or reflected on the way.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Callable, Protocol

from ..errors import ImagingError
from ..reasons import LINK_BROKEN
from ..timeouts import DEFAULTS, Timeouts
from .credentials import Name

HEAD = struct.Struct("<BII")

WINDOW = 2 << 20
"""Maximum bytes in flight that were not read yet. They have to be sent again after the link breaks. This window fills gigabit Ethernet up to a
round trip of 17 ms."""


class LinkError(ImagingError):
    """The link broke; it can be made again."""

    code = LINK_BROKEN


class Kind(IntEnum):
    """What a message is."""

    DESCRIBE = 1
    """Sink to source: send header and index."""
    HEADER = 2
    """The image header, JSON."""
    INDEX = 3
    """A piece of the packed index; an empty one ends it."""
    WANT = 4
    """Sink to source: ranges of chunks."""
    RECORD = 5
    """A record header, and the frame as body."""
    SERVED = 6
    """All records of the oldest unanswered WANT were sent."""
    DAMAGED = 7
    """Sink to source: the frame of this chunk did not match its hash."""
    DONE = 8
    """The conversation is over, and the sink has everything."""
    END = 9
    """The sender gives up, for the reason in the payload."""
    PING = 10
    """Nothing, but I am here."""
    KEPT = 11
    """A record header without a frame: the chunk still has the content that the sink said it has."""
    PROGRESS = 12
    """Laptop to controller: how it gets on."""
    CHANGED = 13
    """Source to sink, in place of SERVED: what it said of itself no longer holds. The sink asks anew, beginning with DESCRIBE."""
    UPSTREAM = 14
    """Controller to laptop: the laptop to take chunks from (``stream.relaying``)."""
    LOST = 15
    """Laptop to controller: chunks can't be taken from there."""
    LACK = 16
    """Source to sink, between laptops: it will not have these chunks."""
    HASHES = 17
    """Sink to source: how many hashes it has of a disk that is still hashed. Source to sink: the next ones (``image.hashes``)."""
    ROOT = 18
    """Source to sink, after the last hash: the root digest."""


INDEX_PIECE = 1 << 20
MAX_PAYLOAD_SIZE = {Kind.HEADER: 1 << 20, Kind.INDEX: INDEX_PIECE, Kind.RECORD: 128 << 10, Kind.KEPT: 128 << 10}
MAX_OTHER_PAYLOAD_SIZE = 64 << 10
MAX_BODY_SIZE = 32 << 20


@dataclass(frozen=True)
class Message:
    """One received message; ``body_size`` bytes are still to be read with :meth:`Link.receive_body`."""

    kind: Kind
    payload: bytes
    body_size: int


class Channel(Protocol):
    """What a link needs: a subset of a socket that an SSH channel also provides."""

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all data, or raise OSError."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive some bytes; 0 at the end of the stream; OSError on failure or time-out."""

    def readable(self) -> bool:
        """Return whether :meth:`recv_into` would return or fail at once."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Set how long a call may block, in seconds."""

    def end_sending(self) -> None:
        """Signal that nothing more will be sent; raises OSError."""

    def close(self) -> None:
        """Close the channel, and make blocked calls of other threads return."""


class SocketChannel:
    """A socket as a channel."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.settimeout = sock.settimeout

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive some bytes."""
        return self._socket.recv_into(buffer)

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all data. Unlike with the socket's own method, each piece has the whole time-out, so a slow peer does not count as silent."""
        view = memoryview(data)
        while view:
            view = view[self._socket.send(view) :]

    def readable(self) -> bool:
        """Return whether there is data, or the end of the stream."""
        poll = select.poll()  # select() only supports the first 1024 descriptors
        try:
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed by another thread
            return True

    def end_sending(self) -> None:
        """Close the sending half."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Shut the socket down, which wakes blocked threads, and close it."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()


class TcpChannel(SocketChannel):
    """A TCP socket as a channel."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_WINDOW_CLAMP"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, WINDOW)


def receive_exactly(channel: Channel, view: memoryview) -> None:
    """Fill ``view``; raises LinkError when the stream ends, fails, or is silent for too long."""
    done = 0
    while done < len(view):
        try:
            count = channel.recv_into(view[done:])
        except OSError as error:
            raise LinkError(f"The link broke: {error}.") from error
        if not count:
            raise LinkError("The other end closed the link.")
        done += count


class Link:
    """One link. Any thread may send; one thread receives."""

    def __init__(
        self, channel: Channel, peer: Name, timeouts: Timeouts = DEFAULTS, heartbeat: float | None = None
    ) -> None:
        """An end that has sent nothing for ``heartbeat`` seconds, by default those of ``timeouts``, sends a PING."""
        self._channel = channel
        self.peer = peer
        """The name of the other end, which it has proven."""
        self._timeouts = timeouts
        self._heartbeat = heartbeat or timeouts.heartbeat
        channel.settimeout(timeouts.silence)
        self.handlers: dict[Kind, Callable[[bytes], object]] = {}
        """What is called with the payloads of messages that may come at any time. They are not returned by :meth:`receive` and :meth:`poll`."""
        self._within_message = False
        self._lock = threading.Lock()
        self._last_sent = time.monotonic()
        self.last_heard = time.monotonic()
        """The time at which the latest message, or its body, was complete."""
        self._closed = threading.Event()
        self.bytes_sent = 0
        self.body_seconds = 0.0
        """How long the latest body took to arrive, once its message had."""
        threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()

    def send(self, kind: Kind, payload: bytes = b"", body: bytes | memoryview = b"") -> None:
        """Send one message; raises LinkError."""
        with self._lock:
            head = HEAD.pack(kind, len(payload), len(body))
            self._within_message = True
            try:
                self._channel.sendall(head + payload)
                if body:
                    self._channel.sendall(body)
            except OSError as error:
                self.close()
                raise LinkError(f"The link broke: {error}.") from error
            self._within_message = False
            self._last_sent = time.monotonic()
            self.bytes_sent += HEAD.size + len(payload) + len(body)

    def receive(self) -> Message:
        """Receive the next message other than PING; raises LinkError when the link breaks."""
        try:
            while True:
                message = self._receive()
                if not self._handled(message):
                    return message
        except LinkError:
            self.close()
            raise

    def poll(self) -> Message | None:
        """Return the next message other than PING if one has arrived, else None; raises LinkError, also after too long a silence."""
        try:
            while self._channel.readable():
                message = self._receive()
                if not self._handled(message):
                    return message
            if time.monotonic() - self.last_heard > self._timeouts.silence:
                raise LinkError("The link broke: the other end is silent.")
        except LinkError:
            self.close()
            raise
        return None

    def _handled(self, message: Message) -> bool:
        handler = self.handlers.get(message.kind)
        if handler is not None:
            handler(message.payload)
        return handler is not None or message.kind == Kind.PING

    def _receive(self) -> Message:
        head = bytearray(HEAD.size)
        receive_exactly(self._channel, memoryview(head))
        number, payload_size, body_size = HEAD.unpack(head)
        try:
            kind = Kind(number)
        except ValueError:
            raise LinkError(f"Something that is not a message arrived: no message has the kind {number}.") from None
        if payload_size > MAX_PAYLOAD_SIZE.get(kind, MAX_OTHER_PAYLOAD_SIZE) or body_size > MAX_BODY_SIZE * (
            kind == Kind.RECORD
        ):
            raise LinkError(f"A {kind.name} of an impossible size arrived: {payload_size} and {body_size} bytes.")
        payload = bytearray(payload_size)
        receive_exactly(self._channel, memoryview(payload))
        self.last_heard = time.monotonic()
        return Message(kind, bytes(payload), body_size)

    def receive_body(self, view: memoryview) -> None:
        """Fill ``view``, which is as long as the message's body, with the body; raises LinkError."""
        began = time.monotonic()
        try:
            receive_exactly(self._channel, view)
        except LinkError:
            self.close()
            raise
        self.last_heard = time.monotonic()
        self.body_seconds = self.last_heard - began

    def _send_heartbeats(self) -> None:
        while not self._closed.wait(self._heartbeat):
            if time.monotonic() - self._last_sent >= self._heartbeat:
                try:
                    self.send(Kind.PING)
                except LinkError:
                    return

    def end(self, reason: str) -> None:
        """Try to tell the other end why this end gives up, and close; takes a few seconds at most."""
        try:
            self._channel.settimeout(self._timeouts.linger)
            # After an interruption within a message, the other end would read the reason as the rest of that message.
            if not self._within_message:
                self.send(Kind.END, reason.encode()[:MAX_OTHER_PAYLOAD_SIZE])
                self._channel.end_sending()
                self._drain()
        except (LinkError, OSError):
            pass
        self.close()

    def _drain(self) -> None:
        """Read pending data: closing with unread data resets the connection, and the other end may lose the last message."""
        deadline = time.monotonic() + self._timeouts.linger
        rest = memoryview(bytearray(1 << 20))
        while time.monotonic() < deadline and self._channel.recv_into(rest):
            pass

    @property
    def closed(self) -> bool:
        """Whether the link was closed or broke."""
        return self._closed.is_set()

    def close(self) -> None:
        """Close the link; blocked calls in other threads raise LinkError."""
        if not self._closed.is_set():
            self._closed.set()
            self._channel.close()
