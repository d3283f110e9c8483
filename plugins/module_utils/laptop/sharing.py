# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shares the disk of the reference: describes its content to the controller, then makes the records that laptops ask for.

The description is the header and the index of an image that has no file. The index has no hashes: the disk is read for them while laptops already
ask for what is hashed. A record is made when a laptop asks for it: its chunk is read again, compared with its hash, and compressed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ..disk.command import RunCommand
from ..engine.capture import Capture, UnreadableSectors
from ..engine.delta_scan import sample_of
from ..engine.partition_names import NamedRange
from ..engine.resize import image_facts
from ..engine.status import CHECKING, HASHING, Reporter, Status
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.hashes import Hashes
from ..image.header import ImageHeader
from ..image.index import NO_HASH, Index, Row
from ..image.record import IMAGE_ID_SIZE, USED, RecordHeader, pack_ranges
from ..run_file import CONNECTED, WAITING
from ..serving.hashes import answer_hashes
from ..serving.requested import RequestedShare
from ..stream.conversation import describe, raise_end, send_progress
from ..stream.credentials import Credentials
from ..stream.link import Kind, Link, LinkError
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
    """The description of a held disk and the hashes of its chunks, which a thread makes.

    The disk is described without hashes once its file systems were checked, so the description does not change any more.
    """

    def __init__(self, disk: SourceDisk, request: CaptureRequest, ticket: Ticket, zstd: Zstd) -> None:
        self._disk = disk
        self._request = request
        self._ticket = ticket
        self._zstd = zstd
        self._watches = Stopwatches()
        self._stopped = False
        self._capture: Capture | None = None
        self.error: BaseException | None = None
        """Why not all could be described or hashed."""
        self._ready = threading.Event()
        """Set when the disk is described, or never will be."""
        self._thread: threading.Thread | None = None
        self.header: ImageHeader
        self.packed: tuple[bytes, bytes] | None = None
        """Packed header and index; None before the disk is described."""
        self.hashes: Hashes
        self.bad_ranges: list[NamedRange] = []
        """The unreadable ranges, which count as zeros."""
        self.bytes_read = 0

    @property
    def _hash_first(self) -> bool:
        """Whether all is hashed before: the header names what can't be read, and a rotating disk loses more by being read at two places."""
        return self._request.zero_bad_sectors or self._disk.disk.rotational

    def start(self) -> None:
        """Begin to make it, the first time that this is called."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="describe", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Return whether the disk is described, after so many seconds at the most; raises what has failed."""
        ready = self._ready.wait(seconds)
        if ready and self.error is not None:
            raise self.error
        return ready

    def stop(self) -> None:
        """Wait until the disk is not read any more."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            mapping = self._watches.new()
            self._disk.map_used()
            mapping.busy("map")
            while not self._read():
                pass
        except UnreadableSectors as error:
            self.error = unreadable(self._disk, error)
        except BaseException as error:  # the thread that waits raises it
            self.error = error
        finally:
            self._ready.set()

    def _read(self) -> bool:
        """Hash all used chunks; returns False when more of the disk turned out to be used than was thought, before it was described."""
        disk, image_id = self._disk, os.urandom(IMAGE_ID_SIZE)
        capture = self._capture = records_maker(
            disk, self._request, self._zstd, image_id, self._watches, hash_only=True
        )
        index = used_index(disk)
        hashes = self.hashes = Hashes(index)
        with contextlib.closing(capture.records_of(iter(hashing_order(index)))) as records:
            for record, _frame in records:
                if self._stopped or not self._describe(capture, image_id):
                    return self._stopped
                hashes.add(record.chunk, record.flags, record.content_hash)
        while self.packed is None:
            if self._stopped or not self._describe(capture, image_id, POLL):
                return self._stopped
        self.bytes_read += capture.bytes_read
        hashes.agree(index.root_digest())
        return True

    def _describe(self, capture: Capture, image_id: bytes, seconds: float = 0.0) -> bool:
        """Describe the disk, if it can be described after so many seconds; returns False when more of it is used than was thought."""
        if self.packed is not None:
            return True
        disk = self._disk
        checked = disk.checked(seconds)
        if disk.take_doubts():
            return False
        if checked and not (self._hash_first and self.hashes.index.missing):
            self.bad_ranges = named_bad_ranges(disk, capture)
            self.header = replace(disk.header(image_id, self._ticket), bad_ranges=self.bad_ranges)
            packed = self.header.pack()
            self.packed = packed, used_index(disk).pack(packed)
            self._ready.set()
        return True

    def capture(self) -> Capture:
        """Return a maker of records of the disk, as it was described."""
        return records_maker(self._disk, self._request, self._zstd, self.header.image_id, Stopwatches())

    def status(self) -> Status | None:
        """Return the current progress; None while the used space is not known."""
        capture = self._capture
        if capture is None:
            return None
        phase = HASHING if self.hashes.index.missing else CHECKING
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
        self._records_read = 0
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
        if described.packed is None:
            raise AssertionError("the disk is described")
        describe(link, *described.packed)

    def _begin(self) -> None:
        share = self._share = RequestedShare(self._described.hashes.index)
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
                link = self._session.next_peer(POLL)
                answer_hashes(link, self._described.hashes, partial(self._check_open, share))
                share.serve(link)
            if self._described.error is not None:
                self._fail(share, self._described.error)
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
            self._fail(share, error)
        finally:
            self._records_read = capture.bytes_read

    def _fail(self, share: RequestedShare, error: BaseException) -> None:
        if self.failure is None:
            self.failure = (
                error if isinstance(error, ImagingError) else ImagingError(f"No record can be made: {error!r}.")
            )
            share.end(str(self.failure))

    @staticmethod
    def _check_open(share: RequestedShare) -> None:
        if share.ended:
            raise LinkError("Nothing is shared any more.")

    def _check(self, header: RecordHeader) -> None:
        row = self._described.hashes.index.find(header.chunk)
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

    @property
    def bytes_read(self) -> int:
        """Bytes that were read of the disk's content."""
        return self._described.bytes_read + self._records_read

    def close(self) -> None:
        """End all links, and wait until the disk is not read any more."""
        self._closed.set()
        if self._share is not None:
            self._share.close()
        for thread in self._threads:
            thread.join()
        self._described.stop()


