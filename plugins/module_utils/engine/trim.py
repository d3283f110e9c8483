# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Discards the space that the goal does not use, while the rest is written."""

from __future__ import annotations

import threading
import time

from ..disk.raw_io import RawDisk
from .goal import Goal

MAX_WAIT = 20.0
"""Maximum seconds to wait for a device that discards slowly. Discarding is an optimisation; the restore does not depend on it."""


class Trimmer:
    """Discards the unused ranges of a disk in a thread of its own, as far as the disk supports it and time allows."""

    def __init__(self, disk: RawDisk, goal: Goal) -> None:
        self._disk = disk
        self._goal = goal
        self._deadline = float("inf")
        self.bytes_discarded = 0
        self._thread = threading.Thread(target=self._run, name="trim", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        alignment = self._disk.alignment
        for start, end in self._goal.unused_ranges():
            start += -start % alignment
            end -= end % alignment
            if time.monotonic() > self._deadline or not self._disk.discard(start, end - start):
                return
            self.bytes_discarded += end - start

    def finish(self, seconds: float = MAX_WAIT) -> None:
        """Wait until everything is discarded, for at most ``seconds``; nothing is discarded after this returns."""
        self._thread.join(seconds)
        self._deadline = 0.0
        self._thread.join()
