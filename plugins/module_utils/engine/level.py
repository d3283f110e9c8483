# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses the zstd level of a capture: a fixed one, or one that follows the bottleneck.

On a slow link, spare processor time buys smaller frames. Two numbers show it: the share of the time for which the sender was busy (because the
link takes no more), and the share for which the workers were busy. On a fast link it is the lowest level that is worth its time: an image is
captured once and restored many times.
"""

from __future__ import annotations

import time

from ..errors import ImagingError
from .stopwatch import BUSY, Stopwatches

COSTS = {
    3: 1.0,
    4: 1.6,
    5: 2.5,
    6: 3.0,
    7: 4.1,
    8: 4.4,
    9: 6.2,
    10: 6.9,
    11: 11.0,
    12: 12.0,
}
"""The levels to choose from, with their processor time relative to level 3.

Source: measured with zstd 1.5.4 on 150 MiB of programs and libraries. Other content differs; the next measurement corrects that.

There is none below 3, although a capture over a fast link would take less time with one. Measured with zstd 1.5.4 on 360 MiB of a disk with NTFS
and ext4, and taken to the GiB: two cores compress it at the levels -5, 1, 2, 3, 5 and 6 in 0.7, 0.8, 0.9, 1.2, 2.4 and 3.2 s, and gigabit Ethernet
(117 MB/s) carries the result in 3.2, 2.5, 2.5, 2.4, 2.3 and 2.3 s. For one capture and 3 to 30 restores, each of which waits for the link, level 3
takes at most 1.4 % more time than the best level for their number, and level -5 takes 22 to 32 % more. Restores of many laptops count once by relay,
and each by itself without.
"""

FIRST = min(COSTS)

AUTO = "auto"
LOWEST, HIGHEST = -7, 19
"""The fixed levels that may be chosen."""

RECOMPRESSION = range(1, HIGHEST + 1)
"""The levels at which an image may be compressed anew. The faster ones below are for captures, and those above need much memory to decompress."""

CONTEXTS = 100 << 20
"""Maximum memory of the compressors of all workers together, in bytes."""

INTERVAL = 0.3
"""Minimum seconds over which the shares are measured. In a shorter time a slow link looks fast, until the kernel's buffers are full."""

FULL = 0.85
"""Minimum busy share at which the sender or the workers count as the limit."""

SPARE = 0.65
"""Maximum busy share at which they have capacity to spare."""

AIM = 0.8
"""Maximum busy share of the workers that is expected at a higher level."""


def parse_level(value: str) -> int | None:
    """Return the level that a user gave, None for the automatic one; raises ImagingError."""
    if value == AUTO:
        return None
    try:
        level = int(value)
    except ValueError:
        level = HIGHEST + 1
    if not LOWEST <= level <= HIGHEST:
        raise ImagingError(
            f"compression_level is {value}, and must be {AUTO}, or from {LOWEST} to {HIGHEST}. Set imaging_compression_level."
        )
    return level


class AutoLevel:
    """A level that follows the bottleneck. The sending thread calls :meth:`sent` after each record."""

    def __init__(self, watches: Stopwatches, workers: int, slots: int) -> None:
        self.now = FIRST
        self._watches = watches
        self._workers = workers
        self._slots = slots
        self._levels = [level for level in COSTS if workers * context_size(level) <= CONTEXTS]
        self._records = -slots
        """Records since the interval began, without those that were in flight when it began."""
        self._began = 0.0
        self._before: tuple[float, ...] = ()

    def sent(self) -> None:
        """Note that a record was sent, and choose the level for those that follow."""
        self._records += 1
        if self._records == 0:
            self._begin()
        elif self._records >= 2 * self._workers and time.perf_counter() - self._began >= INTERVAL:
            self._adjust()

    def _begin(self) -> None:
        self._began = time.perf_counter()
        self._before = self._busy()

    def _busy(self) -> tuple[float, ...]:
        stages = self._watches.stages()
        return tuple(stages.get(name, {}).get(BUSY, 0.0) for name in ("hash", "compress", "send"))

    def _adjust(self) -> None:
        seconds = time.perf_counter() - self._began
        hashing, compressing, sending = ((now - before) / seconds for now, before in zip(self._busy(), self._before))
        level = better(self.now, self._levels, hashing / self._workers, compressing / self._workers, sending)
        if level != self.now:
            self.now = level
            self._records = -self._slots
        else:
            self._records = 0
            self._begin()


def better(level: int, levels: list[int], hashing: float, compressing: float, sending: float) -> int:
    """Return the next level, from the shares of the time for which the workers hashed and compressed, and for which the sender was busy.

    On a slow link this is the highest level for which the workers have time; on one that got faster, the highest that keeps the sender busy.
    """
    working = hashing + compressing
    place = levels.index(level)
    if sending >= FULL and working < SPARE:
        candidates, room = levels[place:], AIM
    elif working >= FULL and sending < SPARE:
        candidates, room = levels[:place], working * sending / FULL
    else:
        return level
    fitting = [each for each in candidates if hashing + compressing * COSTS[each] / COSTS[level] <= room]
    return fitting[-1] if fitting else levels[0]


def context_size(level: int) -> int:
    """Return the memory of a compressor for chunks of 4 MiB at a level, in bytes.

    Source: measured with ZSTD_sizeof_CCtx of zstd 1.5.4, in MiB: 1.2 at level 3, 3.5 at 5, 12.5 at 9, 48.5 at 12 and 14, 49.2 at 19, 65.2 at 22.
    """
    for highest, size in ((5, 4 << 20), (9, 13 << 20), (19, 50 << 20)):
        if level <= highest:
            return size
    return 66 << 20
