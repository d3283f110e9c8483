# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings what is written to a file to the medium meanwhile, so that a slow disk is felt while it is written, and not all at its end.

Left alone, a kernel takes gigabytes into memory before it lets the writer wait: a capture to a slow disk would seem to be fast, and
then stand at its end for minutes.
"""

import os
import threading

STEP = 16 << 20
"""Bytes after which it is worth to begin."""

MAX_UNSYNCED = 64 << 20
"""Bytes that may be written and not be on the medium."""

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class BackgroundSync:
    """A thread that syncs a growing file. Not for several writers."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._written = 0
        self._synced = 0
        self._error: OSError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def wrote(self, position: int) -> None:
        """Note how long the file is, and wait while too much of it is not on the medium; raises OSError, also of what was written before."""
        with self._changed:
            self._written = position
            self._changed.notify_all()
            while self._written - self._synced > MAX_UNSYNCED and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._written - self._synced < STEP and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                written = self._written
            try:
                _sync(self._descriptor)
            except OSError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._synced = written
                self._changed.notify_all()

    def close(self) -> None:
        """End; before the file is closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
