# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes records to a disk, except for the guards, the sectors that make it bootable."""

from __future__ import annotations

import contextlib
import hashlib
from functools import partial
from typing import Callable, Iterable, Union

from ..disk.background_sync import BackgroundSync
from ..disk.raw_io import RawDisk, aligned_buffer, spans, write_spans
from ..errors import ImagingError
from ..image.geometry import Geometry
from ..image.index import Index, Row
from ..image.record import ZERO, RecordHeader, max_frame_size
from ..reasons import DAMAGED_IMAGE
from ..zstd import Codec, Zstd
from .goal import Goal
from .guards import Guards
from .pipeline import SPARE_SLOTS, OrderedPipeline, Worker, worker_count
from .stopwatch import Stopwatch, Stopwatches

Receive = Callable[[memoryview], Union[RecordHeader, None]]
"""Fills the start of a buffer with the next frame and returns its record header; None when there is none left."""


Checked = Callable[[RecordHeader, memoryview], None]
"""Called with a record whose frame was checked; the frame is only valid during the call. It runs in a thread of the pipeline."""

Reject = Callable[[int, ImagingError], None]

MAX_ZERO_SIZE = 1 << 30
"""Maximum bytes to zero before the progress is recorded."""

FLUSH_STEP = 1 << 30
"""Bytes after which the disk is flushed while more is written: seldom, as flushing often costs more than it saves where the medium is slow."""

MAX_UNFLUSHED = 2 << 30
"""Bytes that may be written and not be flushed."""


class DamagedFrame(ImagingError):
    """A frame does not match its record header."""

    code = DAMAGED_IMAGE

    def __init__(self, chunk: int) -> None:
        super().__init__(f"The frame of chunk {chunk} arrived damaged.")
        self.chunk = chunk


def _raise(_chunk: int, error: ImagingError) -> None:
    raise error


def ignore(_header: RecordHeader, _frame: memoryview) -> None:
    """Ignore a record."""


class _Slot:
    def __init__(self, geometry: Geometry) -> None:
        self.frame = aligned_buffer(max_frame_size(geometry.chunk_size))
        self.content = aligned_buffer(geometry.chunk_size)
        self.header: RecordHeader


