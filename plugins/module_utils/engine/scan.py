# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the masked chunks of a disk with a goal."""

from __future__ import annotations

import hashlib
from typing import Generator, Iterable

from ..disk.raw_io import RawDisk, ReadError, aligned_buffer, read_spans
from ..image.index import Row
from ..image.record import ZERO, mask
from .goal import Goal
from .pipeline import BUDGET, SPARE_SLOTS, OrderedPipeline, TimedWorker, worker_count
from .stopwatch import Stopwatches


class _Slot:
    def __init__(self, size: int) -> None:
        self.buffer = aligned_buffer(size)
        self.row: Row
        self.readable = True


class Scan:
    """Reads chunks from the medium, masks them with the goal's used ranges, and compares their hashes."""

    def __init__(self, disk: RawDisk, goal: Goal, watches: Stopwatches) -> None:
        self._disk = disk
        self._goal = goal
        self._geometry = goal.geometry
        self._watches = watches
        self._zeros = bytes(self._geometry.chunk_size)
        self._own = TimedWorker(watches)
        # Half of the budget, because a restore may run at the same time.
        self.workers = worker_count(self._geometry.chunk_size, BUDGET // 2)
        self._slots = [_Slot(self._geometry.chunk_size) for dummy in range(self.workers + SPARE_SLOTS)]
        self.unreadable = 0
        """The number of chunks that could not be read."""
        self.bytes_read = 0

    def compare(self, rows: Iterable[Row]) -> Generator[tuple[Row, bool], None, None]:
        """Yield each of ``rows`` in order, and whether the disk holds it. An unreadable chunk is not equal: writing may repair it."""
        pending = iter(rows)
        reading = self._watches.new()

        def feed(slot: _Slot) -> bool:
            reading.wait("read")
            row = next(pending, None)
            if row is None:
                return False
            slot.row = row
            self._read(slot)
            reading.busy("read")
            return True

        for slot, equal in OrderedPipeline(self._slots, feed, self._work, self.workers).results():
            yield slot.row, equal

    def _read(self, slot: _Slot) -> None:
        row = slot.row
        length = self._geometry.length(row.chunk)
        try:
            offset, ranges = self._geometry.offset(row.chunk), self._goal.ranges(row)
            self.bytes_read += read_spans(self._disk, offset, slot.buffer[:length], ranges)
            slot.readable = True
        except ReadError:
            slot.readable = False
            self.unreadable += 1

    def _work(self, slot: _Slot) -> bool:
        watch = self._own.watch
        watch.wait("compare")
        row = slot.row
        content = slot.buffer[: self._geometry.length(row.chunk)]
        mask(content, self._goal.ranges(row), self._zeros)
        equal = slot.readable and (
            self._zeros.startswith(content)
            if row.flags & ZERO
            else hashlib.sha256(content).digest() == row.content_hash
        )
        watch.busy("compare")
        return equal
