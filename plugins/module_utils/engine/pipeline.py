# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordered pipeline: one feeder, several workers, and results in feeding order, in a fixed set of buffers.

The feeding thread hands out the slots (reused buffers) in order, so the oldest piece of work always has its buffer: there is no deadlock, and
the memory is that of the slots.
"""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Callable, Generator, Generic, Sequence, TypeVar

from ..zstd import Codec, Zstd
from .stopwatch import Stopwatch, Stopwatches

S = TypeVar("S")
R = TypeVar("R")

BUDGET = 96 << 20
"""Bytes that the buffers of one engine may take on a laptop; the rest of 256 MiB is for Python and the decoder's own."""

SPARE_SLOTS = 3


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(bytes_per_worker: int, budget: int = BUDGET) -> int:
    """Return as many workers as there are processors, within the byte budget for the slots, of which there are ``SPARE_SLOTS`` more."""
    return max(1, min(processors(), budget // bytes_per_worker - SPARE_SLOTS))


class TimedWorker(threading.local):
    """The stopwatch of a worker; each thread that uses it gets its own. The thread that makes the object needs none."""

    def __init__(self, watches: Stopwatches) -> None:
        self._watches = watches

    @cached_property
    def watch(self) -> Stopwatch:
        """The stopwatch of this thread, which runs from its first use."""
        return self._watches.new()


class Worker(TimedWorker):
    """A worker that also has a codec for each thread."""

    def __init__(self, zstd: Zstd, watches: Stopwatches) -> None:
        super().__init__(watches)
        self._zstd = zstd

    @cached_property
    def codec(self) -> Codec:
        """The codec of this thread."""
        return self._zstd.codec()


class OrderedPipeline(Generic[S, R]):
    """``feed`` fills a slot and returns whether there is more to do; ``work`` turns it into a result. Both run outside the consumer's thread."""

    def __init__(
        self,
        slots: Sequence[S],
        feed: Callable[[S], bool],
        work: Callable[[S], R],
        workers: int,
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        """``interrupt`` is called when the consumer gives up early: it must make a blocked ``feed`` return or raise."""
        self._feed = feed
        self._work = work
        self._workers = workers
        self._interrupt = interrupt
        self._stopped = threading.Event()
        self._free: queue.SimpleQueue[S | None] = queue.SimpleQueue()
        self._order: queue.SimpleQueue[tuple[S, Future[R]] | BaseException | None] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    def _feeding(self, executor: ThreadPoolExecutor) -> None:
        try:
            while not self._stopped.is_set():
                slot = self._free.get()
                if slot is None or self._stopped.is_set() or not self._feed(slot):
                    break
                self._order.put((slot, executor.submit(self._work, slot)))
            self._order.put(None)
        except BaseException as error:  # passed to the consumer, which raises it
            self._order.put(error)

    def results(self) -> Generator[tuple[S, R], None, None]:
        """Yield slots and results in feeding order; a slot is reused when the next one is requested. Raises what a stage raised."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="work") as executor:
            feeder = threading.Thread(target=self._feeding, args=(executor,), name="feed", daemon=True)
            feeder.start()
            finished = False
            try:
                while True:
                    item = self._order.get()
                    if item is None:
                        finished = True
                        return
                    if isinstance(item, BaseException):
                        raise item
                    slot, future = item
                    yield slot, future.result()
                    self._free.put(slot)
            finally:
                self._stopped.set()
                if not finished:
                    self._free.put(None)
                    self._interrupt()
                feeder.join()
