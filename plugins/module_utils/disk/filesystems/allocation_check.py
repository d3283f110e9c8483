# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Common parts of the programs that look for clusters which are in use but marked as free.

They run as separate processes, with the Python of this module, because they use a processor all the time. Allocated clusters that are not in use are
ignored: they cost space, but no data.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable

from ...errors import ImagingError
from ..gpt import Read

PROVEN, LACKING, UNREADABLE = 0, 4, 8
"""Exit statuses, as in fsck(8): no cluster in use is free, some are free, or it can't be determined."""

COMPARED = 1 << 20
"""Bytes of bitmaps that are compared at a time."""


class Damaged(ImagingError):
    """A structure is missing, or contains impossible values."""


class Clusters:
    """The clusters that are claimed, with a bit for each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._bits = bytearray(-(-count // 8))

    def has(self, cluster: int) -> int:
        """Return whether a cluster is claimed (not 0)."""
        return self._bits[cluster >> 3] >> (cluster & 7) & 1

    def claim(self, first: int, end: int) -> None:
        """Claim the clusters of [first, end), at least one; raises Damaged when they do not exist."""
        if not 0 <= first < end <= self._count:
            raise Damaged(f"something lies in clusters {first} to {end}, and there are {self._count}")
        bits = self._bits
        low, high = first >> 3, end >> 3
        if low == high:
            bits[low] |= ((1 << (end - first)) - 1) << (first & 7)
            return
        bits[low] |= 0xFF & (0xFF << (first & 7))
        if high > low + 1:
            bits[low + 1 : high] = b"\xff" * (high - low - 1)
        if end & 7:
            bits[high] |= (1 << (end & 7)) - 1

    def lacking(self, bitmap: bytes) -> int:
        """Return how many claimed clusters are missing in a file system's bitmap, also beyond its end."""
        bitmap = bitmap[: len(self._bits)].ljust(len(self._bits), b"\0")
        count = 0
        for at in range(0, len(self._bits), COMPARED):
            claimed = int.from_bytes(self._bits[at : at + COMPARED], "little")
            count += bin(claimed & ~int.from_bytes(bitmap[at : at + COMPARED], "little")).count("1")
        return count


def report(allocation: Callable[[Read, int], Any]) -> int:
    """Check the block device in the first argument, write the finding to standard output, and return the exit status.

    ``allocation`` gets a function that reads at an offset, and the size of the device in bytes. The method ``lacking`` of what it returns says how
    many clusters in use are free. Both may raise Damaged, OSError.
    """
    status = UNREADABLE
    try:
        descriptor = os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC)
        size = os.lseek(descriptor, 0, os.SEEK_END)

        def read(offset: int, length: int) -> bytes:
            data = os.pread(descriptor, length, offset)
            if len(data) != length:
                raise Damaged("it ends before the data that belongs to it")
            return data

        count = allocation(read, size).lacking()
        status = LACKING if count else PROVEN
        said = f"clusters in use that are marked as free: {count}" if count else ""
    except (Damaged, OSError, MemoryError) as error:
        said = str(error) or type(error).__name__
    sys.stdout.write(f"{said}\n")
    return status
