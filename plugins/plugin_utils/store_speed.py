# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the image store is written and read, past the cache; and how much of it this machine keeps in memory."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_room import nearest_folder

FIRST_PIECE = 4 << 20
LARGEST_PIECE = 64 << 20
LONGEST = 1.0
"""Seconds; after a piece that took so long there is none that is larger."""

BLOCK = 4 << 20


@dataclass(frozen=True)
class StoreSpeed:
    """Bytes a second, flushed and past the cache; None where this system can't go past it."""

    write: float
    read: float | None


def measure_store(path: str) -> StoreSpeed:
    """Measure the store in a folder that may not exist yet; raises ImagingError.

    The file has no name from the beginning, or loses it at once, so that nothing remains of it whatever happens.
    """
    folder = nearest_folder(path)
    block = os.urandom(BLOCK)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            size, write = FIRST_PIECE, 0.0
            while True:
                seconds = _write(file.fileno(), block, size)
                write = size / seconds
                if size >= LARGEST_PIECE or seconds >= LONGEST:
                    break
                size *= 2
            return StoreSpeed(write, _read(file.fileno(), size))
    except OSError as error:
        raise ImagingError(
            f"How fast the image store {path} is could not be measured: {folder}: {error.strerror}. {LARGEST_PIECE >> 20} MiB are written there and "
            "removed again. Make room, or set imaging_store to a folder that you may write to."
        ) from error


def _write(descriptor: int, block: bytes, size: int) -> float:
    os.lseek(descriptor, 0, os.SEEK_SET)
    began = time.monotonic()
    view = memoryview(block)
    done = 0
    while done < size:
        done += os.write(descriptor, view[: size - done])
    os.fsync(descriptor)
    return time.monotonic() - began


def _read(descriptor: int, size: int) -> float | None:
    if not hasattr(os, "posix_fadvise"):
        return None
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(descriptor, 0, os.SEEK_SET)
    began = time.monotonic()
    done = 0
    while done < size and (piece := os.read(descriptor, min(1 << 20, size - done))):
        done += len(piece)
    return done / (time.monotonic() - began) if done else None


def free_memory() -> int:
    """How many bytes of a file this system has room for in its cache; 0 where it does not say."""
    try:
        memory = Path("/proc/meminfo").read_text(encoding="ascii")
        return next(int(line.split()[1]) << 10 for line in memory.splitlines() if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return 0
