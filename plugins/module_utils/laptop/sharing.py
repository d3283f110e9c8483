# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shares the disk of the reference: describes its content to the controller, then makes the records that laptops ask for.

The description is the header and the index of an image that has no file. The disk is read once for it, and only hashed. A record is made when a
laptop asks for it: its chunk is read again, compared with the index, and compressed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..disk.command import RunCommand
from ..engine.capture import Capture, UnreadableSectors
from ..engine.partition_names import NamedRange
from ..engine.resize import image_facts
from ..engine.status import CHECKING, HASHING, Reporter, Status
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.index import Index, Row
from ..image.record import IMAGE_ID_SIZE, USED, RecordHeader, pack_ranges
from ..run_file import CONNECTED, WAITING
from ..serving.requested import RequestedShare
from ..stream.conversation import describe, raise_end, send_progress
from ..stream.credentials import Credentials
from ..stream.link import Kind, Link
from ..stream.listener import ControllerGone
from ..ticket import Ticket
from ..zstd import Zstd
from .capture import (
    CaptureRequest,
    SourceDisk,
    named_bad_ranges,
    reading_status,
    records_maker,
    unreadable,
    zeroed,
)
from .session import Session

POLL = 0.2
"""Seconds after which a waiting thread looks at what else has happened."""


class Described:
    """The description of a held disk, which a thread makes."""

    def __init__(self, disk: SourceDisk, request: CaptureRequest, ticket: Ticket, zstd: Zstd) -> None:
        self._disk = disk
        self._request = request
        self._ticket = ticket
        self._zstd = zstd
        self._watches = Stopwatches()
        self._checking = self._stopped = False
        self._capture: Capture | None = None
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.header: ImageHeader
        self.index: Index
        self.bad_ranges: list[NamedRange] = []
        """The unreadable ranges, which count as zeros."""
        self.bytes_read = 0

    def start(self) -> None:
        """Begin to make it, the first time that this is called."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="describe", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Return whether it is made, after so many seconds at the most; raises what has failed."""
        made = self._ended.wait(seconds)
        if made and self._error is not None:
            raise self._error
        return made

    def stop(self) -> None:
        """Wait until the disk is not read any more."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()

    @property
    def made(self) -> bool:
        """Whether it is made."""
        return self._ended.is_set() and self._error is None

    def _run(self) -> None:
        try:
            mapping = self._watches.new()
            self._disk.map_used()
            mapping.busy("map")
            while not self._read():
                pass
        except UnreadableSectors as error:
            self._error = unreadable(self._disk, error)
        except BaseException as error:  # the thread that waits raises it
            self._error = error
        finally:
            self._ended.set()

    def _read(self) -> bool:
        """Hash all used chunks; returns False when more of the disk turned out to be used than was thought."""
        disk, image_id = self._disk, os.urandom(IMAGE_ID_SIZE)
        capture = self._capture = records_maker(
            disk, self._request, self._zstd, image_id, self._watches, hash_only=True
        )
        index = Index(disk.geometry)
        self._checking = False
        with contextlib.closing(capture.records_of(iter(range(disk.geometry.chunk_count)))) as records:
            for record, _frame in records:
                if self._stopped or disk.take_doubts():
                    return self._stopped
                # There is no frame yet. An index that is sent has a size for each.
                index.append(replace(Row.of(record), frame_size=record.content_size))
        self._checking = True
        while not disk.checked(POLL):
            if self._stopped or disk.take_doubts():
                return self._stopped
        self.bytes_read += capture.bytes_read
        if disk.take_doubts():
            return False
        self.bad_ranges = named_bad_ranges(disk, capture)
        self.header = replace(disk.header(image_id, self._ticket), bad_ranges=self.bad_ranges)
        self.index = index
        return True

    def capture(self) -> Capture:
        """Return a maker of records of the disk, as it was described."""
        return records_maker(self._disk, self._request, self._zstd, self.header.image_id, Stopwatches())

    def status(self) -> Status | None:
        """Return the current progress; None while the used space is not known."""
        capture = self._capture
        if capture is None:
            return None
        phase = CHECKING if self._checking else HASHING
        return reading_status(capture, phase, self._disk.used.ranges.total(), self._watches)


class DiskShare:
    """The described disk, for all laptops that take from it. One thread makes the records, so it is read for one of them at a time."""

    def __init__(self, session: Session, described: Described) -> None:
        self._session = session
        self._described = described
        self._share: RequestedShare | None = None
        """Made when the disk is described."""
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self.failure: ImagingError | None = None
        """Why no record can be made any more."""

    def converse(self, link: Link) -> None:
        """Answer the controller: describe the disk and, at the end, let go of it; raises LinkError, PeerEnded, ImagingError."""
        while True:
            message = link.receive()
            if message.kind == Kind.DESCRIBE:
                self._describe(link)
            elif message.kind == Kind.DONE and self.failure is not None:
                raise self.failure
            elif message.kind == Kind.DONE:
                link.send(Kind.DONE)
                return
            else:
                raise_end(message)

    def _describe(self, link: Link) -> None:
        described, reporter = self._described, Reporter()
        described.start()
        while not described.wait(POLL):
            message = link.poll()
            if message is not None:
                raise_end(message)
            status = described.status() if reporter.due() else None
            if status is not None:
                send_progress(link, status.pack())
        if self._share is None:
            self._begin()
        packed = described.header.pack()
        describe(link, packed, described.index.pack(packed))

    def _begin(self) -> None:
        share = self._share = RequestedShare(self._described.index)
        self._session.last_use = lambda: time.monotonic() if share.busy else share.left
        for name, work in (("accept-laptops", self._accept), ("make-records", self._make)):
            thread = threading.Thread(target=work, args=(share,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _accept(self, share: RequestedShare) -> None:
        """Serve each laptop that connects, and publish whether there are any."""
        used = False
        while not self._closed.is_set():
            with contextlib.suppress(ControllerGone):
                share.serve(self._session.next_peer(POLL))
            if share.busy != used:
                used = not used
                self._session.publish(CONNECTED if used else WAITING)

    def _make(self, share: RequestedShare) -> None:
        capture = self._described.capture()
        try:
            with contextlib.closing(capture.records_of(share.wanted(), share.stop)) as records:
                for header, frame in records:
                    self._check(header)
                    if frame is None:
                        raise AssertionError("no image is known that the laptop could have")
                    share.add(header, frame)
        except Exception as error:  # such as an allocation of memory: nobody must wait for records that will not come
            self.failure = (
                error if isinstance(error, ImagingError) else ImagingError(f"No record can be made: {error!r}.")
            )
            share.end(str(self.failure))
        finally:
            self._described.bytes_read += capture.bytes_read

    def _check(self, header: RecordHeader) -> None:
        row = self._described.index.find(header.chunk)
        if row is None or not row.describes(header):
            raise ImagingError(
                f"Chunk {header.chunk} of the reference's disk is not what it was when the disk was described: expected no change during the run. "
                "Something writes to the disk, or it is failing. Restart the reference from its live medium and run again."
            )

    @property
    def used(self) -> bool:
        """Whether laptops have taken from here, and none does any more."""
        return self._share is not None and not self._share.busy and self._share.left > float("-inf")

    @property
    def sent(self) -> int:
        """Bytes of frames."""
        return self._share.sent if self._share else 0

    def close(self) -> None:
        """End all links, and wait until the disk is not read any more."""
        self._closed.set()
        if self._share is not None:
            self._share.close()
        for thread in self._threads:
            thread.join()
        self._described.stop()


@dataclass(frozen=True)
class Looked:
    """What can be said of a disk before it is read: ``image`` has what decides whether another disk can hold the same. Sizes in bytes."""

    image: dict[str, Any]
    device: str
    disk_size: int
    used_bytes: int


def look(run: RunCommand, request: CaptureRequest) -> Looked:
    """Return what can be said of a disk before it is read. Reads only what the used maps need."""
    nobody = Ticket(run_id="0", credentials=Credentials("", "", ""), host="", created="", collection_version="")
    with SourceDisk(run, request) as disk:
        disk.map_used()
        index = Index(disk.geometry)
        for chunk in range(disk.geometry.chunk_count):
            start, length = disk.geometry.offset(chunk), disk.geometry.length(chunk)
            ranges = [(low - start, high - start) for low, high in disk.used.ranges.within(start, start + length)]
            if ranges:
                index.append(Row(chunk=chunk, flags=USED, ranges=pack_ranges(ranges, length), content_hash=bytes(32)))
        return Looked(
            image=asdict(image_facts(disk.header(bytes(IMAGE_ID_SIZE), nobody), index)),
            device=disk.raw.path,
            disk_size=disk.geometry.disk_size,
            used_bytes=disk.used.ranges.total(),
        )


@dataclass(frozen=True)
class Shared:
    """The result of sharing a disk. ``passed_on`` counts bytes of frames."""

    device: str
    model: str
    serial: str
    wwn: str
    disk_size: int
    used_bytes: int
    used_chunks: int
    root_digest: str
    bytes_read: int
    passed_on: int
    links_made: int


def run_share(
    run: RunCommand, request: CaptureRequest, ticket: Ticket, zstd: Zstd, session: Session
) -> tuple[Shared, list[str]]:
    """Share a disk until the controller says that all are done; returns the module's result and its warnings."""
    with SourceDisk(run, request) as disk:
        described = Described(disk, request, ticket, zstd)
        shared = share_disk(disk, described, session)
        return shared, [*disk.used.warnings, *zeroed(disk.raw.path, described.bad_ranges)]


def share_disk(disk: SourceDisk, described: Described, session: Session) -> Shared:
    """Share a held disk until the controller says that all are done, or until nobody has taken from it for the link timeout."""
    share = DiskShare(session, described)
    try:
        session.converse(share.converse)
    except ControllerGone:
        # What happens between the last laptop and the controller's word may take long; nothing of it matters to this disk.
        if not share.used or share.failure is not None:
            raise
    finally:
        share.close()
    if not described.made:
        raise ImagingError("The controller ended the run before the disk was described.")
    return Shared(
        device=disk.raw.path,
        **disk.identity(),
        disk_size=disk.geometry.disk_size,
        used_bytes=described.index.used_bytes(),
        used_chunks=len(described.index),
        root_digest=described.index.root_digest().hex(),
        bytes_read=described.bytes_read,
        passed_on=share.sent,
        links_made=session.links_made,
    )
