# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS 1.3 (RFC 8446) over any channel, a socket or one that SSH carries, with the standard library's ``ssl``.

OpenSSL does not allow two threads at one connection at the same time. So it works between two buffers in memory, under a lock that is held
only while it computes. Whoever waits for the network does so without the lock, and a thread that reads never keeps another one from writing.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from typing import Callable

from ..timeouts import DEFAULTS
from .credentials import Name
from .link import Channel, LinkError

RECORD = 16 << 10
"""Maximum content of a record in bytes (RFC 8446, 5.1), which is what OpenSSL decrypts at a time."""

PIECE = 128 << 10
"""Bytes that are received, or encrypted and sent, at a time. Larger pieces do not stay in a processor's cache between the steps."""


class TlsChannel:
    """A channel whose content is encrypted and authenticated. One thread may receive while another one sends."""

    def __init__(self, raw: Channel, context: ssl.SSLContext, server_side: bool) -> None:
        """Nothing is sent before :meth:`shake_hands`, which comes first."""
        self._raw = raw
        self._lock = threading.Lock()
        self._arrived = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_side=server_side)
        self._received = memoryview(bytearray(PIECE))
        self._early = b""
        """What was decrypted to see whether there is anything to read."""
        self.settimeout = raw.settimeout
        self.end_sending = raw.end_sending
        self.close = raw.close

    def shake_hands(self, seconds: float) -> Name:
        """Make the connection within so many seconds, however slowly bytes arrive, and return the name that the other end has proven.

        Raises OSError, of which ssl.SSLError is a kind, and ValueError when the certificate has no name.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush(end)  # the alert that tells the other end what is wrong
                raise
            self._flush(end)
            if done:
                return Name.from_certificate(self._tls.getpeercert() or {})
            self._arm(end)
            self._fill()

    def _arm(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise OSError("the handshake took too long")
        self._raw.settimeout(left)

    def _flush(self, end: float) -> None:
        flight = self._leaving.read()
        if flight:
            self._arm(end)
            self._raw.sendall(flight)

    def _fill(self) -> None:
        """Wait for bytes, or for the end of the stream."""
        count = self._raw.recv_into(self._received)
        with self._lock:
            if count:
                self._arrived.write(self._received[:count])
            else:
                self._arrived.write_eof()

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all data."""
        view = memoryview(data)
        while view:
            with self._lock:
                view = view[self._tls.write(view[:PIECE]) :]
                encrypted = self._leaving.read()
            self._raw.sendall(encrypted)

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive some bytes; OSError, of which ssl.SSLError is a kind, also when the stream was changed.

        The end of the stream is 0 or an OSError, and tells nothing: a conversation ends with a message. So no ``close_notify`` is sent.
        """
        if self._early:
            count = min(len(self._early), len(buffer))
            buffer[:count], self._early = self._early[:count], self._early[count:]
            return count
        while True:
            try:
                return self._decrypt(buffer)
            except ssl.SSLWantReadError:
                self._fill()

    def _decrypt(self, buffer: memoryview) -> int:
        """Decrypt as much as has arrived, which saves a call for each record."""
        done = 0
        with self._lock:
            while done < len(buffer):
                try:
                    count = self._tls.read(len(buffer) - done, buffer[done:])
                except ssl.SSLError:
                    if done:
                        break  # comes again at the next call
                    raise
                if not count:
                    break
                done += int(count)
        return done

    def readable(self) -> bool:
        """Return whether there is content, or the end, or a failure: part of a record is not enough."""
        while not self._early:
            try:
                with self._lock:
                    self._early = self._tls.read(RECORD)
                return True
            except ssl.SSLWantReadError:
                if not self._raw.readable():
                    return False
            except OSError:
                return True
            try:
                self._fill()
            except OSError:
                return True
        return True


def connect_tls(
    channel: Channel, context: ssl.SSLContext, expected: Name, seconds: float = DEFAULTS.handshake
) -> TlsChannel:
    """The connecting side: prove who this is to the end of this name alone, within so many seconds; raises LinkError.

    ``context`` is of ``Credentials.context``. As always in TLS 1.3, the other end may still refuse this one's certificate after that, which the
    first attempt to receive tells.
    """
    return _secured(channel, context, False, lambda name: name == expected, seconds)[1]


def accept_tls(
    channel: Channel, context: ssl.SSLContext, expected: Callable[[Name], bool], seconds: float = DEFAULTS.handshake
) -> tuple[Name, TlsChannel]:
    """The listening side: the proven name of whoever connected, if it is expected, and the channel to it; raises LinkError."""
    return _secured(channel, context, True, expected, seconds)


def _secured(
    channel: Channel, context: ssl.SSLContext, server_side: bool, expected: Callable[[Name], bool], seconds: float
) -> tuple[Name, TlsChannel]:
    tls = TlsChannel(channel, context, server_side)
    try:
        name = tls.shake_hands(seconds)
    except ssl.SSLCertVerificationError as error:
        raise LinkError(f"The other end has no certificate of this run: {error.verify_message}.") from error
    except ValueError as error:
        raise LinkError(f"The other end has no certificate of this run: {error}.") from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise LinkError("The other end closed the link during the handshake.") from error
    except ssl.SSLError as error:
        raise LinkError(
            f"The other end does not answer as an end of this run does ({error.reason or error}): another program uses the port, or something in "
            "between changes the data."
        ) from error
    except OSError as error:
        raise LinkError(f"The link broke during the handshake: {error}.") from error
    if not expected(name):
        raise LinkError(f"The other end is the {name} of this run, and another one was expected.")
    return name, tls
