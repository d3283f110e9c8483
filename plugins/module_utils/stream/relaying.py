# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of a relay, by which laptops pass an image on to one another.

controller -> UPSTREAM(laptop or nothing)   where to take chunks from now; nothing: from the controller
laptop     -> LOST(laptop, reason)          to the controller: chunks can't be taken from there; answered by UPSTREAM
sink       -> WANT(ranges of chunks)        on a link between two laptops: send each of them as soon as you have it
source     -> RECORD, in any order          one for each chunk
source     -> LACK(chunks)                  in place of a record: this laptop will not have them
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterable, Mapping, Sequence

from ..errors import ImagingError
from .conversation import CHUNK, raise_end, unpack_want
from .link import MAX_OTHER_PAYLOAD_SIZE, Kind, Link

MAX_NAME = 1024
"""Characters of a host's name or of a reason."""


@dataclass(frozen=True)
class Upstream:
    """A laptop that another one takes chunks from: its host name in the inventory, its IP address, and the port on which its module listens."""

    host: str
    address: str
    port: int

    def pack(self) -> bytes:
        """Return the payload of UPSTREAM."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Loss:
    """Why a laptop can't take chunks from another one. ``reached`` is whether it could connect at all, ``damage`` whether it was sent damage."""

    host: str
    reason: str
    reached: bool
    damage: bool

    def pack(self) -> bytes:
        """Return the payload of LOST."""
        return json.dumps(dict(asdict(self), reason=self.reason[:MAX_NAME])).encode()


def unpack_upstream(payload: bytes) -> Upstream | None:
    """Read the payload of UPSTREAM, None for the controller; raises ImagingError."""
    if not payload:
        return None
    values = _object(payload, "UPSTREAM")
    host, address, port = _text(values, "host"), _text(values, "address"), values.get("port")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 1 << 16:
        raise ImagingError("The controller names a laptop without a port.")
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise ImagingError("The controller names a laptop without an IP address.") from error
    return Upstream(host, address, port)


def unpack_loss(payload: bytes) -> Loss:
    """Read the payload of LOST; raises ImagingError."""
    values = _object(payload, "LOST")
    reached, damage = values.get("reached"), values.get("damage")
    if not isinstance(reached, bool) or not isinstance(damage, bool):
        raise ImagingError("The laptop reports a lost laptop in a form that can't be read.")
    return Loss(host=_text(values, "host"), reason=_text(values, "reason"), reached=reached, damage=damage)


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise ImagingError(f"A message arrived whose {name} is not a text of up to {MAX_NAME} characters.")
    return value


def _object(payload: bytes, kind: str) -> Mapping[str, Any]:
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ImagingError(f"A message {kind} arrived that is not JSON.") from error
    if not isinstance(values, dict):
        raise ImagingError(f"A message {kind} arrived that is not a JSON object.")
    return values


def receive_wants(link: Link, chunk_count: int, want: Callable[[Sequence[tuple[int, int]]], object]) -> None:
    """Call ``want`` with the ranges of chunks of each request, until the link breaks or the other end asks for what can't be."""
    with contextlib.suppress(ImagingError):
        while True:
            message = link.receive()
            if message.kind != Kind.WANT:
                raise_end(message)
            want(unpack_want(message.payload, chunk_count))


def lack(link: Link, chunks: Iterable[int]) -> None:
    """Tell the sink of chunks that this laptop will not have."""
    packed = b"".join(map(CHUNK.pack, chunks))
    for start in range(0, len(packed), MAX_OTHER_PAYLOAD_SIZE):
        link.send(Kind.LACK, packed[start : start + MAX_OTHER_PAYLOAD_SIZE])


def unpack_lack(payload: bytes) -> list[int]:
    """Read the payload of LACK; raises ImagingError."""
    try:
        return [chunk for (chunk,) in CHUNK.iter_unpack(payload)]
    except struct.error as error:
        raise ImagingError("The other end lacks chunks in a form that can't be read.") from error
