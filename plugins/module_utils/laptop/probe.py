# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptop's half of a probe: a normal transfer that ends after some seconds and writes nothing.

A capture serves chunks from all over the disk. A restore receives chunks from all over the image, and its engine writes them to a disk that only
waits as long as writing is assumed to take. Before that, it reads from the disk, as a read-back does.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import Generator, Iterable

from ..disk.command import RunCommand
from ..disk.partition_table import read_partition_table
from ..disk.ranges import ByteRanges
from ..disk.used_map import UsedMap, read_used_map
from ..engine.capture import ReadableDisk, UsedRanges
from ..engine.goal import LEAVE, Goal
from ..engine.guards import Guards
from ..engine.pipeline import processors
from ..engine.restore import Restore
from ..engine.scan import Scan
from ..engine.status import STREAMING, Reporter, Status
from ..engine.stopwatch import BUSY, Stopwatches
from ..engine.trial import RUN, TRIAL_SECONDS, WRITE_SHARE, PretendedDisk, SampledDisk, spread
from ..errors import ImagingError
from ..image.geometry import Geometry
from ..image.header import ImageHeader
from ..image.index import Index, Row, max_index_size
from ..image.record import ZERO, RecordHeader
from ..serving.server import serve_live
from ..sources.link import LinkSource
from ..stream.conversation import ask_header, finish, receive_index, send_progress
from ..stream.link import Link
from ..ticket import Ticket
from ..zstd import Zstd
from .capture import CaptureRequest, CaptureSource, SourceDisk
from .held_disk import HeldDisk
from .session import Session

MIN_CHUNKS = 8
"""Minimum number of chunks of a trial."""

SCAN_SECONDS = 1.0
MIN_SCANNED = 48 << 20
"""Seconds for which a target is read, and the minimum bytes."""

NOTHING = "The controller ended the probe before anything was measured."

UNDER_WAY = 2
"""Maximum number of unanswered requests of a restore."""


@dataclass(frozen=True)
class Probed:
    """The result of a trial besides its reports. ``write_rate``, in bytes a second, is assumed; for a capture it is 0."""

    device: str
    disk_size: int
    rotational: bool
    used_bytes: int
    write_rate: float


class Trial:
    """Measures the time of a trial, which begins with the first call."""

    def __init__(self) -> None:
        self.chunks = 0
        self._deadline = 0.0

    def goes_on(self) -> bool:
        """Return whether there is time for another chunk."""
        self._deadline = self._deadline or time.monotonic() + TRIAL_SECONDS
        return self.chunks < MIN_CHUNKS or time.monotonic() < self._deadline


class SampledSource(SourceDisk):
    """A disk as its used chunks in the order of a sample. The consistency of its file systems is not checked."""

    def __init__(self, run: RunCommand, request: CaptureRequest) -> None:
        super().__init__(run, request, may_be_in_use=True)
        self._sample: SampledDisk

    def map_used(self) -> None:
        """Map the used space of the disk; a disk that is in use counts as wholly used."""
        raw, request = self.raw, self.request
        if self.in_use:
            said = f"{raw.path} is in use, so its used space can't be determined. The forecast is for all of it. "
            self.used = UsedMap(ranges=ByteRanges([(0, raw.size)]), warnings=[said + self.in_use])
        else:
            self.used = read_used_map(self._run, self.disk, read_partition_table(self._run, raw.path), request.used_map)
        size, sector = request.chunk_size, raw.logical_sector_size
        self._sample = SampledDisk(raw, self.used.ranges, size)
        self.geometry = Geometry(len(self._sample) * size, sector, max(512, sector), size)

    def content(self) -> tuple[ReadableDisk, UsedRanges]:
        return self._sample, self._sample

    def checked(self, seconds: float | None = None) -> bool:
        return True

    def header(self, image_id: bytes, ticket: Ticket) -> ImageHeader:
        """The geometry of a disk that consists of the sample only."""
        return ImageHeader(geometry=self.geometry, image_id=image_id, created=ticket.created)


class TrialSource(CaptureSource):
    """A capture of a sample, for as long as a trial lasts."""

    def __init__(self, disk: SourceDisk, ticket: Ticket, zstd: Zstd) -> None:
        super().__init__(disk, ticket, zstd)
        self.trial = Trial()
        self._end = b""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, bytes | None], None, None]:
        with contextlib.closing(super().records(start, end)) as records:
            while self.trial.goes_on():
                record = next(records, None)
                if record is None:
                    break
                yield record
                self.trial.chunks += 1
            # Before the pipeline is closed, because that finishes chunks that are not sent any more.
            self._end = self.status().pack()

    def conclude(self) -> Generator[bytes, None, None]:
        """Return the result."""
        yield self._end


@dataclass(frozen=True)
class _Target:
    """An image, and the objects to compare a disk with it and write it. ``chunks`` are sent in the order of the sample."""

    header: ImageHeader
    goal: Goal
    chunks: list[int]
    scan: Scan
    engine: Restore
    total: int
    data_total: int


