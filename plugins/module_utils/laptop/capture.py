# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptop's half of a capture: holds the disk, maps its used space, and serves its records to the controller."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from dataclasses import dataclass, field
from typing import Any, Generator, Iterator, Mapping

from ..disk.command import RunCommand
from ..disk.consistency import ConsistencyChecks
from ..disk.firmware import boot_order
from ..disk.partition_table import PartitionTable, read_partition_table
from ..disk.used_map import PartitionUse, UsedMap, read_used_map, wholly_used
from ..engine.capture import Capture, ReadableDisk, UnreadableSectors, UsedRanges
from ..engine.level import FIRST, parse_level
from ..engine.partition_names import MAX_RANGES, NamedRange, describe_range, merge, name_ranges
from ..engine.pipeline import processors
from ..engine.status import CHECKING, STREAMING, Reporter, Status
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.geometry import DEFAULT_CHUNK_SIZE, Geometry
from ..image.header import ImageHeader
from ..image.index import Index, max_index_size
from ..image.record import IMAGE_ID_SIZE
from ..serving.server import serve_live
from ..stream.conversation import Changed
from ..stream.link import Link
from ..ticket import Ticket
from ..zstd import Zstd
from .held_disk import HeldDisk
from .session import Session
from .shown import show_status

BAD_RANGES_ROOM = 256 << 10
"""Bytes that a header reserves for the list of unreadable ranges, when a capture may go on despite them."""

SHOWN_RANGES = 5
"""How many unreadable ranges a warning names; the result has all of them."""

FACTS = ("generalization", "systems", "findings")
"""The facts of a source that the controller may add to the header."""


@dataclass(frozen=True)
class CaptureRequest:
    """The request for a capture. ``level`` None is the automatic one; ``expect`` identifies the selected disk, and ``facts`` are added to the
    image's header.
    """

    device: str
    used_map: str
    level: int | None
    zero_bad_sectors: bool
    expect: Mapping[str, Any] | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    chunk_size: int = DEFAULT_CHUNK_SIZE

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> CaptureRequest:
        """Return the request of a module with these arguments. A probe, which has no ``bad_sectors``, does not end because of them."""
        return cls(
            device=params["device"],
            used_map=params["used_map"],
            level=parse_level(params["compression_level"]),
            zero_bad_sectors=params.get("bad_sectors", "zero") == "zero",
            expect=params["expect"],
            facts=params.get("facts", {}),
        )


@dataclass(frozen=True)
class Examined:
    """The result for a mapped disk. Sizes in bytes."""

    device: str
    model: str
    serial: str
    wwn: str
    disk_size: int
    used_bytes: int
    partitions: list[PartitionUse]
    past_cache: bool


@dataclass(frozen=True)
class Captured(Examined):
    """The result for a captured disk; ``status`` is a packed ``engine.status.Status``."""

    root_digest: str
    bad_ranges: list[NamedRange]
    bytes_read: int
    used_chunks: int
    sent_bytes: int
    links_made: int
    workers: int
    zstd: str
    status: str


class SourceDisk(HeldDisk):
    """A disk held for reading, with all facts that are needed before its first chunk is read."""

    def __init__(self, run: RunCommand, request: CaptureRequest, may_be_in_use: bool = False) -> None:
        super().__init__(run, request.device, request.expect, False, may_be_in_use)
        self._run = run
        self.request = request
        self.geometry = Geometry(
            self.raw.size, self.raw.logical_sector_size, max(self.disk.physical_sector_size, 512), request.chunk_size
        )
        self.table: PartitionTable | None = None
        self.used: UsedMap
        self.checks: ConsistencyChecks | None = None
        """The checks whether the mapped file systems are consistent; :meth:`map_used` starts them."""
        self._doubted: set[int] = set()

    def map_used(self) -> None:
        """Map the used space of the disk, which takes as long as partclone takes, and start to check the mapped file systems."""
        self.geometry.check()
        self.table = read_partition_table(self._run, self.raw.path)
        used = read_used_map(self._run, self.disk, self.table, self.request.used_map)
        self.checks = ConsistencyChecks(self.raw.path, used.partitions)
        self.used = wholly_used(used, self.checks.missing())
        self.checks.start()

    def content(self) -> tuple[ReadableDisk, UsedRanges]:
        """What is read, and which ranges of it are used."""
        return self.raw, self.used.ranges

    def checked(self, seconds: float | None = None) -> bool:
        """Wait for the checks for so many seconds (None: without limit); returns whether all are finished."""
        return self.checks is not None and self.checks.wait(seconds)

    def take_doubts(self) -> bool:
        """Count inconsistent file systems as wholly used; returns whether that changed anything."""
        doubts = self.checks.doubts() if self.checks else {}
        if doubts.keys() <= self._doubted:
            return False
        self._doubted.update(doubts)
        before, self.used = self.used, wholly_used(self.used, doubts)
        return before.partitions != self.used.partitions

    def header(self, image_id: bytes, ticket: Ticket) -> ImageHeader:
        """Return the header of this disk's image."""
        source = {
            "host": ticket.host,
            "node": platform.node(),
            "device": self.raw.path,
            "model": self.disk.model,
            "serial": self.disk.serial,
            "wwn": self.disk.wwn,
            **self.used.source_json(),
            "used_map": self.request.used_map,
            "boot_order": self._boot_order(),
            **{name: value for name, value in self.request.facts.items() if name in FACTS},
        }
        table = self.table.raw if self.table else None
        return ImageHeader(
            geometry=self.geometry,
            image_id=image_id,
            created=ticket.created,
            partition_table=table,
            source=source,
            collection_version=ticket.collection_version,
        )

    def _boot_order(self) -> list[dict[str, str]] | None:
        choices = boot_order(self._run, self.table) if self.table else None
        return None if choices is None else [choice.to_json() for choice in choices]

    def __exit__(self, *exception: object) -> None:
        if self.checks is not None:
            self.checks.close()
        super().__exit__(*exception)


