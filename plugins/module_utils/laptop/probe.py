# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptop's half of a probe: a transfer like any other, which ends after some seconds and writes nothing.

A capture serves chunks from all over the disk. A restore has chunks from all over the image sent, and its engine writes them to a disk that
only takes the time that writing is assumed to take. Before that it reads from the disk, as a read-back does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generator, Iterable, Iterator, Mapping, NoReturn

from ..arguments import CAPTURE
from ..disk.command import RunCommand
from ..disk.partition_table import read_partition_table
from ..disk.ranges import ByteRanges
from ..disk.used_map import ALL, read_used_map
from ..engine.capture import Capture
from ..engine.goal import LEAVE, Goal
from ..engine.guards import Guards
from ..engine.pipeline import processors
from ..engine.places import merge
from ..engine.restore import DamagedFrame, Restore
from ..engine.scan import Scan
from ..engine.status import STREAMING, Reporter, Status
from ..engine.stopwatch import Stopwatches
from ..engine.trial import RUN, TRIAL_SECONDS, WRITE_SHARE, PretendedDisk, SampledDisk, spread
from ..errors import ImagingError
from ..image.geometry import Geometry
from ..image.header import ImageHeader
from ..image.index import Index, Row, largest_index
from ..image.record import STREAM_SIZE, ZERO, RecordHeader
from ..serving.server import serve_live
from ..stream.conversation import ask_header, finish, receive_index, receive_record, tell_progress, want
from ..stream.link import Link, LinkError
from ..zstd import Zstd
from .held_disk import HeldDisk
from .session import Session

LEAST_CHUNKS = 8
"""So many chunks it has in any case."""

SCAN_SECONDS = 1.0
LEAST_SCANNED = 48 << 20
"""For so long a target is read, and so many bytes in any case."""

UNDER_WAY = 2
"""Requests that a restore has under way."""


@dataclass(frozen=True)
class ProbeRequest:
    """What is asked of this laptop. ``purpose``: what is to be tried, a capture of its disk or a restore of it.

    ``level`` is one of zstd, or None for one that follows what limits the capture.
    """

    device: str
    purpose: str
    used_map: str
    level: int | None
    chunk_size: int
    expect: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Probed:
    """What a laptop says of a trial beside its reports. ``write_rate``, in bytes a second, is assumed, and 0 of a capture."""

    device: str
    disk_size: int
    rotational: bool
    used_bytes: int
    used_chunks: int
    tried_chunks: int
    used_by: str
    write_rate: float


class Trial(ABC):
    """A transfer that ends after some seconds, over as many links as it takes."""

    def __init__(self, disk: HeldDisk) -> None:
        self._disk = disk
        self._watches = Stopwatches()
        self._reporter = Reporter()
        self._deadline = 0.0
        self._tried = 0
        self.warnings: list[str] = []
        if not disk.raw.past_cache:
            self.warnings.append(f"{disk.raw.path} can't be read past the page cache, which may have answered for it.")

    def _goes_on(self) -> bool:
        """Whether there is time for another chunk; the first call begins the trial."""
        self._deadline = self._deadline or time.monotonic() + TRIAL_SECONDS
        return self._tried < LEAST_CHUNKS or time.monotonic() < self._deadline

    @abstractmethod
    def converse(self, link: Link) -> None:
        """What this end says on one link; raises LinkError, PeerEnded, ImagingError."""

    @abstractmethod
    def result(self) -> Probed:
        """What is to be said of it; raises ImagingError when there was none."""

    def _probed(self, used_bytes: int, used_chunks: int, used_by: str, write_rate: float = 0.0) -> Probed:
        if not self._tried:
            raise ImagingError("The controller ended the probe before anything was measured.")
        return Probed(
            device=self._disk.raw.path,
            disk_size=self._disk.raw.size,
            rotational=self._disk.disk.rotational,
            used_bytes=used_bytes,
            used_chunks=used_chunks,
            tried_chunks=self._tried,
            used_by=used_by,
            write_rate=write_rate,
        )


