# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns a disk into records: read, mask, hash, compress, in disk order."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import Generator, Protocol, Tuple, Union

from ..disk.raw_io import Readable, ReadError, aligned_buffer, read_spans, spans
from ..errors import ImagingError
from ..image.geometry import Geometry
from ..image.index import Index, Row
from ..image.record import USED, ZERO, RecordHeader, mask, pack_ranges, zeros_hash
from ..reasons import UNREADABLE_SECTORS
from ..zstd import Codec, Zstd
from .level import FIRST, AutoLevel, context_size
from .pipeline import SPARE_SLOTS, OrderedPipeline, Worker, worker_count
from .stopwatch import Stopwatches

MAX_BAD_RANGES = 1000
"""A disk with more unreadable ranges needs a dedicated rescue tool, such as ddrescue."""

NO_FRAME_HASH = bytes(32)


class UnreadableSectors(ImagingError):
    """Used bytes of the disk can't be read; ``ranges`` are their offsets."""

    code = UNREADABLE_SECTORS

    def __init__(self, ranges: list[tuple[int, int]], cause: ReadError) -> None:
        super().__init__(str(cause))
        self.ranges = ranges


class ReadableDisk(Readable, Protocol):
    """The disk to read; see ``disk.raw_io.RawDisk``."""

    def is_hole(self, offset: int, length: int) -> bool:
        """Return whether these bytes hold no data at all."""

    def salvage_into(self, offset: int, view: memoryview) -> list[tuple[int, int]]:
        """Fill ``view`` as far as possible, and the rest with zeros; returns the ranges that could not be read."""


