# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The speed of each way to zstd that this Python has, and of SHA-256, on chunks of real files of this machine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import DEFAULT_CHUNK_SIZE
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import Zstd, available

from ..lab.machine_files import FOLDERS, MachineFiles

AMOUNT = 256 << 20
LEVEL = 3
THREADS = 2

Task = Callable[[int], object]


@dataclass(frozen=True)
class Way:
    """A way to zstd, or a hash: MiB of content a second; 0 where there is no such thing."""

    name: str
    compress: float
    decompress: float
    threads: int = THREADS


def measure_ways() -> list[Way]:
    """Measure all ways, the preferred one first, then SHA-256."""
    chunks = _real_chunks()
    rates = [_measure(zstd, chunks) for zstd in available()]
    for threads in (1, THREADS):
        rate = _rate(lambda number: hashlib.sha256(chunks[number]).digest(), chunks, threads)
        rates.append(Way("SHA-256", rate, 0.0, threads))
    return rates


def _measure(zstd: Zstd, chunks: list[bytearray]) -> Way:
    frames: dict[int, bytes] = {}
    codecs = [zstd.codec() for _ in range(THREADS)]
    rooms = [memoryview(bytearray(DEFAULT_CHUNK_SIZE)) for _ in range(THREADS)]

    # A thread does every THREADS-th chunk, with a codec and room of its own.
    def compress(number: int) -> None:
        frames[number] = codecs[number % THREADS].compress(memoryview(chunks[number]), LEVEL)

    def decompress(number: int) -> None:
        codecs[number % THREADS].decompress_into(frames[number], rooms[number % THREADS])

    return Way(zstd.name, _rate(compress, chunks, THREADS), _rate(decompress, chunks, THREADS))


def _rate(task: Task, chunks: list[bytearray], threads: int) -> float:
    """Return the MiB a second at which the threads together do a task with every chunk."""

    def do_share(thread: int) -> None:
        _exhaust(task(number) for number in range(thread, len(chunks), threads))

    with ThreadPoolExecutor(threads) as pool:
        started = time.monotonic()
        _exhaust(pool.map(do_share, range(threads)))
        return sum(map(len, chunks)) / (time.monotonic() - started) / 2**20


def _exhaust(results: Iterable[object]) -> None:
    for _ in results:
        pass


def _real_chunks() -> list[bytearray]:
    content = bytearray()
    for path in MachineFiles().choose(AMOUNT, dict.fromkeys(FOLDERS, "")).values():
        content += path.read_bytes()
    return [
        content[start : start + DEFAULT_CHUNK_SIZE]
        for start in range(0, len(content) - DEFAULT_CHUNK_SIZE + 1, DEFAULT_CHUNK_SIZE)
    ]
