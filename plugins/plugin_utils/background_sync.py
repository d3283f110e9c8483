# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings what is written to a file to the medium meanwhile, so that a slow disk is felt while it is written, and not all at its end.

Left alone, a kernel takes gigabytes into memory before it lets the writer wait: a capture to a slow disk would seem to be fast, and
then stand at its end for minutes.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor

STEP = 16 << 20
"""Bytes after which it is worth to begin."""

MAX_UNSYNCED = 64 << 20
"""Bytes that may be written and not be on the medium."""

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class BackgroundSync:
    """Syncs a growing file in a thread of its own. Not for several writers."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._synced = 0
        self._running: tuple[int, Future[None]] | None = None
        """How long the file was when the running sync began."""

    def wrote(self, position: int) -> None:
        """Note how long the file is, and wait while too much of it is not on the medium; raises OSError, also of what was written before."""
        while position - self._synced >= STEP:
            length, running = self._running = self._running or (position, self._pool.submit(_sync, self._descriptor))
            if position - self._synced <= MAX_UNSYNCED and not running.done():
                return
            running.result()
            self._synced, self._running = length, None

    def close(self) -> None:
        """End; before the file is closed."""
        self._pool.shutdown()
