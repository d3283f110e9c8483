# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptop's half of a probe: measures how fast this machine reads its disk, compresses, decompresses, hashes, sends and receives.

Nothing is written. What is measured is the engine's own code, on the disk's own content and the image's own frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, List, Mapping, Sequence, Tuple

from ..arguments import CAPTURE
from ..disk.command import RunCommand
from ..disk.partition_table import read_partition_table
from ..disk.ranges import ByteRanges
from ..disk.raw_io import RawDisk, aligned_buffer, read_spans, spans
from ..disk.used_map import ALL, read_used_map
from ..engine.capture import Capture
from ..engine.level import FIRST
from ..engine.pipeline import BUDGET, SPARE_SLOTS, OrderedPipeline, processors, worker_count
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.geometry import Geometry
from ..image.record import STREAM_SIZE
from ..stream.link import Link
from ..stream.probe import ZONES, Carried, serve_probe
from ..zstd import Codec, Zstd
from .held_disk import HeldDisk
from .session import Session

ZONE_CHUNKS = 64
"""So many chunks of a zone are looked at, at the most, for some that hold anything."""

ZONE_BYTES = 128 << 20
ZONE_SECONDS = 1.0
ENOUGH_BYTES = 32 << 20
ENOUGH_SECONDS = 0.5
"""What must have been read of a zone, in the one or the other, to say how fast it is."""

ROUND = 16
"""Chunks that are in memory at a time while compressing is measured: 64 MiB."""

ROUNDS = 5
SAMPLE_SECONDS = 6.0
"""After so many seconds of reading samples no further round is begun."""

TRIED_LEVELS = (-5, FIRST, 5)
"""Measured where the level follows what limits the capture: a fast one, that with which it begins, and the strongest of those that take as
little memory, and so have as many workers."""

CPU_SECONDS = 0.7
"""How long each kind of work is measured for, at the least."""

FRAMES_BYTES = 24 << 20
"""Bytes of the image's frames that are kept for decompressing them."""

ENDLESS = 1 << 40
"""Bytes of a disk that is captured from memory for as long as is needed."""


@dataclass(frozen=True)
class ProbeRequest:
    """What is asked of this laptop. ``purpose``: what is to be forecast, a capture of its disk or a restore of it.

    ``level`` is one of zstd, or None for one that follows what limits the capture.
    """

    device: str
    purpose: str
    used_map: str
    level: int | None
    chunk_size: int
    expect: Mapping[str, Any] = field(default_factory=dict)


Sample = Tuple[memoryview, List[Tuple[int, int]], bool]
"""A chunk's content, its used ranges, and whether it is a hole."""


