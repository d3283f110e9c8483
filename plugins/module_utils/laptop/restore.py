# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptop's half of a restore or a comparison: learns what the disk is to hold, looks what of it is there, fetches the rest,
writes it, reads it back."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Iterable, Iterator, Mapping, NoReturn, TypedDict

from ..disk.command import RunCommand
from ..disk.image_fit import reasons_against
from ..disk.kernel_partitions import compare_with_kernel, have_table_read
from ..disk_state import INCOMPLETE, UNKNOWN, UNTOUCHED, UNVERIFIED, VERIFIED
from ..engine.another_size import image_facts, own_chunks
from ..engine.goal import DISCARD, Goal
from ..engine.guards import Guards
from ..engine.look import EQUAL, KNOWN, REQUESTED, WANTED, WRITTEN, Look
from ..engine.pipeline import processors
from ..engine.places import MOST_RANGES, NamedRange, describe_range, merge, name_ranges
from ..engine.restore import DamagedFrame, Restore
from ..engine.scan import Scan
from ..engine.status import COMPARING, FLUSHING, STREAMING, VERIFYING, ZEROING, Reporter, Status
from ..engine.stopwatch import Stopwatches
from ..engine.unused import Discarding
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.index import Index, Row, largest_index
from ..image.record import RecordHeader
from ..stream.conversation import (
    MOST_WANTS,
    ask_header,
    damaged,
    finish,
    raise_end,
    receive_index,
    receive_record,
    tell_progress,
    want,
)
from ..stream.link import Link, LinkError
from ..zstd import Zstd
from .fetched import Fetched
from .held_disk import HeldDisk
from .session import Attendance, Session
from .view import Comparison, ExpectedView, comparing, in_words

DAMAGED_LIMIT = 3
"""How often the same chunk may arrive damaged before a broken link is no longer believed."""

CHUNKS_PER_REQUEST = 4096

STRETCH = 64
"""How many chunks of a rotating disk are looked at before those that differ are written: it can't do both without seeking to and fro."""

RESTART = "Restart the laptop before anything else uses the disk"
"""What to do about a kernel that goes by another partition table than the disk has."""

LOOK_PAUSE = 0.2
"""Seconds for which one who has nothing to write waits before it listens to the controller again."""


@dataclass(frozen=True)
class RestoreRequest:
    """What is asked of this laptop. With ``write`` false the disk is only compared; ``host`` is this laptop's name.

    ``unused`` is one of ``engine.goal.UNUSED``; with ``rewrite`` everything is written, whatever the disk holds.
    """

    device: str
    root_digest: bytes
    expect: Mapping[str, Any]
    write: bool
    read_back: bool
    host: str = ""
    unused: str = DISCARD
    rewrite: bool = False


class Diff(TypedDict):
    """What ``--diff`` shows."""

    before: str
    after: str


@dataclass(frozen=True)
class Restored:
    """What came of a restore or a comparison, for a result. Sizes in bytes; ``status`` is a packed ``engine.status.Status``."""

    changed: bool
    disk_state: str
    device: str
    model: str
    serial: str
    wwn: str
    table: str
    disk_size: int
    larger_by: int
    root_digest: str
    used_chunks: int
    used_bytes: int
    equal_chunks: int
    written_chunks: int
    bytes_written: int
    bytes_discarded: int
    differing_chunks: int
    differing_bytes: int
    seen_differences: list[str]
    changes: list[NamedRange]
    more_changes: int
    verified: bool
    past_cache: bool
    write_seconds: float
    compare_seconds: float
    links_made: int
    workers: int
    status: str
    zstd: str
    diff: Diff


class TargetDisk(HeldDisk):
    """A disk held for writing (or for comparing), of which nothing was touched yet."""

    def __init__(self, run: RunCommand, request: RestoreRequest) -> None:
        super().__init__(run, request.device, request.expect, writable=request.write)
        self.run = run
        self._request = request

    def check_fits(self, header: ImageHeader, index: Index) -> None:
        """Raise ImagingError when the image can't be this disk's content, or was taken from this very disk."""
        reasons = list(
            reasons_against(
                image_facts(header, index),
                self.raw.path,
                self.raw.size,
                self.raw.logical_sector_size,
                self.disk.serial,
                self.disk.wwn,
                host=self._request.host,
                erase=self._request.write,
            )
        )
        if reasons:
            raise ImagingError(f"Nothing was written. {' '.join(reasons)}")

    def __enter__(self) -> TargetDisk:
        return self


