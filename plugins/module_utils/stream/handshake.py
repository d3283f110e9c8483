# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutual challenge and response at the start of a link, based on a secret that both ends have.

The connecting side sends magic and nonce, gets a nonce, proves that it knows the secret, and only then gets the other side's proof: a
stranger who connects learns only a random number. The keys of both directions come from the secret and both nonces (HMAC-SHA256
as key derivation, RFC 2104; labels keep the uses apart).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from typing import Mapping

from ..timeouts import DEFAULTS
from .link import Channel, Keys, LinkError, receive_exactly

MAGIC = b"FLIMLNK1"
NONCE_SIZE = 32
SECRET_SIZE = 32


class _Deadline:
    """A channel whose calls together take at most the time of a handshake, however slowly bytes arrive."""

    def __init__(self, channel: Channel, seconds: float) -> None:
        self._channel = channel
        self._end = time.monotonic() + seconds
        self.close = channel.close
        self.readable = channel.readable
        self.settimeout = channel.settimeout
        self.end_sending = channel.end_sending

    def _arm(self) -> None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise OSError("the handshake took too long")
        self._channel.settimeout(left)

    def sendall(self, data: bytes | memoryview) -> None:
        self._arm()
        self._channel.sendall(data)

    def recv_into(self, buffer: memoryview) -> int:
        self._arm()
        return self._channel.recv_into(buffer)


def _derive(secret: bytes, label: bytes, nonces: bytes) -> bytes:
    return hmac.new(secret, b"fleet.imaging link 1 " + label + b"\0" + nonces, hashlib.sha256).digest()


def _receive(channel: Channel, size: int) -> bytes:
    data = bytearray(size)
    receive_exactly(channel, memoryview(data))
    return bytes(data)


def _send(channel: Channel, data: bytes) -> None:
    try:
        channel.sendall(data)
    except OSError as error:
        raise LinkError(f"The link broke during the handshake: {error}.") from error


def connect_handshake(channel: Channel, secret: bytes, seconds: float = DEFAULTS.handshake) -> Keys:
    """The connecting side's part, within so many seconds; raises LinkError when the other end is silent, a stranger, or gone."""
    limited = _Deadline(channel, seconds)
    mine = os.urandom(NONCE_SIZE)
    _send(limited, MAGIC + mine)
    nonces = mine + _receive(limited, NONCE_SIZE)
    _send(limited, _derive(secret, b"connecting side", nonces))
    if not hmac.compare_digest(_receive(limited, SECRET_SIZE), _derive(secret, b"listening side", nonces)):
        raise LinkError(
            "The program that listens there does not know the secret of this run: it is not the module that was started."
        )
    return Keys(_derive(secret, b"to listener", nonces), _derive(secret, b"to connector", nonces))


def accept_handshake(
    channel: Channel, secrets: Mapping[str, bytes], seconds: float = DEFAULTS.handshake
) -> tuple[str, Keys]:
    """The listening side's part: the role of whoever connected, by the secret that it knows, and the keys of the link.

    Raises LinkError when it does not prove within so many seconds that it knows one of them.
    """
    limited = _Deadline(channel, seconds)
    hello = _receive(limited, len(MAGIC) + NONCE_SIZE)
    if hello[: len(MAGIC)] != MAGIC:
        raise LinkError("A stranger connected.")
    mine = os.urandom(NONCE_SIZE)
    _send(limited, mine)
    nonces = hello[len(MAGIC) :] + mine
    proof = _receive(limited, SECRET_SIZE)
    proven = [
        role
        for role, secret in secrets.items()
        if hmac.compare_digest(proof, _derive(secret, b"connecting side", nonces))
    ]
    if not proven:
        raise LinkError("Something connected that does not know the secret of this run.")
    secret = secrets[proven[0]]
    _send(limited, _derive(secret, b"listening side", nonces))
    return proven[0], Keys(_derive(secret, b"to connector", nonces), _derive(secret, b"to listener", nonces))