class Samples:
    """Chunks of a disk in memory, which stand for a disk that repeats them for ever (``engine.capture.ReadableDisk``, ``UsedRanges``)."""

    def __init__(self, samples: Sequence[Sample], chunk_size: int, alignment: int) -> None:
        self._samples = samples
        self._chunk_size = chunk_size
        self.alignment = alignment

    def _sample(self, offset: int) -> Sample:
        return self._samples[offset // self._chunk_size % len(self._samples)]

    def is_hole(self, offset: int, length: int) -> bool:
        """Whether the chunk that begins at ``offset`` is a hole."""
        return self._sample(offset)[2]

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view``, which lies within a chunk, from ``offset``."""
        start = offset % self._chunk_size
        view[:] = self._sample(offset)[0][start : start + len(view)]

    def salvage_into(self, offset: int, view: memoryview) -> list[tuple[int, int]]:
        """The same: memory has no bad sectors."""
        self.read_into(offset, view)
        return []

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The used ranges of the chunk from ``start`` to ``end``."""
        return [(start + low, start + high) for low, high in self._sample(start)[1] if start + high <= end]


@dataclass
class _Taken:
    """What reads took: bytes, seconds, and seconds of this process's processor time."""

    size: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def add(self, other: _Taken) -> None:
        """Count what another one took as well."""
        self.size += other.size
        self.seconds += other.seconds
        self.cpu += other.cpu


class DiskProbe:
    """Reads here and there of a disk."""

    def __init__(self, raw: RawDisk, used: ByteRanges, chunk_size: int) -> None:
        self._raw = raw
        self._used = used
        self._chunk_size = chunk_size
        self._zeros = bytes(chunk_size)
        self._buffer = aligned_buffer(chunk_size)
        self.rates: dict[str, float] = {}
        """Bytes a second for each zone."""
        self.read_size = 0
        """Bytes that a capture of the disk would read."""
        self.chunks: list[int] = []
        """The used chunks."""
        self.cpu = 0.0
        """Seconds of processor time for each byte that was read."""
        self.rate = 0.0
        """Bytes a second over the whole disk, of which each zone stands for the same share; 0 when there was nothing to read."""
        self.only_zeros = False
        """Whether nothing but zeros was found where the rates were measured."""
        self._survey()

    def _survey(self) -> None:
        size, chunk = self._raw.size, self._chunk_size
        for number in range(-(-size // chunk)):
            ranges = self.used_in(number)
            if ranges:
                self.chunks.append(number)
                if not self.is_hole(number):
                    self.read_size += sum(
                        end - start for start, end in spans(ranges, self._raw.alignment, self.length(number))
                    )

    def length(self, chunk: int) -> int:
        """Bytes of a chunk."""
        return min(self._chunk_size, self._raw.size - chunk * self._chunk_size)

    def used_in(self, chunk: int) -> list[tuple[int, int]]:
        """The used ranges of a chunk, counted from its start."""
        offset = chunk * self._chunk_size
        return [(low - offset, high - offset) for low, high in self._used.within(offset, offset + self.length(chunk))]

    def is_hole(self, chunk: int) -> bool:
        """Whether a file has nothing there, which a capture does not read."""
        return self._raw.is_hole(chunk * self._chunk_size, self.length(chunk))

    def _read(self, chunk: int, content: memoryview) -> int:
        return read_spans(self._raw, chunk * self._chunk_size, content[: self.length(chunk)], self.used_in(chunk))

    def _is_zero(self, chunk: int, content: memoryview) -> bool:
        read = spans(self.used_in(chunk), self._raw.alignment, self.length(chunk))
        return all(self._zeros.startswith(content[start:end]) for start, end in read)

    def measure_zones(self) -> None:
        """Measure how fast the disk is read at its beginning, middle and end; raises DiskError."""
        count = min(ZONE_CHUNKS, max(1, len(self.chunks) // len(ZONES)))
        starts = (0, (len(self.chunks) - count) // 2, len(self.chunks) - count)
        everything, all_data, few = _Taken(), _Taken(), False
        for zone, start in zip(ZONES, starts):
            data, zeros = _Taken(), _Taken()
            for chunk in self.chunks[max(0, start) : start + count]:
                if data.size >= ZONE_BYTES or data.seconds + zeros.seconds >= ZONE_SECONDS:
                    break
                if not self.is_hole(chunk):
                    taken = self._timed(chunk)
                    # A disk may know without looking that there are zeros: an SSD of what was discarded, a file of its holes.
                    (zeros if self._is_zero(chunk, self._buffer) else data).add(taken)
            if data.size:
                self.rates[zone] = data.size / data.seconds
            few = few or (data.size < ENOUGH_BYTES and data.seconds < ENOUGH_SECONDS)
            all_data.add(data)
            everything.add(data)
            everything.add(zeros)
        self.cpu = everything.cpu / everything.size if everything.size else 0.0
        self.only_zeros = not self.rates
        if few:
            # Of so little no zone can speak for itself.
            counted = all_data if all_data.size else everything
            self.rate = counted.size / counted.seconds if counted.size else 0.0
        else:
            self.rate = len(self.rates) / sum(1 / rate for rate in self.rates.values())

    def _timed(self, chunk: int) -> _Taken:
        began, cpu_began = time.perf_counter(), time.process_time()
        size = self._read(chunk, self._buffer)
        return _Taken(size, time.perf_counter() - began, time.process_time() - cpu_began)

    def samples(self, count: int, turn: int, turns: int) -> list[Sample]:
        """Chunks from all over the disk, other ones in each turn; raises DiskError."""
        whole = [chunk for chunk in self.chunks if self.length(chunk) == self._chunk_size] or self.chunks
        total = min(len(whole), count * turns)
        chosen = [whole[(2 * place + 1) * len(whole) // (2 * total)] for place in range(turn, total, turns)]
        return [self._sample(chunk) for chunk in chosen]

    def _sample(self, chunk: int) -> Sample:
        content = aligned_buffer(self._chunk_size)
        hole = self.is_hole(chunk)
        if not hole:
            self._read(chunk, content)
        return content, self.used_in(chunk), hole


@dataclass
class Compressed:
    """What compressing samples came to. ``rate`` is in bytes of chunks a second, of all workers together."""

    chunks: int = 0
    content: float = 0.0
    seconds: float = 0.0
    frames: int = 0

    @property
    def rate(self) -> float:
        """Bytes of chunks a second."""
        return self.content / self.seconds if self.seconds else 0.0


def measure_compression(
    samples: Sequence[Sample], chunk_size: int, alignment: int, zstd: Zstd, level: int, found: Compressed
) -> None:
    """Have the engine capture samples from memory, over and over, and add what that came to."""
    disk = Samples(samples, chunk_size, alignment)
    geometry = Geometry(ENDLESS, 512, 512, chunk_size)
    capture = Capture(disk, geometry, disk, zstd, level, os.urandom(STREAM_SIZE), Stopwatches())
    warm, rate = capture.workers, _Rate(CPU_SECONDS)
    with contextlib.closing(capture.records(0, geometry.chunk_count)) as records:
        for number, (_header, frame) in enumerate(records):
            if number < len(samples):
                found.chunks += 1
                found.frames += len(frame or b"")
            if rate.enough(number + 1 - warm, number + 1 >= len(samples)):
                break
    found.content += rate.count * chunk_size
    found.seconds += rate.seconds


class _Rate:
    """Counts results from the moment on at which all workers were busy."""

    def __init__(self, least_seconds: float) -> None:
        self._least_seconds = least_seconds
        self._began = time.perf_counter()
        self.count = 0
        self.seconds = 0.0

    def enough(self, count: int, complete: bool) -> bool:
        """Note that ``count`` more came since all workers were busy; whether that is enough."""
        now = time.perf_counter()
        if count <= 0:
            self._began = now
            return False
        self.count, self.seconds = count, now - self._began
        return complete and self.seconds >= self._least_seconds


@dataclass(frozen=True)
class KeptFrame:
    """A frame of the image, and the size of its content."""

    frame: bytes
    content_size: int


@dataclass(frozen=True)
class CompressedAt:
    """What compressing came to at a level of zstd; ``rate`` in bytes of content a second."""

    level: int
    chunks: int
    frame_bytes: int
    rate: float


@dataclass(frozen=True)
class Measured:
    """What a laptop measures of itself. Rates in bytes a second, ``*_cpu`` in seconds of a processor for each byte."""

    device: str
    disk_size: int
    rotational: bool
    used_bytes: int
    used_chunks: int
    used_by: str
    read_bytes: int
    map_seconds: float
    read_rates: dict[str, float]
    read_rate: float
    read_cpu: float
    chunk_size: int
    compressed: list[CompressedAt]
    hash_rate: float
    processors: int


@dataclass(frozen=True)
class Probed(Measured):
    """The same, and what the link came to; ``decompress_rate`` is None when no frame of an image came."""

    decompress_rate: float | None
    send_cpu: float
    receive_cpu: float


class _Slot:
    def __init__(self, size: int) -> None:
        self.content = aligned_buffer(size)
        # Memory that nobody wrote to is one page of zeros, which a processor has at hand.
        self.content[:] = b"\xa5" * size
        self.frame = KeptFrame(b"", 0)


class _Worker(threading.local):
    codec: Codec | None = None


def measure_decompression(frames: Sequence[KeptFrame], zstd: Zstd) -> float:
    """Bytes of content a second that all workers together decompress and hash, as a restore does; raises ImagingError."""
    largest = max(frame.content_size for frame in frames)
    own = _Worker()

    def work(slot: _Slot) -> int:
        if own.codec is None:
            own.codec = zstd.codec()
        content = slot.content[: slot.frame.content_size]
        hashlib.sha256(slot.frame.frame).digest()
        own.codec.decompress_into(slot.frame.frame, content)
        hashlib.sha256(content).digest()
        return len(content)

    return _pipeline_rate(frames, work, largest, worker_count(2 * largest))


def measure_hashing(chunk_size: int) -> float:
    """Bytes a second that all workers together hash, as a comparison does."""

    def work(slot: _Slot) -> int:
        hashlib.sha256(slot.content).digest()
        return chunk_size

    return _pipeline_rate([KeptFrame(b"", 0)], work, chunk_size, worker_count(chunk_size, BUDGET // 2))


def _pipeline_rate(frames: Sequence[KeptFrame], work: Callable[[_Slot], int], size: int, workers: int) -> float:
    """Bytes a second that so many workers do, with frame after frame."""

    def endless() -> Iterator[KeptFrame]:
        while True:
            yield from frames

    pending = endless()

    def feed(slot: _Slot) -> bool:
        slot.frame = next(pending)
        return True

    rate = _Rate(CPU_SECONDS)
    done = 0
    slots = [_Slot(size) for dummy in range(workers + SPARE_SLOTS)]
    with contextlib.closing(OrderedPipeline(slots, feed, work, workers).results()) as results:
        for number, (_slot, worked) in enumerate(results):
            done += worked if number >= workers else 0
            if rate.enough(number + 1 - workers, number + 1 >= len(frames)):
                break
    return done / rate.seconds


class LaptopProbe:
    """One probe, over as many links as it takes (``stream.probe.Probed``)."""

    def __init__(self, run: RunCommand, request: ProbeRequest, zstd: Zstd) -> None:
        self._run = run
        self._request = request
        self._zstd = zstd
        self._frames: list[KeptFrame] = []
        self._measured: Measured | None = None
        self.warnings: list[str] = []
        self._decompression: float | None = None
        self._sending: Carried | None = None
        self._receiving: Carried | None = None

    def converse(self, link: Link) -> None:
        """What this end says on one link."""
        self._frames.clear()
        serve_probe(link, self)

    def measure(self) -> None:
        """Measure disk and processor, once; raises ImagingError."""
        if self._measured is None:
            self._measured = self._measure()

    def take(self, content_size: int, body: memoryview) -> None:
        """Keep some of the image's frames."""
        if content_size and sum(len(kept.frame) for kept in self._frames) < FRAMES_BYTES:
            self._frames.append(KeptFrame(bytes(body), content_size))

    def carried(self, sent: Carried | None, received: Carried | None) -> None:
        """Note what went over the link; with the frames that came, decompressing is measured."""
        self._sending = sent or self._sending
        self._receiving = received or self._receiving
        if received is not None and self._frames:
            self._decompression = measure_decompression(self._frames, self._zstd)
            self._frames.clear()

    def _measure(self) -> Measured:
        request = self._request
        capturing = request.purpose == CAPTURE
        with HeldDisk(self._run, request.device, request.expect, writable=False, may_be_in_use=True) as disk:
            warnings = self.warnings = []
            began = time.perf_counter()
            used, method = self._used(disk, warnings)
            map_seconds = time.perf_counter() - began
            probe = DiskProbe(disk.raw, used, request.chunk_size)
            probe.measure_zones()
            compressed = self._compress(disk.raw, probe) if capturing else {}
            if probe.only_zeros:
                warnings.append(
                    f"Where {disk.raw.path} was read nothing but zeros was found. A disk may know of zeros without reading them, and may be slower "
                    "where something is on it."
                )
            if not disk.raw.past_cache:
                warnings.append(
                    f"{disk.raw.path} can't be read past the page cache, so some reads may have come from memory."
                )
            return Measured(
                device=disk.raw.path,
                disk_size=disk.raw.size,
                rotational=disk.disk.rotational,
                used_bytes=used.total(),
                used_chunks=len(probe.chunks),
                used_by=method,
                read_bytes=probe.read_size,
                map_seconds=map_seconds if capturing else 0.0,
                read_rates=probe.rates,
                read_rate=probe.rate,
                read_cpu=probe.cpu,
                chunk_size=request.chunk_size,
                compressed=[
                    CompressedAt(level, found.chunks, found.frames, found.rate)
                    for level, found in compressed.items()
                    if found.chunks
                ],
                hash_rate=measure_hashing(request.chunk_size),
                processors=processors(),
            )

    def _used(self, disk: HeldDisk, warnings: list[str]) -> tuple[ByteRanges, str]:
        """What of the disk a capture would read, and how that is known."""
        raw, request = disk.raw, self._request
        whole = ByteRanges([(0, raw.size)])
        if request.purpose != CAPTURE:
            return whole, "whole"
        if disk.in_use:
            warnings.append(
                f"{disk.raw.path} can't be read past the page cache, so some reads may have come from memory."
                + disk.in_use
            )
            return whole, "whole"
        used = read_used_map(self._run, disk.disk, read_partition_table(self._run, raw.path), request.used_map)
        warnings.extend(used.warnings)
        return used.ranges, "whole" if used.reason or request.used_map == ALL else "map"

    def _compress(self, raw: RawDisk, probe: DiskProbe) -> dict[int, Compressed]:
        """What compressing came to at each level that a capture may take."""
        level = self._request.level
        found = {level: Compressed() for level in (TRIED_LEVELS if level is None else (level,))}
        reading = 0.0
        for turn in range(ROUNDS):
            began = time.perf_counter()
            samples = probe.samples(ROUND, turn, ROUNDS)
            reading += time.perf_counter() - began
            for tried, compressed in found.items():
                if samples:
                    size, alignment = self._request.chunk_size, raw.alignment
                    measure_compression(samples, size, alignment, self._zstd, tried, compressed)
            if reading >= SAMPLE_SECONDS:
                break
        return found

    def result(self) -> Probed:
        """All of it; raises ImagingError when the controller went before everything was measured."""
        if self._measured is None or self._sending is None or self._receiving is None:
            raise ImagingError("The controller ended the probe before everything was measured.")
        return Probed(
            **vars(self._measured),
            decompress_rate=self._decompression,
            send_cpu=self._sending.cpu,
            receive_cpu=self._receiving.cpu,
        )


def run_probe(run: RunCommand, request: ProbeRequest, zstd: Zstd, session: Session) -> tuple[Probed, list[str]]:
    """Be probed by the controller until it knows everything; returns the module's result, and its warnings."""
    probe = LaptopProbe(run, request, zstd)
    session.converse(probe.converse)
    return probe.result(), probe.warnings