def used_index(disk: SourceDisk) -> Index:
    """Return the index of a mapped disk, without hashes. There are no frames yet; an index that is sent has a size for each."""
    geometry = disk.geometry
    index = Index(geometry)
    for chunk in range(geometry.chunk_count):
        start, length = geometry.offset(chunk), geometry.length(chunk)
        ranges = [(low - start, high - start) for low, high in disk.used.ranges.within(start, start + length)]
        if ranges:
            index.append(
                Row(
                    chunk=chunk,
                    flags=USED,
                    ranges=pack_ranges(ranges, length),
                    content_hash=NO_HASH,
                    frame_size=length,
                )
            )
    return index


def hashing_order(index: Index) -> list[int]:
    """Return the used chunks in the order in which laptops compare them: those of the guards, a sample, and then the disk from its start."""
    chunks = [row.chunk for row in index]
    guards = [chunk for chunk in (0, index.geometry.chunk_count - 1) if index.position(chunk) is not None]
    return list(dict.fromkeys([*guards, *sample_of(chunks), *chunks]))


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
        return Looked(
            image=asdict(image_facts(disk.header(bytes(IMAGE_ID_SIZE), nobody), used_index(disk))),
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
    if described.packed is None:
        raise ImagingError("The controller ended the run before the disk was described.")
    index = described.hashes.index
    return Shared(
        device=disk.raw.path,
        **disk.identity(),
        disk_size=disk.geometry.disk_size,
        used_bytes=index.used_bytes(),
        used_chunks=len(index),
        root_digest=described.hashes.root.hex(),
        bytes_read=share.bytes_read,
        passed_on=share.sent,
        links_made=session.links_made,
    )
