# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passes an image on to other laptops while it arrives: each record as soon as it was checked, and what is on the disk already."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import OrderedDict, deque
from enum import Enum
from typing import AbstractSet, Callable, Iterable, Sequence

from ..disk.raw_io import RawDisk, ReadError, aligned_buffer, read_spans
from ..errors import ImagingError
from ..image.index import Index, Row
from ..image.record import RecordHeader, mask, unpack_ranges
from ..stream.link import Kind, Link, LinkError
from ..stream.relaying import lack, receive_wants
from ..zstd import Zstd

LEVEL = 1
"""The zstd level of records that are made from the disk: the fastest one."""

MAX_TAKERS = 8
"""How many laptops may take chunks at a time."""

PAUSE = 0.5
"""Seconds after which a sender looks again whether chunks are on the disk now."""

WINDOW_SHARE = 4
MAX_WINDOW = 256 << 20
"""The window takes this share of the memory that is available, and no more than so many bytes."""


def window_size(path: str = "/proc/meminfo") -> int:
    """Return the bytes that checked frames may take in memory; 0 when the system does not say how much is available (proc(5), MemAvailable)."""
    try:
        with open(path, encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        available = int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, LookupError):
        return 0
    return min(MAX_WINDOW, available // WINDOW_SHARE)


NOT_WANTED, COMING, READY = range(3)
"""The states of a chunk for a laptop that takes chunks. COMING: it can't be sent yet."""


class Place(Enum):
    """Where a laptop has a chunk."""

    DISK = "disk"
    COMING = "coming"
    """It was not compared yet, or will arrive."""
    NOWHERE = "nowhere"


class Window:
    """The checked records of the latest chunks, up to a number of bytes. Not for several threads at once."""

    def __init__(self, size: int, pinned: Iterable[int] = ()) -> None:
        """The ``pinned`` chunks are kept in any case."""
        self._size = size
        self.pinned = frozenset(pinned)
        self._records: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        self._kept: dict[int, tuple[bytes, bytes]] = {}
        self._bytes = 0

    def add(self, chunk: int, header: bytes, frame: bytes) -> None:
        """Keep a record; the oldest ones make room for it."""
        if chunk in self.pinned:
            self._kept[chunk] = (header, frame)
            return
        before = self._records.pop(chunk, None)
        self._bytes += len(frame) - (len(before[1]) if before else 0)
        self._records[chunk] = (header, frame)
        while self._bytes > self._size:
            _chunk, (_header, oldest) = self._records.popitem(last=False)
            self._bytes -= len(oldest)

    def clear(self) -> None:
        """Keep nothing any more."""
        self.pinned = frozenset()
        self._kept.clear()
        self._records.clear()
        self._bytes = 0

    def get(self, chunk: int) -> tuple[bytes, bytes] | None:
        """Return the packed header and the frame of a chunk, if they are kept."""
        return self._kept.get(chunk) or self._records.get(chunk)


class DiskRecords:
    """Makes records from a disk. For one thread."""

    def __init__(self, disk: RawDisk, index: Index, image_id: bytes, zstd: Zstd) -> None:
        self._disk = disk
        self._index = index
        self._image_id = image_id
        self._codec = zstd.codec()
        self._buffer = aligned_buffer(index.geometry.chunk_size)
        self._zeros = bytes(index.geometry.chunk_size)

    def record(self, row: Row) -> tuple[bytes, bytes] | None:
        """Return packed header and frame of a chunk; None when the disk does not hold what the image has there, or can't be read."""
        geometry = self._index.geometry
        length = geometry.length(row.chunk)
        ranges = unpack_ranges(row.ranges, length)
        content = self._buffer[:length]
        try:
            read_spans(self._disk, geometry.offset(row.chunk), content, ranges)
        except ReadError:
            return None
        mask(content, ranges, self._zeros)
        if hashlib.sha256(content).digest() != row.content_hash:
            return None
        frame = self._codec.compress(content, LEVEL)
        header = RecordHeader(
            chunk=row.chunk,
            flags=row.flags,
            ranges=row.ranges,
            content_size=length,
            content_hash=row.content_hash,
            frame_size=len(frame),
            frame_hash=hashlib.sha256(frame).digest(),
            image_id=self._image_id,
        )
        return header.pack(), frame


class Share:
    """What a laptop has of an image, for the laptops that take it from there. No laptop makes it wait: each has a thread of its own."""

    def __init__(
        self,
        index: Index,
        window: Window,
        place: Callable[[int], Place],
        disk_records: Callable[[], DiskRecords | None],
        keep: bool = False,
        max_takers: int = MAX_TAKERS,
    ) -> None:
        """``place`` says where a chunk is that is not in the window; ``disk_records`` makes the reader of one sender, if there is a disk to read.

        With ``keep``, the window is filled from the beginning, else from when the first laptop takes chunks.
        """
        self.index = index
        self.place = place
        self._window = window
        self._disk_records = disk_records
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._room = threading.Condition(lock)
        """As _changed, and also when a record is about to be sent."""
        self._keep = keep
        self._max_takers = max_takers
        self._takers: dict[_Taker, threading.Thread] = {}
        self.left = float("-inf")
        """When a laptop last left (time.monotonic)."""
        self.ended = False
        """Whether nothing is passed on any more."""
        self._reason = ""
        """Why, if laptops are to be told."""
        self.sent = 0
        """Bytes of frames."""

    def notify(self) -> None:
        """Wake all that wait; with the lock held."""
        self._changed.notify_all()
        self._room.notify_all()

    def made_room(self) -> None:
        """Note that a record is about to be sent; with the lock held."""
        self._room.notify_all()

    @property
    def busy(self) -> bool:
        """Whether a laptop takes chunks."""
        return bool(self._takers)

    def add(self, header: RecordHeader, frame: bytes | memoryview) -> None:
        """Pass on a record that was checked. What the first laptop can get from the disk later is not copied before."""
        if not self._keep and header.chunk not in self._window.pinned:
            return
        packed, copy = header.pack(), bytes(frame)
        with self._changed:
            self._window.add(header.chunk, packed, copy)
            for taker in self._takers:
                taker.came(header.chunk)
            self.notify()

    def serve(self, link: Link) -> None:
        """Serve another laptop in a thread of its own, until its link breaks; too many laptops are turned away."""
        with self._changed:
            served = not self.ended and len(self._takers) < self._max_takers and self._start(link)
        if not served:
            self._take_leave(link)

    def _start(self, link: Link) -> bool:
        try:
            taker = _Taker(self, link, self._changed)
            thread = threading.Thread(target=self._serve, args=(taker,), name="share", daemon=True)
            threading.Thread(target=taker.listen, name="share-inbox", daemon=True).start()
            thread.start()
        except (RuntimeError, MemoryError):  # the system has no more threads, say, at the moment
            return False
        self._keep = True
        self._takers[taker] = thread
        return True

    def _take_leave(self, link: Link) -> None:
        if self._reason:
            link.end(self._reason)
        link.close()

    def _serve(self, taker: _Taker) -> None:
        try:
            taker.send_all(self._disk_records())
        except ImagingError:  # its link broke, or it asked for what can't be; the others are not affected
            pass
        finally:
            self._take_leave(taker.link)
            with self._changed:
                self._takers.pop(taker, None)
                self.left = time.monotonic()
                self.notify()

    def find(self, chunk: int, disk: DiskRecords | None) -> tuple[bytes, bytes] | None:
        """Return the record of a chunk, from memory or from the disk."""
        with self._changed:
            record = self._window.get(chunk)
        row = self.index.find(chunk)
        if record is None and row is not None and disk is not None and self.place(chunk) is Place.DISK:
            record = disk.record(row)
        return record

    def has(self, chunk: int) -> bool:
        """Return whether a chunk is in the window; with the lock held."""
        return self._window.get(chunk) is not None

    def wait_for_takers(self, seconds: float) -> bool:
        """Wait until no laptop takes chunks any more; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._takers, seconds)

    def end(self, reason: str = "") -> None:
        """Pass on and keep nothing more. All links end: at once or, with a reason, when the laptop was told of it."""
        with self._changed:
            self.ended = True
            self._reason = reason
            self._keep = False
            self._window.clear()
            takers = list(self._takers)
            self.notify()
        if not reason:
            for taker in takers:
                taker.link.close()

    def close(self) -> None:
        """End all links at once, and wait for the threads that read the disk."""
        with self._changed:
            threads = list(self._takers.values())
        self.end()
        for thread in threads:
            thread.join()


class _Taker:
    """A laptop that takes chunks: what it still wants, and what can be sent to it now."""

    def __init__(self, share: Share, link: Link, changed: threading.Condition) -> None:
        self.link = link
        self._share = share
        self._changed = changed
        self._states = bytearray(share.index.geometry.chunk_count)
        """For each chunk NOT_WANTED, COMING or READY. So a chunk waits once, however often it is requested."""
        self._fresh: deque[int] = deque()
        """Chunks that have just arrived; they are sent first, as long as they are in memory."""
        self._ready: deque[int] = deque()
        self.coming = 0
        """How many chunks are COMING."""
        self._looked = time.monotonic()
        """When that was last looked at."""

    @property
    def queued(self) -> int:
        """How many chunks can be sent now."""
        return len(self._fresh) + len(self._ready)

    def first_coming(self, without: AbstractSet[int]) -> int | None:
        """Return the first chunk that is COMING, apart from some; with the lock held."""
        chunk = self._states.find(COMING) if self.coming else -1
        while chunk in without:
            chunk = self._states.find(COMING, chunk + 1)
        return chunk if chunk >= 0 else None

    def came(self, chunk: int) -> None:
        """Note that a chunk has arrived; with the lock held."""
        if self._states[chunk] == COMING:
            self._set_ready(chunk, self._fresh)

    def _wait_for(self, chunk: int) -> bool:
        """Return whether that is new."""
        if self._states[chunk] != NOT_WANTED:
            return False
        self._states[chunk] = COMING
        self.coming += 1
        return True

    def _set_ready(self, chunk: int, queue: deque[int]) -> None:
        self._states[chunk] = READY
        self.coming -= 1
        queue.append(chunk)

    def listen(self) -> None:
        """Receive requests until the link breaks."""
        try:
            receive_wants(self.link, len(self._states), self._want)
        finally:
            self.link.close()
            with self._changed:
                self._share.notify()

    def _want(self, ranges: Sequence[tuple[int, int]]) -> None:
        with self._changed:
            for chunk in itertools.chain.from_iterable(itertools.starmap(range, ranges)):
                if self._wait_for(chunk):
                    self._look_at(chunk)
            self._share.notify()

    def _look_at(self, chunk: int) -> None:
        if self._share.has(chunk) or self._share.place(chunk) is not Place.COMING:
            self._set_ready(chunk, self._ready)

    def send_all(self, disk: DiskRecords | None) -> None:
        """Send records as they can be had; raises LinkError when the link breaks."""
        while True:
            chunk = self._next()
            if chunk is None:
                continue
            record = self._share.find(chunk, disk)
            if record is not None:
                self.link.send(Kind.RECORD, *record)
                self._share.sent += len(record[1])
            elif self._share.place(chunk) is Place.COMING:
                with self._changed:
                    self._wait_for(chunk)  # it has left the window before it was written
                    self._share.notify()
            else:
                lack(self.link, [chunk])

    def _next(self) -> int | None:
        """Return a chunk that can be sent, or None after a while."""
        with self._changed:
            if self.link.closed or self._share.ended:
                raise LinkError("The link was closed.")
            if time.monotonic() - self._looked >= PAUSE:
                self._look_again()
            if not self.queued:
                self._changed.wait(PAUSE)
                return None
            chunk = (self._fresh or self._ready).popleft()
            self._states[chunk] = NOT_WANTED
            self._share.made_room()
            return chunk

    def _look_again(self) -> None:
        """Find chunks that are on the disk, or will never come, although they did not arrive."""
        self._looked = time.monotonic()
        chunk = self._states.find(COMING)
        while chunk >= 0:
            self._look_at(chunk)
            chunk = self._states.find(COMING, chunk + 1)
