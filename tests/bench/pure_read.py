#!/usr/bin/env python3
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read ranges of a disk past the cache and hash them, on all processors, and do nothing else; print the seconds that it took.

Usage: pure_read.py DISK RANGES, where each line of the file RANGES is the start and end of a range in bytes. Nothing that looks at
a whole disk can be faster than this.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import queue
import sys
import threading
import time

PIECE = 4 << 20


def main(disk: str, ranges: str) -> None:
    """Read ahead of as many hashing threads as there are processors."""
    with open(ranges, encoding="ascii") as lines:
        pieces = [
            (position, min(PIECE, end - position))
            for start, end in (map(int, line.split()) for line in lines)
            for position in range(start, end, PIECE)
        ]
    threads = os.cpu_count() or 1
    descriptor = os.open(disk, os.O_RDONLY | os.O_DIRECT)
    free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[mmap.mmap, int] | None] = queue.SimpleQueue()
    for _buffer in range(threads + 3):
        free.put(mmap.mmap(-1, PIECE))

    def work() -> None:
        while (item := full.get()) is not None:
            buffer, size = item
            hashlib.sha256(memoryview(buffer)[:size]).digest()
            free.put(buffer)

    workers = [threading.Thread(target=work) for _worker in range(threads)]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    for position, size in pieces:
        buffer = free.get()
        if os.preadv(descriptor, [memoryview(buffer)[:size]], position) != size:
            sys.exit(f"{disk} can't be read at {position}")
        full.put((buffer, size))
    for _worker in workers:
        full.put(None)
    for worker in workers:
        worker.join()
    print(time.monotonic() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