class UsedRanges(Protocol):
    """Which bytes of a disk matter."""

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The used ranges between two offsets, clipped to them."""


class _Slot:
    """One chunk on its way from the disk to its frame."""

    def __init__(self, size: int) -> None:
        self.buffer = aligned_buffer(size)
        self.chunk = 0
        self.ranges: list[tuple[int, int]] = []
        self.hole = False


Sent = Tuple[RecordHeader, Union[bytes, None]]


class Capture:
    """The records of one held disk. Not for several threads at once."""

    def __init__(
        self,
        disk: ReadableDisk,
        geometry: Geometry,
        used: UsedRanges,
        zstd: Zstd,
        level: int | None,
        image_id: bytes,
        watches: Stopwatches,
        zero_bad_sectors: bool = False,
    ) -> None:
        """``level`` is one of zstd, or None for one that follows what limits the capture.

        With ``zero_bad_sectors`` what can't be read counts as zeros, and is noted in ``bad_ranges``.
        """
        self._disk = disk
        self._geometry = geometry
        self._used = used
        self._image_id = image_id
        self._watches = watches
        self._zero_bad_sectors = zero_bad_sectors
        self._zeros = bytes(geometry.chunk_size)
        self._zero_frames: dict[int, bytes] = {}
        self._own = Worker(zstd, watches)
        self.workers = worker_count(2 * geometry.chunk_size + context_size(FIRST if level is None else level))
        self._fixed = level
        self._auto = AutoLevel(watches, self.workers, self.workers + SPARE_SLOTS)
        self.index = Index(geometry)
        """The index of what was captured so far, without frame offsets."""
        self.bytes_read = 0
        self.bytes_done = 0
        """Used bytes of the chunks whose records were handed out, including those before the first requested chunk."""
        self.bad_ranges: set[tuple[int, int]] = set()
        self.known: Index | None = None
        """The index of an older image of this geometry at the other end. A chunk whose content it has gets a record without a frame."""
        self.forgotten: set[int] = set()
        """Chunks whose copy at the other end turned out to be damaged."""

    @property
    def level(self) -> int:
        """The current zstd level."""
        return self._auto.now if self._fixed is None else self._fixed

    def used_in(self, chunk: int) -> list[tuple[int, int]]:
        """The used ranges of a chunk, counted from its start."""
        offset = self._geometry.offset(chunk)
        return [
            (start - offset, end - offset)
            for start, end in self._used.within(offset, offset + self._geometry.length(chunk))
        ]

    def records(self, start: int, end: int) -> Generator[Sent, None, None]:
        """The records of the used chunks in [start, end), in disk order, without frames for those that are known; raises DiskError,
        UnreadableSectors.

        A chunk that is requested again is read again.
        """
        self.index.truncate(start)
        before = self._geometry.offset(min(start, self._geometry.chunk_count))
        self.bytes_done = sum(high - low for low, high in self._used.within(0, before))
        chunks = iter(range(start, min(end, self._geometry.chunk_count)))
        reading = self._watches.new()
        sending = self._watches.new()

        def feed(slot: _Slot) -> bool:
            reading.wait("read")
            for chunk in chunks:
                slot.ranges = self.used_in(chunk)
                if slot.ranges:
                    slot.chunk = chunk
                    self._read(slot)
                    reading.busy("read")
                    return True
            return False

        slots = [_Slot(self._geometry.chunk_size) for dummy in range(self.workers + SPARE_SLOTS)]
        pipeline = OrderedPipeline(slots, feed, self._work, self.workers)
        with contextlib.closing(pipeline.results()) as results:
            for slot, (header, frame) in results:
                sending.wait("send")
                self.index.append(Row.of(header))
                self.bytes_done += sum(high - low for low, high in slot.ranges)
                yield header, frame
                sending.busy("send")
                if self._fixed is None:
                    self._auto.sent()

    def _read(self, slot: _Slot) -> None:
        offset, length = self._geometry.offset(slot.chunk), self._geometry.length(slot.chunk)
        slot.hole = self._disk.is_hole(offset, length)
        if slot.hole:
            return
        try:
            self.bytes_read += read_spans(self._disk, offset, slot.buffer[:length], slot.ranges)
        except ReadError as error:
            self._salvage(slot, offset, length, error)

    def _salvage(self, slot: _Slot, offset: int, length: int, error: ReadError) -> None:
        bad: list[tuple[int, int]] = []
        for start, end in spans(slot.ranges, self._disk.alignment, length):
            bad += self._disk.salvage_into(offset + start, slot.buffer[start:end])
        # Gaps between used ranges are read along, and errors in them do not matter.
        used = [(max(low, offset + start), min(high, offset + end)) for low, high in bad for start, end in slot.ranges]
        lost = [(low, high) for low, high in used if low < high]
        if lost and not self._zero_bad_sectors:
            raise UnreadableSectors(lost, error)
        self.bad_ranges.update(lost)
        if len(self.bad_ranges) > MAX_BAD_RANGES:
            raise UnreadableSectors(sorted(self.bad_ranges), error)

    def _work(self, slot: _Slot) -> Sent:
        own = self._own
        own.watch.wait("compress")
        length = self._geometry.length(slot.chunk)
        content = slot.buffer[:length]
        zero = slot.hole
        if not zero:
            mask(content, slot.ranges, self._zeros)
            zero = self._zeros.startswith(content)
        content_hash = zeros_hash(length) if zero else hashlib.sha256(content).digest()
        own.watch.busy("hash")
        header = RecordHeader(
            chunk=slot.chunk,
            flags=USED | ZERO if zero else USED,
            ranges=pack_ranges(slot.ranges, length),
            content_size=length,
            content_hash=content_hash,
            frame_size=0,
            frame_hash=NO_FRAME_HASH,
            image_id=self._image_id,
        )
        known = self.known.find(slot.chunk) if self.known else None
        if known is not None and known.content_hash == content_hash and slot.chunk not in self.forgotten:
            return header, None
        frame = self._zero_frame(length, own.codec) if zero else own.codec.compress(content, self.level)
        own.watch.busy("compress")
        frame_hash = hashlib.sha256(frame).digest()
        own.watch.busy("hash")
        return replace(header, frame_size=len(frame), frame_hash=frame_hash), frame

    def _zero_frame(self, length: int, codec: Codec) -> bytes:
        frame = self._zero_frames.get(length)
        if frame is None:
            frame = self._zero_frames[length] = codec.compress(memoryview(bytearray(length)), 3)
        return frame
