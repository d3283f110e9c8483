# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the chunks of a disk that differ from its goal, as long as comparing costs less than writing.

The scan compares the chunks with the guards first, then a sample from all over the disk, then the disk from its start. When neither the latest
chunks nor the samples ahead promise equal content, it wants all chunks until shortly before the next equal sample without comparing them, or all
that remain when there is none. So a foreign disk costs a few reads, a disk that has drifted is read once, and a half-written disk is recognised as
far as it was written, also when that did not begin at its start: other laptops send first what they have just got themselves.

What has no hash yet (``image.hashes``) is neither compared nor requested.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from bisect import bisect_right
from collections import deque
from typing import Callable, Iterable, Iterator, Sequence

from ..image.index import Row
from ..image.record import ZERO
from .goal import Goal
from .scan import Scan

NOTHING, UNKNOWN, EQUAL, WANTED, REQUESTED, KNOWN, WRITTEN = range(7)
"""The states of a chunk. NOTHING: its content does not matter. UNKNOWN: not compared yet. EQUAL: it has its desired content. WANTED: it
differs. REQUESTED: it was requested from a source. KNOWN: it differs, but this end knows its content (zeros, or a patch). WRITTEN."""

MAX_SAMPLES = 64
MIN_SAMPLES = 8
SAMPLED_SHARE = 100
"""One of this many used chunks is sampled, with these limits."""

WINDOW = 32
"""How many of the latest chunks decide whether comparing goes on."""

FIRST_VERDICT = 4
"""The number of compared chunks before the first such decision."""

MIN_EQUAL_SHARE = 1 / 8
"""Minimum share of equal chunks at which comparing is worth its cost; it runs beside the writing."""

MIN_EQUAL_SHARE_ROTATING = 1 / 2
"""Minimum share on a rotating disk, which can't read and write at once: a useless comparison costs as much as a useful one saves."""


class _Rest:
    """Rows that are still to be compared."""

    def __init__(self, rows: Iterator[Row], goal: Goal) -> None:
        self._rows = rows
        self._goal = goal
        self._next: Row | None = None

    def take(self, most: int) -> Iterator[Row]:
        """Yield up to so many rows, as they are now; ends before one without a hash, which is then the next one."""
        for _number in range(most):
            row = self._next or next(self._rows, None)
            self._next = row if row is None or row.hashed else self._goal.row(row.chunk)
            if self._next is None or not self._next.hashed:
                return
            found, self._next = self._next, None
            yield found