class CaptureTrial(Trial):
    """A capture of chunks from all over a disk (``serving.server.LiveSource``)."""

    largest_known = 0

    def __init__(self, disk: HeldDisk, run: RunCommand, request: ProbeRequest, zstd: Zstd) -> None:
        super().__init__(disk)
        self._run = run
        self._request = request
        self._zstd = zstd
        self._stream = os.urandom(STREAM_SIZE)
        self._used = ByteRanges()
        self._used_by = ""
        self._geometry: Geometry
        self._capture: Capture | None = None

    def converse(self, link: Link) -> None:
        serve_live(link, self)

    def result(self) -> Probed:
        return self._probed(self._used.total(), self.chunk_count, self._used_by)

    @property
    def chunk_count(self) -> int:
        """How many chunks of the disk are used."""
        return self._geometry.chunk_count

    def header(self) -> bytes:
        """Map what is used on the first call, and describe a disk that holds nothing else."""
        if self._capture is None:
            self._used, self._used_by = self._map()
            raw, size = self._disk.raw, self._request.chunk_size
            sample = SampledDisk(raw, self._used, size)
            sector = raw.logical_sector_size
            self._geometry = Geometry(len(sample) * size, sector, max(512, sector), size)
            level, watches = self._request.level, self._watches
            self._capture = Capture(
                sample, self._geometry, sample, self._zstd, level, self._stream, watches, zero_bad_sectors=True
            )
        return ImageHeader(self._geometry, self._stream, "").pack()

    def _map(self) -> tuple[ByteRanges, str]:
        """What of the disk a capture would read, and how that is known."""
        raw, mode = self._disk.raw, self._request.used_map
        if self._disk.in_use:
            self.warnings.append(
                f"{raw.path} is in use, and what of it is used can't be seen now, so the forecast is for all of it. "
                + " ".join(self._disk.in_use)
            )
            return ByteRanges([(0, raw.size)]), "whole"
        used = read_used_map(self._run, self._disk.disk, read_partition_table(self._run, raw.path), mode)
        self.warnings.extend(used.warnings)
        return used.ranges, "whole" if used.reason or mode == ALL else "map"

    def index(self) -> bytes:
        """Nothing: the index of a capture comes into being with the records."""
        return b""

    def known(self, header: bytes, index: bytes) -> None:
        """Nothing that is there already counts."""

    def arrived_damaged(self, chunk: int) -> None:
        """It does not matter."""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, bytes | None], None, None]:
        """The records of [start, end), for as long as the trial lasts."""
        with contextlib.closing(self._asked().records(start, end)) as records:
            for header, frame in records if self._goes_on() else ():
                yield header.pack(), frame
                self._tried += 1
                if not self._goes_on():
                    return

    def _asked(self) -> Capture:
        if self._capture is None:
            raise ImagingError("The controller asked for records before it asked what the disk is.")
        return self._capture

    def report(self) -> bytes:
        """How the capture gets on, once a second."""
        return self._status().pack() if self._reporter.due() else b""

    def conclude(self) -> Iterator[bytes]:
        """How it went."""
        yield self._status().pack()

    def _status(self) -> Status:
        capture, total = self._asked(), self._used.total()
        return Status(
            phase=STREAMING,
            done=capture.bytes_done,
            total=total,
            data_done=capture.bytes_done,
            data_total=total,
            seconds=self._watches.seconds(),
            stages=self._watches.stages(),
            workers=capture.workers,
            processors=processors(),
            cpu=time.process_time(),
            level=capture.level,
        )


@dataclass(frozen=True)
class _Target:
    """An image, and what would compare a disk with it and write it. ``chunks`` are those to be sent, in the order of the sample."""

    header: ImageHeader
    goal: Goal
    chunks: list[int]
    scan: Scan
    engine: Restore
    total: int
    data_total: int


