# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings what is written to the medium meanwhile, so that a slow medium is felt while it is written, and not all at the end.

Left alone, a kernel takes gigabytes into memory before it lets the writer wait, for a file as for a virtual disk: a transfer to a slow
one would seem to be fast, and then stand at its end for minutes.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable


class BackgroundSync:
    """Syncs a file or a disk in a thread of its own. Not for several writers."""

    def __init__(self, sync: Callable[[], object], step: int, most: int) -> None:
        """``sync`` brings to the medium what was written. It is worth to begin after ``step`` bytes, and ``most`` bytes may be written and not
        be on the medium.
        """
        self._sync = sync
        self._step = step
        self._most = most
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._synced = 0
        self._running: tuple[int, Future[object]] | None = None
        """How much had been written when the running sync began."""

    def wrote(self, position: int) -> None:
        """Note how many bytes were written, and wait while too many of them are not on the medium; raises what ``sync`` has raised."""
        while position - self._synced >= self._step:
            length, running = self._running = self._running or (position, self._pool.submit(self._sync))
            if position - self._synced <= self._most and not running.done():
                return
            running.result()
            self._synced, self._running = length, None

    def close(self) -> None:
        """End; before the file or disk is closed. Raises what ``sync`` has raised, because the system may report it no second time (fsync(2))."""
        self._pool.shutdown()
        if self._running is not None:
            self._running[1].result()