class RestoreSink:
    """One restore or comparison, over as many links as it takes. Each step is done once; a new link goes on where the last one broke."""

    def __init__(self, disk: TargetDisk, request: RestoreRequest, zstd: Zstd, session: Session) -> None:
        self._disk = disk
        self._request = request
        self._zstd = zstd
        self._session = session
        self._damaged: dict[int, int] = {}
        self._header: ImageHeader | None = None
        self._index: Index
        self._goal: Goal
        self._guards: Guards
        self._scan: Scan
        self._look: Look
        self._engine: Restore
        self._view: ExpectedView
        self._begun = False
        self._touched = False
        self.disk_state = UNTOUCHED
        """One of DISK_STATES: what the disk is now."""
        self._looking: threading.Thread | None = None
        self._stop_looking = threading.Event()
        self._discarding: Discarding | None = None
        self._reporter = Reporter()
        self._phase = STREAMING if request.write else COMPARING
        self._own_count = (0, 0)
        """Bytes that were zeroed or read back, of how many."""
        self._write_seconds: float | None = None
        self._compared = False
        self.differing: list[int] = []
        """Chunks that differ: in a comparison from the goal, after writing from what was written."""
        self.unlike: list[str] = []
        """What a system sees on the disk that is not what it saw on the reference, although no chunk differs."""
        self.stale: list[str] = []
        """Why this laptop's kernel goes on with another partition table than the disk has, and in what."""
        self.watches = Stopwatches()
        self.warnings: list[str] = []

    def converse(self, link: Link) -> None:
        """What this end says on one link; raises LinkError when it broke before everything was done."""
        if self._header is None:
            self.watches.begin()
            self._learn(link)
        self._reporter.again()
        self._begin()
        self._tell_progress(link)
        link = self._make_equal(link) if self._request.write else self._compare(link)
        if self._scan.unreadable:
            self.warnings.append(
                f"{self._scan.unreadable} chunks of {self._disk.raw.path} could not be read when they were looked at, and count as different. "
                "The disk is probably failing: look at the kernel's log (dmesg) and at smartctl -a."
            )
        try:
            finish(link)
        except LinkError:
            pass  # all is done here; whether the controller heard of it, it finds out by Ansible's own connection

    def close(self) -> None:
        """End what goes on beside; before the disk is let go of."""
        self._stop_looking.set()
        if self._looking is not None:
            self._looking.join()
        if self._discarding is not None:
            self._discarding.finish(0.0)

    def _learn(self, link: Link) -> None:
        packed_header = ask_header(link)
        header = ImageHeader.unpack(packed_header)
        packed_index = receive_index(link, largest_index(header.geometry))
        index = Index.unpack(packed_index, packed_header, header.geometry)
        found = index.root_digest()
        if found != self._request.root_digest:
            raise ImagingError(
                f"The index that arrived has the root digest {found.hex()} and the image that was asked for has "
                f"{self._request.root_digest.hex()}. Nothing was written."
            )
        self._disk.check_fits(header, index)
        raw = self._disk.raw
        self._view = ExpectedView(header, raw.size)
        try:
            own = own_chunks(header, index, raw.size, Fetched(link, header, index, self._zstd).read)
        except DamagedFrame as error:
            link.close()
            self._count_damaged(error)
        self._index = index
        self._goal = Goal(index, raw.size, self._request.unused, own)
        self._guards = Guards(raw, self._goal.geometry)
        self._scan = Scan(raw, self._goal, self.watches)
        self._look = Look(self._scan, self._goal, self._guards.chunks(), self._disk.disk.rotational)
        self._engine = Restore(raw, self._goal, index, self._guards, self._zstd, self.watches)
        self._header = header

    def _begin(self) -> None:
        """Look at the guards, while nothing was touched yet."""
        if self._begun:
            return
        self._disk.raw.flush()  # the page cache must not answer for the medium
        if self._request.rewrite and self._request.write:
            self._look.give_up()
        else:
            self._look.begin(whole=not self._request.write)
        for chunk in self._guards.chunks():
            if self._look.states[chunk] == EQUAL:
                self._guards.keep(chunk)
        self._begun = True

    def _compare(self, link: Link) -> Link:
        """Look at everything and write nothing; returns the link that is there when that is done."""
        attendance = self._session.attend(link)

        if not self._look.finished:
            self._look.advance(len(self._look.states), lambda: self._attend(attendance))
        self.differing = [row.chunk for row in self._look.rows(WANTED)]
        self._compared = True
        if not self.differing:
            with self._views() as wait:
                self._take_views(wait(lambda: self._attend(attendance)))
        self._compare_with_kernel()
        return attendance.link

    def _make_equal(self, link: Link) -> Link:
        """Write what differs and read it back; returns the link that is there when that is done."""
        if self._write_seconds is None:
            for chunk in self._damaged:
                damaged(link, chunk)
            self._look.ask_again()
            if self._disk.disk.rotational:
                self._fetch(link)
                while not self._look.finished:
                    self._look.advance(STRETCH, lambda: self._hear(link))
                    self._fetch(link)
            else:
                self._look_beside()
                self._fetch(link)
        attendance = self._session.attend(link)
        if self._write_seconds is None:
            self._complete(attendance)
        with self._views() as wait:  # beside the read-back: each waits for the disk most of the time
            if self._touched and self._request.read_back and not self._compared:
                self._read_back(attendance)
            if not self.differing:
                self._take_views(wait(lambda: self._attend(attendance)))
        self._conclude()
        return attendance.link

    def _attend(self, attendance: Attendance) -> None:
        """Listen to the controller and tell it of the progress, during work without conversation."""
        attendance.check()
        self._tell_progress(attendance.link)

    def _enter(self, phase: str, attendance: Attendance) -> None:
        """Begin another phase, and tell the controller so."""
        self._phase = phase
        self._reporter.again()
        self._attend(attendance)

    def _look_beside(self) -> None:
        """Look in a thread of its own, which goes on whatever becomes of the link."""
        if self._looking is not None:
            return

        def attend() -> None:
            if self._stop_looking.is_set():
                raise ImagingError("The transfer has ended.")

        def look() -> None:
            try:
                if not self._look.finished:
                    self._look.advance(len(self._look.states), attend)
            except BaseException as error:  # for the thread that writes, which raises it
                self._look.fail(error)

        self._looking = threading.Thread(target=look, name="look", daemon=True)
        self._looking.start()

    def _hear(self, link: Link) -> None:
        """Listen to the controller while nothing but its END is expected; raises LinkError, PeerEnded."""
        message = link.poll()
        if message is not None:
            raise_end(message)
        self._tell_progress(link)

    def _tell_progress(self, link: Link) -> None:
        if not link.closed and self._reporter.due():
            try:
                tell_progress(link, self._status().pack())
            except LinkError:
                pass  # whoever needs the link finds out

    def _status(self) -> Status:
        look = self._look
        done, total = look.done, look.total
        if self._phase == COMPARING:
            done = look.looked
        elif self._phase in (ZEROING, VERIFYING):
            done, total = self._own_count
        return Status(
            phase=self._phase,
            done=done,
            total=total,
            data_done=look.data_done,
            data_total=look.data_total,
            seconds=self.watches.seconds(),
            stages=self.watches.stages(),
            workers=self._engine.workers,
            processors=processors(),
            cpu=time.process_time(),
            scanned=self._scan.bytes_read,
            written=self._engine.bytes_written,
        )

    def _fetch(self, link: Link) -> None:
        """Have everything written that is wanted and, unless the disk rotates, that will be until the look has ended."""
        geometry, stream = self._index.geometry, self._header.stream if self._header else b""
        requests = 0

        def unpack(payload: bytes) -> RecordHeader:
            return RecordHeader.unpack(payload, geometry, stream)

        def receive(room: memoryview) -> RecordHeader | None:
            nonlocal requests
            while True:
                last = self._look.finished or self._looking is None
                if requests < MOST_WANTS:
                    requests += self._ask(link)
                if requests:
                    self._tell_progress(link)
                    header = receive_record(link, unpack, room)
                    if header is not None:
                        self._check_asked(header.chunk)
                        return header
                    requests -= 1
                elif last:
                    return None
                else:
                    self._look.wait(LOOK_PAUSE)
                    self._hear(link)

        try:
            self._engine.write(receive, link.close, self._look.written)
        except DamagedFrame as error:
            link.close()
            self._count_damaged(error)
        row = next(self._look.rows(REQUESTED), None)
        if row is not None:
            raise ImagingError(f"The controller did not send chunk {row.chunk}, which the image has. Run again.")

    def _check_asked(self, chunk: int) -> None:
        """Raise ImagingError for a record that nobody asked for: what it would overwrite is right, or beyond the end of this disk."""
        if chunk >= len(self._look.states) or self._look.states[chunk] not in (REQUESTED, WRITTEN):
            raise ImagingError(f"The controller sent chunk {chunk}, which this laptop did not ask for. Run again.")

    def _count_damaged(self, error: DamagedFrame) -> NoReturn:
        times = self._damaged[error.chunk] = self._damaged.get(error.chunk, 0) + 1
        if times >= DAMAGED_LIMIT:
            state = "The disk is not restored and does not boot" if self._touched else "Nothing was written"
            raise ImagingError(
                f"The frame of chunk {error.chunk} arrived damaged {times} times: something between the image and this laptop changes data "
                f"(network hardware, memory, or somebody in between). {state}; run again when that is mended."
            ) from error
        raise LinkError(str(error)) from error

    def _ask(self, link: Link) -> int:
        """Ask for what is known to be wanted; returns how many requests that took."""
        chunks = self._look.take(CHUNKS_PER_REQUEST)
        if not chunks:
            return 0
        self._touch()
        want(link, merge((chunk, chunk + 1) for chunk in chunks))
        return 1

    def _touch(self) -> None:
        """From now on the disk is changed."""
        if self._touched:
            return
        self._touched = True
        self.disk_state = INCOMPLETE
        self._guards.lower()
        if self._request.unused == DISCARD:
            self._discarding = Discarding(self._disk.raw, self._goal)

    def _complete(self, attendance: Attendance) -> None:
        """Write what needs no sending, and bring everything to the medium, the guards last."""

        done, total = 0, self._bytes_of(self._look.rows(KNOWN))

        def written(chunk: int) -> None:
            nonlocal done
            self._look.written(chunk)
            done += self._bytes_of([self._goal.row(chunk)])
            self._own_count = done, total
            self._attend(attendance)

        if self._look.count(KNOWN):
            self._own_count = 0, total
            self._enter(ZEROING, attendance)
            self._touch()
        self._engine.write_known(self._look.rows(KNOWN), written)
        if self._discarding is not None:
            self._discarding.finish()
        self._enter(FLUSHING, attendance)
        flushing = self.watches.new()
        if self._touched:
            self.disk_state = UNKNOWN
            self._guards.raise_again()
            self.disk_state = UNVERIFIED
            for chunk in self._guards.chunks():
                if self._look.states[chunk] == EQUAL:
                    self._look.written(chunk)
        flushing.busy("flush")
        self._write_seconds = self.watches.seconds()

    def _read_back(self, attendance: Attendance) -> None:
        """Compare what was written; what was not has been compared before."""
        self.differing = []
        done, total = 0, self._bytes_of(self._look.rows(WRITTEN))
        self._own_count = done, total
        self._enter(VERIFYING, attendance)
        with contextlib.closing(self._scan.compare(self._look.rows(WRITTEN))) as results:
            for row, equal in results:
                if not equal:
                    self.differing.append(row.chunk)
                done += self._goal.bytes_in(row)
                self._own_count = done, total
                self._attend(attendance)
        self._compared = True

    @property
    def differs(self) -> bool:
        """Whether the disk, as far as it was compared last, is not what it should be."""
        return bool(self.differing or self.unlike)

    def _views(self) -> ContextManager[Callable[[Callable[[], None]], Comparison]]:
        """Compare what a system sees on a disk that holds its goal, the guards too."""
        self._disk.raw.flush()  # the page cache must not answer for the medium
        return comparing(self._view, self._disk.run, self._disk.raw.path)

    def _take_views(self, found: Comparison) -> None:
        self.unlike = found.differences
        if found.doubts:
            self._warn(
                f"Whether a system sees the same on {self._disk.raw.path} as on the reference can't be said: {in_words(found.doubts)}."
            )

    def _compare_with_kernel(self) -> None:
        """Warn when the kernel goes by another partition table than a disk has that is what it should be: that is no fault of the disk."""
        if self.differs:
            return
        try:
            wrong = compare_with_kernel(self._disk.run, self._disk.raw.path)
        except ImagingError as error:
            self._warn(str(error))
            return
        if wrong:
            self._warn(
                f"The kernel of this laptop goes by another partition table than {self._disk.raw.path} has: {in_words(wrong)}. {RESTART}."
            )

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _conclude(self) -> None:
        """Let the kernel see what was written, or, if that is not what it should be, see to it that nobody boots it."""
        if self.differs:
            self.disk_state = UNKNOWN
            self._guards.lower()
            self.disk_state = INCOMPLETE
            return
        if self._touched and self._compared:
            self.disk_state = VERIFIED
        view = have_table_read(self._disk.run, self._disk.raw, self._touched)
        self.stale = view.stale
        if view.warning:
            self._warn(view.warning)

    def result(self) -> Restored:
        """What came of it, once the conversation is over."""
        if self._header is None or (self._request.write and self._write_seconds is None):
            raise ImagingError("The controller ended the transfer before it was done.")
        look, seconds = self._look, self.watches.seconds()
        writing = self._write_seconds if self._touched and self._write_seconds else 0.0
        places = list(self._changes())
        changes = name_ranges(places[:MOST_RANGES], self._header.source.get("partitions") or ())
        more_changes = len(places) - len(changes)
        verified = not self.differs and (self._compared or not self._touched)
        return Restored(
            changed=self._touched or self.differs,
            disk_state=VERIFIED if verified else self.disk_state,
            device=self._disk.raw.path,
            **self._disk.identity(),
            table=self._disk.table_id(),
            disk_size=self._disk.raw.size,
            larger_by=self._disk.raw.size - self._index.geometry.disk_size,
            root_digest=self._request.root_digest.hex(),
            used_chunks=len(self._goal),
            used_bytes=self._index.used_bytes(),
            equal_chunks=look.count(EQUAL),
            written_chunks=look.count(WRITTEN),
            bytes_written=self._engine.bytes_written,
            bytes_discarded=self._discarding.bytes_discarded if self._discarding else 0,
            differing_chunks=len(self.differing),
            differing_bytes=self._bytes_of(map(self._goal.row, self.differing)),
            seen_differences=self.unlike,
            changes=changes,
            more_changes=more_changes,
            verified=verified,
            past_cache=self._disk.raw.past_cache,
            write_seconds=round(writing, 3),
            compare_seconds=round(seconds - writing, 3) if self._compared or not self._touched else 0.0,
            links_made=self._session.links_made,
            workers=self._engine.workers,
            status=self._status().pack().decode(),
            zstd=self._zstd.name,
            diff=self._diff(changes, more_changes),
        )

    def _changes(self) -> Iterator[tuple[int, int]]:
        """The byte ranges of the disk that were written or, in a comparison, would be."""
        geometry = self._goal.geometry
        rows = self._look.rows(WRITTEN if self._request.write else WANTED)
        yield from merge(
            (geometry.offset(row.chunk), geometry.offset(row.chunk) + geometry.length(row.chunk)) for row in rows
        )

    def _bytes_of(self, rows: Iterable[Row | None]) -> int:
        return sum(self._goal.bytes_in(row) for row in rows if row is not None)

    def _diff(self, changes: list[NamedRange], more: int) -> Diff:
        chunks = [row.chunk for row in self._look.rows(WRITTEN)] if self._request.write else self.differing
        size = self._bytes_of(map(self._goal.row, chunks))
        lines = [f"{len(chunks)} of {len(self._goal)} chunks ({size} used bytes) differ"]
        lines += [describe_range(place) for place in changes]
        lines += [f"and {more} more ranges"] if more else []
        lines += self.unlike
        return Diff(before="\n".join(lines) + "\n", after=f"0 of {len(self._goal)} chunks (0 used bytes) differ\n")
