# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board: a file in which the workers of a run tell one another of their laptops. It is locked for moments only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .rules import Member

SLOT = struct.Struct("<iHqd????dddH45s255s")
"""The fields of FIELDS, the length of the name, the address, the name (UTF-8)."""

FIELDS = (
    "upstream",
    "port",
    "missing",
    "heard",
    "gone",
    "trial",
    "proven",
    "sends_slowly",
    "limit",
    "receives",
    "writes",
)
"""Those of a Member that are stored as they are."""

MAX_NAME = 255
"""Bytes of a host's name; a laptop with a longer one does not take part."""


PATIENCE = 10.0
"""Seconds after which a worker gives up on the board: another one that holds it may be stopped, or wait for a file server."""

MAX_PAUSE = 0.02
"""Seconds between two attempts to lock the board, at the most."""


def pack_member(member: Member) -> bytes:
    """Return the slot of a member."""
    name = member.name.encode()
    values = [getattr(member, field) for field in FIELDS]
    return SLOT.pack(*values, len(name), member.address.encode(), name)


def unpack_members(data: bytes) -> list[Member]:
    """Return all members, by their numbers."""
    rows = SLOT.iter_unpack(data[: len(data) // SLOT.size * SLOT.size])
    return [_member(number, row) for number, row in enumerate(rows)]


def _member(number: int, row: tuple[Any, ...]) -> Member:
    *values, length, address, name = row
    return Member(
        number=number,
        name=name[:length].decode(),
        address=address.rstrip(b"\0").decode(),
        **dict(zip(FIELDS, values, strict=True)),
    )


class Board:
    """The board of the laptops of one site that restore one image in one run."""

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        """``path`` is made when it is missing, in a folder that only this user can enter; raises OSError."""
        self._patience = patience
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Page]:
        """Keep all others from the board meanwhile; raises OSError, also when another worker keeps it for too long."""
        self._lock()
        try:
            yield Page(self._file)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self) -> None:
        deadline, pause = time.monotonic() + self._patience, 0.001
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another worker has kept the board for {self._patience:g} seconds") from None
            time.sleep(pause)
            pause = min(MAX_PAUSE, 2 * pause)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Page:
    """The board while it is locked."""

    def __init__(self, file: int) -> None:
        self._file = file

    def members(self) -> list[Member]:
        """Return all members, by their numbers."""
        return unpack_members(os.pread(self._file, os.fstat(self._file).st_size, 0))

    def write(self, members: Sequence[Member]) -> None:
        """Write the rows of some members."""
        for member in members:
            os.pwrite(self._file, pack_member(member), member.number * SLOT.size)
