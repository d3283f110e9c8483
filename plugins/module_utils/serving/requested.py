# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passes on a disk that is held: each record is made when laptops ask for it, once for all that wait for it at the time."""

from __future__ import annotations

from typing import Iterator

from ..image.index import Index
from ..image.record import RecordHeader
from .peers import Place, Share, Window

MAX_TAKERS = 1024
"""How many laptops may take chunks at a time. The workers on the controller count, too: each keeps a link as long as its laptop is restored."""

WINDOW = 64 << 20
"""Bytes of the window: what is made at a time, and what laptops want that began a little later."""

AHEAD = 2
"""Records that may wait to be sent to a laptop. No more are made for it meanwhile, so a slow one does not push out what others wait for."""


class RequestedShare(Share):
    """Like Share, of records that one thread makes: it takes chunks from :meth:`wanted` and brings their records to :meth:`add`."""

    def __init__(self, index: Index) -> None:
        super().__init__(index, Window(WINDOW), self._place, lambda: None, keep=True, max_takers=MAX_TAKERS)
        self._making: set[int] = set()
        """Chunks that were handed out and have not come."""
        self._stopped = False

    def _place(self, chunk: int) -> Place:
        row = self.index.find(chunk)
        return Place.COMING if row is not None and row.hashed else Place.NOWHERE

    def wanted(self) -> Iterator[int]:
        """Yield the chunks that laptops wait for, one of each laptop in turn, and wait for them; ends when nothing is passed on any more."""
        return iter(self._next_wanted, None)

    def stop(self) -> None:
        """End :meth:`wanted`."""
        with self._changed:
            self._stopped = True
            self.notify()

    def _next_wanted(self) -> int | None:
        with self._changed:
            while not self._stopped and not self.ended:
                for taker in self._takers:
                    chunk = taker.first_coming(self._making) if taker.queued < AHEAD else None
                    if chunk is not None:
                        self._takers[taker] = self._takers.pop(taker)  # the last one in turn now
                        self._making.add(chunk)
                        return chunk
                self._room.wait()
        return None

    def add(self, header: RecordHeader, frame: bytes | memoryview) -> None:
        """Pass on a record, and wait until a laptop that waits for more has room for it: the time that the sending takes."""
        with self._changed:
            self._making.discard(header.chunk)
            super().add(header, frame)
            self._room.wait_for(self._has_room)

    def _has_room(self) -> bool:
        waiting = [taker for taker in self._takers if taker.coming]
        return self.ended or not waiting or any(taker.queued < AHEAD for taker in waiting)
