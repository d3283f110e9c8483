# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimates the time left of a transfer from its history."""

from ...module_utils.engine.status import COMPARING, STREAMING, VERIFYING, Stages, Status
from ...module_utils.engine.stopwatch import BUSY
from .history import History
from .limits import CONTROLLER_CPU, NETWORK, STORE, TARGET_CPU, TARGET_READ, Shares

SETTLED = 30.0
"""Seconds. The rate that a forecast goes by is that of the last half of the run, or of these last ones if that is more."""

ENOUGH_SCANNED = 32 << 20
"""Minimum bytes read for comparison before their rate is used to estimate the read-back."""

BY_FRAMES = (NETWORK, STORE, CONTROLLER_CPU)
"""The limits whose time depends on the bytes sent, not on those that they decompress to."""


class TimeLeft:
    """Estimates the time left. ``frames`` is the maximum number of bytes that will be sent, None when it is unknown."""

    def __init__(self, history: History, capturing: bool, frames: int | None = None) -> None:
        self._history = history
        self._capturing = capturing
        self._frames = frames

    def seconds(self, status: Status, limit: str) -> float | None:
        """Return the seconds until the transfer is done, while ``limit`` is the limit; None when they are not known yet."""
        since = self._history.settled(SETTLED)
        if since is None:
            return None
        if status.phase == STREAMING:
            left = self.streaming(status, limit)
            if left is None or self._capturing:
                return left
            return left + read_back(status, status.written + max(0, status.data_total - status.data_done))[0]
        last = self._history.last
        rate = (last.done - since.done) / (last.at - since.at)
        if rate <= 0:
            return None
        after = 0.0 if status.phase in (COMPARING, VERIFYING) else read_back(status, status.written)[0]
        return (status.total - status.done) / rate + after

    def streaming(self, status: Status, limit: str, least: float = SETTLED) -> float | None:
        """Return the seconds until everything is sent, at the rate of the last half, or of the last ``least`` seconds if that is more."""
        left = max(0, status.data_total - status.data_done)
        since, last = self._history.settled(least), self._history.last
        if not left:
            return 0.0
        if since is None or last.data_done <= since.data_done:
            return None
        seconds = last.at - since.at
        if self._frames is None or limit not in BY_FRAMES or last.wire <= since.wire:
            return left * seconds / (last.data_done - since.data_done)
        unsent = max(0, self._frames - last.wire)
        if status.data_done > status.written:
            # Equal chunks are not sent, so the remaining share of the frames is at most that of the data.
            unsent = min(unsent, int(self._frames * left / max(1, status.data_total)))
        return unsent * seconds / (last.wire - since.wire)


def read_back(status: Status, size: int) -> tuple[float, Shares]:
    """Return the seconds for reading so many bytes back, and how busy the laptop is meanwhile.

    The estimate uses the rate of the comparisons before; without any, the rate of the writing.
    """
    read = busy(status.stages, "read")
    if status.scanned >= ENOUGH_SCANNED and read > 0:
        compare = busy(status.stages, "compare") / max(1, status.workers)
        longer = max(read, compare)
        return size * longer / status.scanned, {TARGET_READ: read / longer, TARGET_CPU: compare / longer}
    write = busy(status.stages, "write")
    return (size * write / status.written if status.written > 0 else 0.0), {TARGET_READ: 1.0}


def busy(stages: Stages, name: str) -> float:
    """Return for how many seconds a stage was busy."""
    return stages[name][BUSY] if name in stages else 0.0