class Restore:
    """Makes a held, writable disk equal to its goal. Records may come in any order and more than once."""

    def __init__(
        self, disk: RawDisk, goal: Goal, index: Index, guards: Guards, zstd: Zstd, watches: Stopwatches
    ) -> None:
        self._disk = disk
        self._goal = goal
        self._geometry = goal.geometry
        self._index = index
        self._guards = guards
        self._watches = watches
        self._own = Worker(zstd, watches)
        self._slots: list[_Slot] = []
        self.workers = worker_count(2 * self._geometry.chunk_size)
        self.bytes_written = 0
        """Bytes written or zeroed, without discarded ones."""

    def write_known(self, rows: Iterable[Row], written: Callable[[int], None]) -> None:
        """Write chunks whose content this end knows (zeros and patches), in ascending order.

        ``written`` is called with each written chunk. Raises DiskError.
        """
        writing = self._watches.new()
        start = end = 0
        chunks: list[int] = []

        def flush() -> None:
            if end > start:
                self._disk.zero(start, end - start)
                self.bytes_written += end - start
            for chunk in chunks:
                written(chunk)
            chunks.clear()
            writing.busy("zero")

        for row in rows:
            own = self._goal.patched(row.chunk)
            if own and not row.flags & ZERO:
                content = aligned_buffer(len(own.content))
                content[:] = own.content
                self._write_chunk(row, content)
                written(row.chunk)
                writing.busy("write")
                continue
            offset, length = self._geometry.offset(row.chunk), self._geometry.length(row.chunk)
            for low, high in spans(self._goal.ranges(row), self._disk.alignment, length):
                if offset + low != end or end - start >= MAX_ZERO_SIZE:
                    flush()
                    start = offset + low
                end = offset + high
            chunks.append(row.chunk)
        flush()

    def write(
        self,
        receive: Receive,
        interrupt: Callable[[], None],
        written: Callable[[int], None],
        reject: Reject = _raise,
        stage: Callable[[], str] = lambda: "receive",
        checked: Checked = ignore,
    ) -> None:
        """Write what ``receive`` yields, except for the guards; ``written`` is called with each written chunk, which may not be flushed yet.

        ``interrupt`` must make a blocked ``receive`` raise. ``reject`` is called with a chunk whose record is wrong, and with the error; unless
        it raises, writing goes on. ``stage`` returns the stage that the latest ``receive`` belongs to. ``checked``
        is called with each record that is right, before it is written. Raises DiskError, and what ``receive`` and
        ``reject`` raise; without a ``reject``, DamagedFrame and ImagingError.
        """
        receiving = self._watches.new()
        writing = self._watches.new()

        def feed(slot: _Slot) -> bool:
            receiving.wait("receive")
            header = receive(slot.frame)
            if header is None:
                return False
            slot.header = header
            receiving.busy(stage())
            return True

        if not self._slots:
            self._slots = [_Slot(self._geometry) for dummy in range(self.workers + SPARE_SLOTS)]
        pipeline = OrderedPipeline(self._slots, feed, partial(self._work, checked), self.workers, interrupt)
        before = self.bytes_written
        flushing = BackgroundSync(self._disk.flush, FLUSH_STEP, MAX_UNFLUSHED)
        with contextlib.closing(flushing), contextlib.closing(pipeline.results()) as results:
            for slot, content in results:
                writing.wait("write")
                if isinstance(content, ImagingError):
                    reject(slot.header.chunk, content)
                    continue
                row = self._goal.row(slot.header.chunk)
                if row is not None:
                    self._write_chunk(row, content)
                    flushing.wrote(self.bytes_written - before)
                written(slot.header.chunk)
                writing.busy("write")

    def _write_chunk(self, row: Row, content: memoryview) -> None:
        offset = self._geometry.offset(row.chunk)
        self._guards.hold_back(offset, content)
        self.bytes_written += write_spans(self._disk, offset, content, self._goal.ranges(row))

    def _work(self, checked: Checked, slot: _Slot) -> memoryview | ImagingError:
        """Return the content of a slot's frame, or the error that it has none."""
        own = self._own
        own.watch.wait("decompress")
        content = slot.content[: slot.header.content_size]
        frame = slot.frame[: slot.header.frame_size]
        try:
            decode(self._index, slot.header, frame, own.codec, content, own.watch)
        except ImagingError as error:
            return error
        checked(slot.header, frame)
        return content


def decode(
    index: Index, header: RecordHeader, frame: memoryview, codec: Codec, content: memoryview, watch: Stopwatch
) -> None:
    """Fill ``content`` from an untrusted record, and check it against the index; raises DamagedFrame, ImagingError."""
    row = index.find(header.chunk)
    if row is None or not row.describes(header):
        raise ImagingError(f"A record of chunk {header.chunk} arrived that does not match the image's index.")
    try:
        _decode(header, frame, codec, content, watch)
    except ImagingError as error:
        # The frame's hash is its sender's word, so it proves nothing of the content. It says whether the frame is what its sender read.
        if hashlib.sha256(frame).digest() != header.frame_hash:
            raise DamagedFrame(header.chunk) from error
        raise


def _decode(header: RecordHeader, frame: memoryview, codec: Codec, content: memoryview, watch: Stopwatch) -> None:
    if header.flags & ZERO:
        content[:] = bytes(len(content))
        return
    codec.decompress_into(frame, content)
    watch.busy("decompress")
    if hashlib.sha256(content).digest() != header.content_hash:
        raise ImagingError(f"The frame of chunk {header.chunk} decompresses to something else than the index says.")
    watch.busy("hash")