def records_maker(
    disk: SourceDisk,
    request: CaptureRequest,
    zstd: Zstd,
    image_id: bytes,
    watches: Stopwatches,
    hash_only: bool = False,
) -> Capture:
    """Return a maker of records of a mapped disk. With ``hash_only`` they have no frames."""
    readable, used = disk.content()
    level = FIRST if hash_only else request.level
    return Capture(readable, disk.geometry, used, zstd, level, image_id, watches, request.zero_bad_sectors, hash_only)


def reading_status(capture: Capture, phase: str, total: int, watches: Stopwatches, level: int = 0) -> Status:
    """Return the progress of reading ``total`` used bytes."""
    done = capture.bytes_done
    return Status(
        phase=phase,
        done=done,
        total=total,
        data_done=done,
        data_total=total,
        seconds=watches.seconds(),
        stages=watches.stages(),
        workers=capture.workers,
        processors=processors(),
        cpu=time.process_time(),
        level=level,
    )


def named_bad_ranges(disk: SourceDisk, capture: Capture) -> list[NamedRange]:
    """Return the ranges that could not be read, with their partitions."""
    return name_ranges(merge(sorted(capture.bad_ranges)), disk.used.partitions_json())


class CaptureSource:
    """Answers the controller's questions (``serving.server.LiveSource``)."""

    def __init__(self, disk: SourceDisk, ticket: Ticket, zstd: Zstd) -> None:
        self._disk = disk
        self._ticket = ticket
        self._zstd = zstd
        self._read_before = 0
        self._changed = False
        """Whether the controller has to request the header again."""
        self._checking = False
        self.confirmed = False
        """Whether everything was served, and everything left out is proven to be free."""
        self.watches = Stopwatches()
        self.capture: Capture | None = None
        self._header = b""
        self._reporter = Reporter()

    @property
    def chunk_count(self) -> int:
        """Of the whole disk."""
        return self._disk.geometry.chunk_count

    @property
    def max_known_size(self) -> int:
        """That of this disk."""
        return max_index_size(self._disk.geometry)

    def header(self) -> bytes:
        """Return the packed header; the first call maps the used space."""
        if self.capture is None:
            mapping = self.watches.new()
            self._disk.map_used()
            mapping.busy("map")
            self._begin()
        elif self._changed:
            self._read_before += self.capture.bytes_read
            self._begin()
        return self._header

    def _begin(self) -> None:
        disk, request = self._disk, self._disk.request
        # A restarted capture is another image, so records of the first attempt can't be mixed with it.
        image_id = os.urandom(IMAGE_ID_SIZE)
        self._header = disk.header(image_id, self._ticket).pack(BAD_RANGES_ROOM if request.zero_bad_sectors else 0)
        self.capture = records_maker(disk, request, self._zstd, image_id, self.watches)
        self._changed = self._checking = self.confirmed = False

    def index(self) -> bytes:
        """Return nothing: the index is made while the records are."""
        return b""

    def known(self, header: bytes, index: bytes) -> None:
        """Remember the image that the controller has, unless it is of a disk with another geometry."""
        capture = self._asked()
        geometry = ImageHeader.unpack(header).geometry
        capture.known = Index.unpack(index, header, geometry) if geometry == self._disk.geometry else None

    def report(self) -> bytes:
        """Return a progress report, once a second."""
        if not self._reporter.due():
            return b""
        status = self.status()
        show_status("capturing", self._disk.request.device, status)
        return status.pack()

    def status(self) -> Status:
        """Return the current progress."""
        capture = self._asked()
        phase = CHECKING if self._checking else STREAMING
        return reading_status(capture, phase, self._disk.used.ranges.total(), self.watches, capture.level)

    def records(self, start: int, end: int) -> Generator[tuple[bytes, bytes | None], None, None]:
        """Yield the records of [start, end), read from the disk now."""
        try:
            with contextlib.closing(self._asked().records(start, end)) as records:
                self._raise_if_changed()
                for header, frame in records:
                    yield header.pack(), frame
                    self._raise_if_changed()
        except UnreadableSectors as error:
            raise unreadable(self._disk, error) from error

    def conclude(self) -> Iterator[bytes]:
        """Wait until everything left out is proven to be free; yields reports meanwhile. Raises Changed when something is not free."""
        while not self._disk.checked(Reporter.EVERY if self._checking else 0):
            self._checking = True
            self._raise_if_changed()
            yield self.status().pack()
        self._raise_if_changed()
        self._checking = False
        self.confirmed = True

    def _raise_if_changed(self) -> None:
        self._changed = self._disk.take_doubts() or self._changed
        if self._changed:
            raise Changed("More of the disk is used than was said.")

    def _asked(self) -> Capture:
        if self.capture is None:
            raise ImagingError("The controller asked for records before it asked for the description of the disk.")
        return self.capture

    def bad_ranges(self) -> list[NamedRange]:
        """The unreadable ranges, which count as zeros, with their partitions."""
        return named_bad_ranges(self._disk, self._asked())

    @property
    def bytes_read(self) -> int:
        """Bytes that were read of the disk's content."""
        return self._read_before + self._asked().bytes_read

    def on_damaged(self, chunk: int) -> None:
        """Note that the controller does not have a chunk. Frames are made from the disk for each request."""
        self._asked().forgotten.add(chunk)


