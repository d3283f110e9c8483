# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes records to a disk so that it never boots half-way: guards down first, guards up last.

The guards are what makes a disk bootable: the boot sector and both GPT headers (UEFI 2.10, section 5.3: the primary header lies in
the second sector, the backup header in the last one).
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from typing import Callable, Union

from ..disk.raw_io import RawDisk, aligned_buffer, write_spans
from ..errors import ImagingError
from ..image.geometry import Geometry
from ..image.index import Index
from ..image.record import ZERO, RecordHeader, largest_frame, unpack_ranges
from ..zstd import Codec, Zstd
from .pipeline import SPARE_SLOTS, OrderedPipeline, worker_count
from .stopwatch import Stopwatch, Stopwatches

Receive = Callable[[memoryview], Union[RecordHeader, None]]
"""Fills the start of a buffer with the next frame and returns its record header, or None when there are no more."""


class DamagedFrame(ImagingError):
    """A frame is not the one that its record header promised."""

    def __init__(self, chunk: int) -> None:
        super().__init__(f"The frame of chunk {chunk} arrived damaged.")
        self.chunk = chunk


class _Slot:
    def __init__(self, geometry: Geometry) -> None:
        self.frame = memoryview(bytearray(largest_frame(geometry.chunk_size)))
        self.content = aligned_buffer(geometry.chunk_size)
        self.header: RecordHeader


class _Worker(threading.local):
    codec: Codec | None = None
    watch: Stopwatch | None = None


class Restore:
    """Makes a held, writable disk equal to an index, from records in any order; one twice does no harm."""

    def __init__(self, disk: RawDisk, geometry: Geometry, index: Index, zstd: Zstd, watches: Stopwatches) -> None:
        self._disk = disk
        self._geometry = geometry
        self._index = index
        self._zstd = zstd
        self._watches = watches
        self._own = _Worker()
        self._zeros = bytes(geometry.chunk_size)
        sector = geometry.logical_sector_size
        self._guards = (0, sector, geometry.disk_size - sector)
        self._kept: dict[int, memoryview] = {}
        self.workers = worker_count(2 * geometry.chunk_size)
        self.bytes_written = 0

    def lower_guards(self) -> None:
        """Make the disk unbootable before anything else is written, durably."""
        sector = self._geometry.logical_sector_size
        blank = aligned_buffer(sector)
        # A larger disk has its old backup header at its own end, beyond the image's.
        for offset in sorted({*self._guards, self._disk.size - sector}):
            if offset + sector <= self._disk.size:
                self._disk.write_from(offset, blank)
        self._disk.flush()

    def raise_guards(self) -> None:
        """Make the disk bootable, once everything else is on the medium; raises DiskError."""
        self._disk.flush()
        for offset in sorted(self._kept, reverse=True):
            self._disk.write_from(offset, self._kept[offset])
        self._disk.flush()

    def _keep_guards(self, offset: int, content: memoryview) -> None:
        """Take the guards out of what is about to be written at ``offset``, and keep them for later."""
        sector = self._geometry.logical_sector_size
        for start in self._guards:
            if offset <= start < offset + len(content):
                guard = content[start - offset : start - offset + sector]
                kept = aligned_buffer(sector)
                kept[:] = guard
                self._kept[start] = kept
                guard[:] = self._zeros[:sector]

    def write(self, receive: Receive, interrupt: Callable[[], None], written: Callable[[int], None]) -> None:
        """Write what ``receive`` yields, but for the guards; ``written`` is called with each chunk that is on its way to the medium.

        ``interrupt`` must make a blocked ``receive`` raise. Raises DamagedFrame, DiskError, and what ``receive`` raises.
        """
        receiving = self._watches.new()
        writing = self._watches.new()

        def feed(slot: _Slot) -> bool:
            receiving.wait("receive")
            header = receive(slot.frame)
            if header is None:
                return False
            slot.header = header
            receiving.busy("receive")
            return True

        slots = [_Slot(self._geometry) for dummy in range(self.workers + SPARE_SLOTS)]
        pipeline = OrderedPipeline(slots, feed, self._work, self.workers, interrupt)
        with contextlib.closing(pipeline.results()) as results:
            for slot, content in results:
                writing.wait("write")
                header = slot.header
                offset = self._geometry.offset(header.chunk)
                self._keep_guards(offset, content)
                ranges = unpack_ranges(header.ranges, header.content_size)
                self.bytes_written += write_spans(self._disk, offset, content, ranges)
                written(header.chunk)
                writing.busy("write")

    def _work(self, slot: _Slot) -> memoryview:
        own = self._own
        if own.codec is None or own.watch is None:
            own.codec, own.watch = self._zstd.codec(), self._watches.new()
        own.watch.wait("decompress")
        header = slot.header
        self._check_header(header)
        content = slot.content[: header.content_size]
        frame = slot.frame[: header.frame_size]
        if hashlib.sha256(frame).digest() != header.frame_hash:
            raise DamagedFrame(header.chunk)
        own.watch.busy("hash")
        if header.flags & ZERO:
            content[:] = self._zeros[: len(content)]
            return content
        own.codec.decompress_into(frame, content)
        own.watch.busy("decompress")
        if hashlib.sha256(content).digest() != header.content_hash:
            raise ImagingError(f"The frame of chunk {header.chunk} decodes to something else than the index promises.")
        own.watch.busy("hash")
        return content

    def _check_header(self, header: RecordHeader) -> None:
        row = self._index.find(header.chunk)
        if row is None or (row.flags, row.ranges, row.content_hash) != (
            header.flags,
            header.ranges,
            header.content_hash,
        ):
            raise ImagingError(
                f"A record of chunk {header.chunk} arrived that is not what the image's index says of it."
            )
