# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks every record of an image on all cores of the controller."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader, Record, check_record
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import USED
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import Codec, find_zstd

MOST_WORKERS = 16
"""More than that a disk does not feed, and each takes three chunks of memory."""

Promise = tuple[bytes, bytes]
"""The hash of a frame, and the hash of the content that it is to decode to."""


class RecordChecks:
    """Checks of single records, to be called from several threads at once."""

    def __init__(self, image: ImageReader, workers: int) -> None:
        self._image = image
        self._benches: SimpleQueue[tuple[Codec, memoryview]] = SimpleQueue()
        self._kept: set[Promise] = set()
        zstd = find_zstd()
        for dummy in range(workers):
            self._benches.put((zstd.codec(), memoryview(bytearray(image.header.geometry.chunk_size))))

    def check(self, record: Record) -> None:
        """Raise BadImage unless the record's frame is undamaged and decodes to the content it promises."""
        header = record.header
        promise = (header.frame_hash, header.content_hash)
        if promise in self._kept:
            self._image.check_frame(record)
            return
        codec, room = self._benches.get()
        try:
            check_record(self._image, record, codec, room)
        finally:
            self._benches.put((codec, room))
        if header.flags != USED:
            # All unused chunks of an image have the same frame, and so have chunks of zeros: most of a disk, decoded once.
            self._kept.add(promise)


def verify_image(image: ImageReader) -> None:
    """Read the whole file and check every record, those of unused chunks too; raises BadImage at the first that is damaged."""
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    checks = RecordChecks(image, workers)
    window: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for record in image.all_records():
                window.append(pool.submit(checks.check, record))
                if len(window) > 2 * workers:
                    window.popleft().result()
            for check in window:
                check.result()
        finally:
            pool.shutdown(cancel_futures=True)