def run_capture(
    run: RunCommand, request: CaptureRequest, ticket: Ticket, zstd: Zstd, session: Session
) -> tuple[Captured, list[str]]:
    """Serve the controller until it has everything; returns the module's result and its warnings."""
    sent = 0

    def conversation(link: Link) -> None:
        nonlocal sent
        try:
            serve_live(link, source)
        finally:
            sent += link.bytes_sent

    with SourceDisk(run, request) as disk:
        source = CaptureSource(disk, ticket, zstd)
        session.converse(conversation)
        capture = source.capture
        if capture is None:
            raise ImagingError("The controller ended the transfer before it asked for anything.")
        if not source.confirmed:
            raise ImagingError("The controller ended the transfer before the disk's file systems were checked.")
        bad = source.bad_ranges()
        captured = Captured(
            **vars(_examined(disk)),
            root_digest=capture.index.root_digest().hex(),
            bad_ranges=bad,
            bytes_read=source.bytes_read,
            used_chunks=len(capture.index),
            sent_bytes=sent,
            links_made=session.links_made,
            workers=capture.workers,
            zstd=zstd.name,
            status=source.status().pack().decode(),
        )
        return captured, [*disk.used.warnings, *zeroed(disk.raw.path, bad)]


def unreadable(disk: SourceDisk, error: UnreadableSectors) -> ImagingError:
    """Return the error for a disk that can't be read."""
    places = name_ranges(error.ranges[:MAX_RANGES], disk.used.partitions_json())
    lost = sum(end - start for start, end in error.ranges)
    return ImagingError(
        f"{disk.raw.path}: {lost} used bytes can't be read: {'; '.join(map(describe_range, places))}. There may be more. The disk is "
        "failing: look at the kernel's log (dmesg) and at smartctl -a, and capture a healthy disk. To capture this one anyway, "
        "with zeros for what can't be read and a list of it in the image, set imaging_bad_sectors: zero.",
        error.facts["codes"],
    )


def zeroed(device: str, bad: list[NamedRange]) -> list[str]:
    """Return the warning about an image that holds zeros for unreadable ranges."""
    if not bad:
        return []
    lost = sum(place["end"] - place["start"] for place in bad)
    places = "; ".join(map(describe_range, bad[:SHOWN_RANGES]))
    more = f"; and {len(bad) - SHOWN_RANGES} more" if len(bad) > SHOWN_RANGES else ""
    said = f"{lost} used bytes of {device} could not be read, and are zeros in the image and so on every copy: {places}{more}."
    return [f"{said} The disk is failing: capture a healthy disk."]


def examine(run: RunCommand, request: CaptureRequest) -> tuple[Examined, list[str]]:
    """Return what a capture would find, and its warnings. Reads only what the used maps and the checks of file systems need; stores nothing."""
    with SourceDisk(run, request) as disk:
        disk.map_used()
        disk.checked()
        disk.take_doubts()
        return _examined(disk), disk.used.warnings


def _examined(disk: SourceDisk) -> Examined:
    return Examined(
        device=disk.raw.path,
        **disk.identity(),
        disk_size=disk.geometry.disk_size,
        used_bytes=disk.used.ranges.total(),
        partitions=disk.used.partitions,
        past_cache=disk.raw.past_cache,
    )
