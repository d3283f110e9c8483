# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a disk with an index: which used chunks differ in their masked content."""

from __future__ import annotations

import hashlib
import threading
from array import array
from typing import Callable, Iterable

from ..disk.raw_io import RawDisk, aligned_buffer, read_spans
from ..image.geometry import Geometry
from ..image.index import Index, Row
from ..image.record import ZERO, mask, unpack_ranges
from .pipeline import SPARE_SLOTS, OrderedPipeline, worker_count
from .stopwatch import Stopwatch, Stopwatches


class _Slot:
    def __init__(self, size: int) -> None:
        self.buffer = aligned_buffer(size)
        self.row: Row


class Scan:
    """Reads used chunks from the medium, masks them with the image's used ranges, and compares their hashes with the index."""

    def __init__(self, disk: RawDisk, geometry: Geometry, index: Index, watches: Stopwatches) -> None:
        self._disk = disk
        self._geometry = geometry
        self._index = index
        self._watches = watches
        self._zeros = bytes(geometry.chunk_size)
        self._own = threading.local()
        self.workers = worker_count(geometry.chunk_size)
        self.bytes_read = 0
        self.chunks_read = 0

    def differing(self, rows: Iterable[Row], attend: Callable[[], None] = lambda: None) -> array[int]:
        """The numbers of the chunks among ``rows`` that differ; ``attend`` is called now and then and may raise to end the scan."""
        self._disk.flush()  # the page cache must not answer for the medium
        pending = iter(rows)
        reading = self._watches.new()
        result = array("I")

        def feed(slot: _Slot) -> bool:
            reading.wait("read")
            row = next(pending, None)
            if row is None:
                return False
            slot.row = row
            self._read(slot)
            reading.busy("read")
            return True

        slots = [_Slot(self._geometry.chunk_size) for dummy in range(self.workers + SPARE_SLOTS)]
        for slot, equal in OrderedPipeline(slots, feed, self._work, self.workers).results():
            self.chunks_read += 1
            if not equal:
                result.append(slot.row.chunk)
            attend()
        return result

    def _read(self, slot: _Slot) -> None:
        row = slot.row
        length = self._geometry.length(row.chunk)
        self.bytes_read += read_spans(
            self._disk, self._geometry.offset(row.chunk), slot.buffer[:length], unpack_ranges(row.ranges, length)
        )

    def _work(self, slot: _Slot) -> bool:
        watch: Stopwatch | None = getattr(self._own, "watch", None)
        if watch is None:
            watch = self._own.watch = self._watches.new()
        watch.wait("hash")
        row = slot.row
        content = slot.buffer[: self._geometry.length(row.chunk)]
        mask(content, unpack_ranges(row.ranges, len(content)), self._zeros)
        equal = (
            self._zeros.startswith(content)
            if row.flags & ZERO
            else hashlib.sha256(content).digest() == row.content_hash
        )
        watch.busy("hash")
        return equal
