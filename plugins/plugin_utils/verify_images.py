# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks every record of an image on all cores of the controller."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from ..module_utils.image.reader import ImageReader, Record, check_record
from ..module_utils.image.record import USED
from ..module_utils.zstd import Codec, find_zstd

MAX_WORKERS = 16
"""More than that a disk does not feed, and each takes three chunks of memory."""

WORKERS = min(os.cpu_count() or 1, MAX_WORKERS)

Promise = tuple[bytes, bytes]
"""The hash of a frame, and the hash of the content that it is to decode to."""

T = TypeVar("T")
R = TypeVar("R")


class RecordChecks:
    """Checks of single records, to be called from several threads at once."""

    def __init__(self, image: ImageReader) -> None:
        self._image = image
        self._benches: SimpleQueue[tuple[Codec, memoryview]] = SimpleQueue()
        self._kept: set[Promise] = set()
        zstd = find_zstd()
        for dummy in range(WORKERS):
            self._benches.put((zstd.codec(), memoryview(bytearray(image.header.geometry.chunk_size))))

    def check(self, record: Record) -> None:
        """Raise BadImage unless the record's frame is undamaged and decodes to the content it promises."""
        header = record.header
        promise = (header.frame_hash, header.content_hash)
        if promise in self._kept:
            self._image.check_frame(record)
            return
        self.use(record, lambda content: None)
        if header.flags != USED:
            # All unused chunks of an image have the same frame, and so have chunks of zeros: most of a disk, decoded once.
            self._kept.add(promise)

    def use(self, record: Record, consume: Callable[[memoryview], R]) -> R:
        """Check a record, and return what ``consume`` makes of its content, which is gone afterwards."""
        codec, room = self._benches.get()
        try:
            check_record(self._image, record, codec, room)
            return consume(room[: record.header.content_size])
        finally:
            self._benches.put((codec, room))


def in_order(items: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
    """What ``work`` makes of each item, in their order, worked out on all cores with few items in flight."""
    window: deque[Future[R]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for item in items:
                window.append(pool.submit(work, item))
                if len(window) > 2 * WORKERS:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def verify_image(image: ImageReader) -> None:
    """Read the whole file and check every record, those of unused chunks too; raises BadImage at the first that is damaged."""
    for _checked in in_order(image.all_records(), RecordChecks(image).check):
        pass