class TrialSink:
    """A restore of chunks from all over an image to a disk that is only read, over as many links as it takes."""

    def __init__(self, disk: HeldDisk, zstd: Zstd) -> None:
        self._disk = disk
        self._zstd = zstd
        self.pretended = PretendedDisk(disk.raw.path)
        self._watches = Stopwatches()
        self._reporter = Reporter()
        self.trial = Trial()
        self._target: _Target | None = None
        self._written: set[int] = set()
        self._done = 0

    def target(self) -> _Target:
        """Return the result; raises ImagingError when nothing was transferred."""
        if self._target is None or not self.trial.chunks:
            raise ImagingError(NOTHING)
        return self._target

    def close(self) -> None:
        self.pretended.close()

    def converse(self, link: Link) -> None:
        """Run the trial over a link; raises LinkError, PeerEnded, ImagingError."""
        target = self._target = self._target or self._describe(link)
        source = LinkSource(lambda: link, target.header, lambda: "Nothing was written")
        missing = (chunk for chunk in target.chunks if chunk not in self._written)
        in_flight = 0

        def receive(room: memoryview) -> RecordHeader | None:
            nonlocal in_flight
            while True:
                while in_flight < UNDER_WAY and self.trial.goes_on():
                    chunks = sorted(itertools.islice(missing, RUN))
                    if not chunks:
                        break
                    source.request(chunks)
                    in_flight += 1
                if not in_flight:
                    return None
                if self._reporter.due():
                    send_progress(link, self._status(target).pack())
                header = source.receive(room)
                if header is not None:
                    return header
                in_flight -= 1

        def written(chunk: int) -> None:
            row = target.goal.row(chunk)
            if row is not None and chunk not in self._written:
                self._written.add(chunk)
                self.trial.chunks += 1
                self._done += target.goal.bytes_in(row)

        target.engine.write(receive, source.close, written, source.reject)
        send_progress(link, self._status(target).pack())
        finish(link)

    def _describe(self, link: Link) -> _Target:
        """Receive the description of the image, and read a part of the disk as a comparison does."""
        packed = ask_header(link)
        header = ImageHeader.unpack(packed)
        index = Index.unpack(receive_index(link, max_index_size(header.geometry)), packed, header.geometry)
        disk, watches = self.pretended, self._watches
        goal = Goal(index, disk.size, LEAVE)
        scan = Scan(disk, goal, watches)
        engine = Restore(disk, goal, index, Guards(disk, goal.geometry), self._zstd, watches)
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
        return _Target(
            header=header, goal=goal, chunks=sample, scan=scan, engine=engine, total=total, data_total=data_total
        )

    def _measure(self, scan: Scan, sample: Iterable[Row]) -> None:
        began = time.monotonic()
        with contextlib.closing(scan.compare(sample)) as results:
            for _result in results:
                if scan.bytes_read >= MIN_SCANNED and time.monotonic() - began >= SCAN_SECONDS:
                    break
        read = self._watches.stages().get("read", {}).get(BUSY, 0.0)
        share = 1.0 if self._disk.disk.rotational else WRITE_SHARE
        self.pretended.write_rate = max(1.0, share * scan.bytes_read / max(read, 1e-3))

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


def try_capture(
    run: RunCommand, request: CaptureRequest, ticket: Ticket, zstd: Zstd, session: Session
) -> tuple[Probed, list[str]]:
    """Serve a sample of the disk; returns the module's result and its warnings."""
    with SampledSource(run, request) as disk:
        source = TrialSource(disk, ticket, zstd)
        session.converse(lambda link: serve_live(link, source))
        if not source.trial.chunks:
            raise ImagingError(NOTHING)
        return probed(disk, disk.used.ranges.total(), 0.0, disk.used.warnings)


def try_restore(run: RunCommand, request: CaptureRequest, zstd: Zstd, session: Session) -> tuple[Probed, list[str]]:
    """Receive a sample of an image, and discard it; returns the module's result and its warnings."""
    with HeldDisk(run, request.device, request.expect, writable=False, may_be_in_use=True) as disk:
        return take_sample(disk, zstd, session)


def take_sample(disk: HeldDisk, zstd: Zstd, session: Session) -> tuple[Probed, list[str]]:
    """Run the restore trial on a held disk."""
    with contextlib.closing(TrialSink(disk, zstd)) as sink:
        session.converse(sink.converse)
        target = sink.target()
        zeros = (
            f"Where {disk.raw.path} was read nothing but zeros was found. A disk may know of zeros without reading them, and may be slower where "
            "something is on it."
        )
        warnings = [zeros] if sink.pretended.only_zeros else []
        return probed(disk, target.total, sink.pretended.write_rate, warnings)


def probed(disk: HeldDisk, used: int, write_rate: float, warnings: list[str]) -> tuple[Probed, list[str]]:
    """The module's result, and its warnings."""
    path = disk.raw.path
    cached = f"{path} can't be read past the page cache, so some reads may have come from memory."
    result = Probed(
        device=path,
        disk_size=disk.raw.size,
        rotational=disk.disk.rotational,
        used_bytes=used,
        write_rate=write_rate,
    )
    return result, warnings if disk.raw.past_cache else [*warnings, cached]