class RestoreTrial(Trial):
    """A restore of chunks from all over an image to a disk that is only read."""

    def __init__(self, disk: HeldDisk, zstd: Zstd) -> None:
        super().__init__(disk)
        self._zstd = zstd
        self._pretended = PretendedDisk(disk.raw.path)
        self._target: _Target | None = None
        self._written: set[int] = set()
        self._done = 0

    def close(self) -> None:
        """Let go of the disk."""
        self._pretended.close()

    def result(self) -> Probed:
        if self._pretended.only_zeros:
            self.warnings.append(
                f"Where {self._disk.raw.path} was read nothing but zeros was found. A disk may know of zeros without reading them, and may be "
                "slower where something is on it."
            )
        target = self._target
        total, chunks = (target.total, len(target.goal)) if target else (0, 0)
        return self._probed(total, chunks, "image", self._pretended.write_rate)

    def converse(self, link: Link) -> None:
        target = self._target = self._target or self._describe(link)
        missing = (chunk for chunk in target.chunks if chunk not in self._written)
        under_way = 0

        def receive(room: memoryview) -> RecordHeader | None:
            nonlocal under_way
            while True:
                while under_way < UNDER_WAY and self._goes_on() and _ask(link, missing):
                    under_way += 1
                if not under_way:
                    return None
                if self._reporter.due():
                    tell_progress(link, self._status(target).pack())
                header = receive_record(link, unpack, room)
                if header is not None:
                    return header
                under_way -= 1

        def unpack(payload: bytes) -> RecordHeader:
            return RecordHeader.unpack(payload, target.header.geometry, target.header.stream)

        target.engine.write(receive, link.close, self._note, _reject)
        tell_progress(link, self._status(target).pack())
        finish(link)

    def _note(self, chunk: int) -> None:
        row = self._target.goal.row(chunk) if self._target else None
        if row is not None and chunk not in self._written:
            self._written.add(chunk)
            self._tried += 1
            self._done += self._target.goal.bytes_in(row) if self._target else 0

    def _describe(self, link: Link) -> _Target:
        """Learn what the image is, and read some of the disk as if it were compared with it."""
        packed = ask_header(link)
        header = ImageHeader.unpack(packed)
        index = Index.unpack(receive_index(link, largest_index(header.geometry)), packed, header.geometry)
        disk, watches = self._pretended, self._watches
        goal = Goal(index, disk.size, LEAVE)
        scan, engine = (
            Scan(disk, goal, watches),
            Restore(disk, goal, index, Guards(disk, goal.geometry), self._zstd, watches),
        )
        chunks, total, data_total = [], 0, 0
        for row in goal.rows():
            size = goal.bytes_in(row)
            total += size
            if not row.flags & ZERO:
                data_total += size
                chunks.append(row.chunk)
        sample = [chunks[number] for number in spread(len(chunks))]
        self._measure(scan, (row for row in map(goal.row, sample) if row is not None))
        watches.begin()
        return _Target(header, goal, sample, scan, engine, total, data_total)

    def _measure(self, scan: Scan, sample: Iterable[Row]) -> None:
        """Measure how fast the disk is read, and assume by that how fast it is written."""
        began = time.monotonic()
        with contextlib.closing(scan.compare(sample)) as results:
            for _result in results:
                if scan.bytes_read >= LEAST_SCANNED and time.monotonic() - began >= SCAN_SECONDS:
                    break
        read = self._watches.stages().get("read", {}).get("busy", 0.0)
        share = 1.0 if self._disk.disk.rotational else WRITE_SHARE
        self._pretended.write_rate = max(1.0, share * scan.bytes_read / max(read, 1e-3))

    def _status(self, target: _Target) -> Status:
        return Status(
            phase=STREAMING,
            done=self._done,
            total=target.total,
            data_done=self._done,
            data_total=target.data_total,
            seconds=self._watches.seconds(),
            stages=self._watches.stages(),
            workers=target.engine.workers,
            processors=processors(),
            cpu=time.process_time(),
            scanned=target.scan.bytes_read,
            written=target.engine.bytes_written,
        )


def _ask(link: Link, missing: Iterator[int]) -> bool:
    """Ask for the next chunks of a sample; False when there are no more."""
    chunks = sorted(itertools.islice(missing, RUN))
    if chunks:
        want(link, merge((chunk, chunk + 1) for chunk in chunks))
    return bool(chunks)


def _reject(_chunk: int, error: ImagingError) -> NoReturn:
    """A damaged frame breaks the link, anything else the trial."""
    raise LinkError(str(error)) if isinstance(error, DamagedFrame) else error


def run_probe(run: RunCommand, request: ProbeRequest, zstd: Zstd, session: Session) -> tuple[Probed, list[str]]:
    """Try what is to be forecast; returns the module's result, and its warnings."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(HeldDisk(run, request.device, request.expect, writable=False, may_be_in_use=True))
        trial: Trial
        if request.purpose == CAPTURE:
            trial = CaptureTrial(disk, run, request, zstd)
        else:
            trial = stack.enter_context(contextlib.closing(RestoreTrial(disk, zstd)))
        session.converse(trial.converse)
        return trial.result(), trial.warnings
