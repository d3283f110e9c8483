# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a trial transfer: a sample from all over a disk as the source, or a target that is not written."""

from __future__ import annotations

import time
from typing import Iterator

from ..disk.ranges import ByteRanges
from ..disk.raw_io import RawDisk

TRIAL_SECONDS = 10.0
"""Seconds after which a trial ends."""

RUN = 8
"""Adjacent chunks in a sample (32 MiB), so that a rotating disk does not spend its time seeking."""

WRITE_SHARE = 0.5
"""Assumed write rate of a disk that does not rotate, relative to its read rate. A rotating disk is written as fast as it is read."""


def spread(count: int, run: int = RUN) -> Iterator[int]:
    """Return all numbers below ``count``, ordered so that any prefix is spread over the whole range: runs in bit-reversed order."""
    runs = -(-count // run)
    bits = (runs - 1).bit_length() if runs else 0
    for number in range(1 << bits):
        first = int(f"{number:0{bits}b}"[::-1], 2) if bits else 0
        yield from range(first * run, min(count, (first + 1) * run))


class SampledDisk:
    """The used chunks of a disk in the order of :func:`spread` (``engine.capture.ReadableDisk``, ``UsedRanges``)."""

    def __init__(self, raw: RawDisk, used: ByteRanges, chunk_size: int) -> None:
        self._raw = raw
        self._used = used
        self._chunk_size = chunk_size
        self.alignment = raw.alignment
        places = [place for place in range(0, raw.size, chunk_size) if used.within(place, place + chunk_size)]
        self._places = [places[number] for number in spread(len(places))]

    def __len__(self) -> int:
        """The number of used chunks."""
        return len(self._places)

    def _place(self, offset: int) -> int:
        return self._places[offset // self._chunk_size] + offset % self._chunk_size

    def is_hole(self, offset: int, length: int) -> bool:
        """Return whether the chunk at ``offset`` is a hole."""
        return self._raw.is_hole(self._place(offset), length)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view``, which lies within a chunk, from ``offset``; raises DiskError, ReadError."""
        self._raw.read_into(self._place(offset), view)

    def salvage_into(self, offset: int, view: memoryview) -> list[tuple[int, int]]:
        """Fill ``view`` as far as possible. Unreadable ranges are not reported, because the content is discarded."""
        self._raw.salvage_into(self._place(offset), view)
        return []

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Yield the used ranges of the chunks from ``start`` to ``end``."""
        found = []
        for offset in range(start, end, self._chunk_size):
            place = self._place(offset)
            ranges = self._used.within(place, place + self._chunk_size)
            found += [(low - place + offset, high - place + offset) for low, high in ranges]
        return found


class PretendedDisk(RawDisk):
    """A disk that is read normally. A write takes the time that it would take, but changes nothing."""

    def __init__(self, path: str) -> None:
        super().__init__(path, shared=True)
        self.write_rate = 0.0
        """Bytes a second."""
        self.only_zeros = True
        """Whether nothing else was read."""
        self._zeros = b""
        self._done_at = 0.0

    def read_into(self, offset: int, view: memoryview) -> None:
        super().read_into(offset, view)
        if self.only_zeros:
            self._zeros = self._zeros if len(self._zeros) >= len(view) else bytes(len(view))
            self.only_zeros = self._zeros.startswith(view)

    def write_from(self, offset: int, view: memoryview) -> None:
        """Wait as long as a write would take."""
        now = time.monotonic()
        self._done_at = max(now, self._done_at) + len(view) / self.write_rate
        time.sleep(self._done_at - now)