def sample_of(chunks: Sequence[int]) -> list[int]:
    """Return a sample of these used chunks, in their order."""
    count = min(MAX_SAMPLES, max(MIN_SAMPLES, len(chunks) // SAMPLED_SHARE))
    step = max(1, len(chunks) // (count + 1))
    return list(chunks[step::step][:count])


class DeltaScan:
    """The state of every chunk of a disk. One thread compares; another thread requests the wanted chunks and writes them."""

    def __init__(self, scan: Scan, goal: Goal, guard_chunks: list[int], rotating: bool = False) -> None:
        self._scan = scan
        self._goal = goal
        self._guard_chunks = guard_chunks
        self._min_equal_share = MIN_EQUAL_SHARE_ROTATING if rotating else MIN_EQUAL_SHARE
        self.states = bytearray(goal.geometry.chunk_count)
        self.total = self.data_total = 0
        """Bytes with desired content, and those of them outside of chunks that are known to be zeros from the beginning."""
        self.done = self.data_done = 0
        """As ``total`` and ``data_total``, of the chunks that need no sending any more."""
        self.compared = 0
        """Bytes that were compared."""
        self._data = bytearray(len(self.states))  # for each chunk, whether it counts in data_total
        for row in goal.rows():
            self.states[row.chunk] = UNKNOWN
            size = goal.bytes_in(row)
            self.total += size
            self._data[row.chunk] = not row.flags & ZERO
            self.data_total += size * self._data[row.chunk]
        self._changed = threading.Condition()
        self._lowest_wanted = len(self.states)
        self._unhashed = False
        """Whether the lowest wanted chunk can't be requested yet."""
        # Blank disks have chunks of zeros, too.
        self._samples = sample_of([chunk for chunk, data in enumerate(self._data) if data])
        self._equal_samples: list[int] = []
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._rest: _Rest | None = None
        self._whole = False
        self.finished = False
        """Whether no chunk is UNKNOWN any more."""
        self.error: BaseException | None = None
        """The error that ended the scan early."""

    def count(self, state: int) -> int:
        """Return how many chunks are in a state."""
        return self.states.count(state)

    def rows(self, state: int) -> Iterator[Row]:
        """Yield the rows of the chunks in a state, in disk order."""
        chunk = self.states.find(state)
        while chunk >= 0:
            row = self._goal.row(chunk)
            if row is not None:
                yield row
            chunk = self.states.find(state, chunk + 1)

    def begin(self, whole: bool = False) -> None:
        """Compare the chunks that hold the guards, before anything is written. With ``whole``, the scan compares the whole disk in any case."""
        self._whole = whole
        guards = [row for row in map(self._goal.row, self._guard_chunks) if row is not None]
        for row, equal in self._scan.compare(guards):
            self._note(row, equal)

    def advance(self, most: int, poll: Callable[[], None] = lambda: None) -> None:
        """Compare up to ``most`` more chunks, as far as they are hashed; ``poll`` is called after each, and may raise to interrupt the scan."""
        if self._rest is None:
            rows = itertools.chain(() if self._whole else self._sample(), self.rows(UNKNOWN))
            self._rest = _Rest(rows, self._goal)
        with contextlib.closing(self._scan.compare(self._rest.take(most))) as results:
            try:
                for row, equal in results:
                    self._note(row, equal)
                    self._learn(row, equal)
                    poll()
                    if not self._worth_continuing(row.chunk) and not self._skip(row.chunk):
                        return
            except BaseException:
                self._rest = None  # it has handed out rows that were not compared
                raise
        if not self.count(UNKNOWN):
            self.give_up()

    def _sample(self) -> Iterator[Row]:
        """Yield chunks from all over the disk, in disk order."""
        self._samples = [chunk for chunk in self._samples if self.states[chunk] == UNKNOWN]
        yield from filter(None, map(self._goal.row, self._samples))

    def _note(self, row: Row, equal: bool) -> None:
        with self._changed:
            if self.states[row.chunk] != UNKNOWN:  # a sample, compared twice
                return
            self.states[row.chunk] = EQUAL if equal else WANTED
            self.compared += self._goal.bytes_in(row)
            if equal:
                self._settle(row)
            else:
                self._lowest_wanted = min(self._lowest_wanted, row.chunk)
                self._changed.notify_all()

    def _settle(self, row: Row | None) -> None:
        if row is not None:
            size = self._goal.bytes_in(row)
            self.done += size
            self.data_done += size * self._data[row.chunk]

    def _learn(self, row: Row, equal: bool) -> None:
        if row.flags & ZERO:
            return
        if row.chunk not in self._samples:
            self._recent.append(equal)
        elif equal:
            self._equal_samples.append(row.chunk)

    def _worth_continuing(self, position: int) -> bool:
        if self._whole or len(self._recent) < FIRST_VERDICT:
            return True
        ahead = len(self._samples) - bisect_right(self._samples, position)
        equal_ahead = len(self._equal_samples) - bisect_right(self._equal_samples, position)
        promised = ahead and equal_ahead / ahead >= self._min_equal_share
        return bool(promised) or sum(self._recent) / len(self._recent) >= self._min_equal_share

    def _skip(self, position: int) -> bool:
        """Go on shortly before the next equal sample, if there is one; return whether that only continues what was begun."""
        later = bisect_right(self._equal_samples, position)
        if later == len(self._equal_samples):
            self.give_up()
            return False
        self._recent.clear()
        start = self._equal_samples[later] - WINDOW
        if start <= position:
            return True
        with self._changed:
            self.states[:start] = self.states[:start].replace(bytes((UNKNOWN,)), bytes((WANTED,)))
            self._lowest_wanted = 0
            self._rest = _Rest(self.rows(UNKNOWN), self._goal)
            self._changed.notify_all()
        return False

    def give_up(self) -> None:
        """Stop comparing: all UNKNOWN chunks are wanted."""
        with self._changed:
            self.states[:] = self.states.replace(bytes((UNKNOWN,)), bytes((WANTED,)))
            self._lowest_wanted = 0
            self.finished = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Make :meth:`take` raise the error that ended the scan."""
        with self._changed:
            self.error = error
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until a chunk is wanted or the scan has ended, for at most ``seconds``."""
        with self._changed:
            idle = self._lowest_wanted == len(self.states) and not self.finished
            if (idle or self._unhashed) and self.error is None:
                self._changed.wait(seconds)

    def take(self, most: int) -> list[int]:
        """Return up to ``most`` wanted chunks in disk order and mark them as requested; raises the error that ended the scan.

        Chunks whose content this end knows are marked as KNOWN instead.
        """
        with self._changed:
            if self.error is not None:
                raise self.error
            taken: list[int] = []
            self._unhashed = False
            chunk = self.states.find(WANTED, self._lowest_wanted)
            while chunk >= 0 and len(taken) < most:
                row = self._goal.row(chunk)
                if row is not None and not row.hashed:
                    self._unhashed = True  # and so are those after it
                    break
                if self._goal.patched(chunk) or (row is not None and row.flags & ZERO):
                    self.states[chunk] = KNOWN
                    self._settle(row)
                else:
                    self.states[chunk] = REQUESTED
                    taken.append(chunk)
                chunk = self.states.find(WANTED, chunk + 1)
            self._lowest_wanted = chunk if chunk >= 0 else len(self.states)
            return taken

    def written(self, chunk: int) -> None:
        """Note that a chunk was written."""
        with self._changed:
            before, self.states[chunk] = self.states[chunk], WRITTEN
            if before not in (EQUAL, KNOWN, WRITTEN):
                self._settle(self._goal.row(chunk))

    def want_again(self, chunks: Iterable[int]) -> None:
        """Mark requested chunks that will not arrive as wanted."""
        with self._changed:
            for chunk in chunks:
                if self.states[chunk] == REQUESTED:
                    self.states[chunk] = WANTED
                    self._lowest_wanted = min(self._lowest_wanted, chunk)
            self._changed.notify_all()

    def ask_again(self) -> None:
        """Mark all requested chunks as wanted, because the link broke."""
        with self._changed:
            self.states[:] = self.states.replace(bytes((REQUESTED,)), bytes((WANTED,)))
            self._lowest_wanted = 0
