# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a restore and of a comparison, in order.

Each phase is an object. Its fields are all the state that it may use, and its ``run`` returns the next phase.

    Describe -> Prepare -> Survey -> Write -> Complete -> ReadBack [-> PassOn]    restore, in a relay
                                  -> Compare                                      comparison (check mode)

Describe, Prepare and Write request data from the controller. When the link breaks, they raise LinkError and run again over the next link. The
other phases only listen to the controller, over as many links as it makes. All phases raise PeerEnded, ControllerGone, DiskError and
ImagingError, which end the job.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Callable, ContextManager

from ..disk.kernel_partitions import compare_with_kernel, reread_table
from ..engine.delta_scan import EQUAL, KNOWN, REQUESTED, WANTED, WRITTEN
from ..engine.resize import patched_chunks
from ..engine.restore import ignore
from ..engine.status import FLUSHING, VERIFYING, ZEROING
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.index import Index, max_index_size
from ..image.record import RecordHeader
from ..sources.content import ImageContent
from ..sources.http_file import HttpFile, Patience
from ..sources.http_image import STORE, HttpImage
from ..sources.link import LinkSource
from ..sources.router import Router
from ..stream.conversation import MAX_WANTS, ask_header, receive_index
from .relay import Relay
from .restore_job import HASHES_PAUSE, RestoreJob, bytes_of
from .restore_plan import DescribedImage, RestorePlan, make_plan
from .view import Comparison, ExpectedView, comparing, summarize

CHUNKS_PER_REQUEST = 4096

REVOCABLE_REQUESTS = 2
"""How many chunks a laptop requests from the controller at a time, one in each request, while another laptop may be named to take chunks from.
What was requested is sent in any case. Two chunks of 4 MiB fill a gigabit a second for 60 milliseconds."""

CHUNKS_PER_TURN = 64
"""How many chunks of a rotating disk are compared before the different ones are written: doing both at once would cost seeks."""

RESTART = "Restart the laptop before anything else uses the disk"
"""The advice when the kernel uses another partition table than the disk has."""

IDLE_PAUSE = 0.2
"""Seconds to wait for chunks to write before the controller is polled again."""


class Phase(ABC):
    """One phase of a job."""

    @abstractmethod
    def run(self, job: RestoreJob) -> Phase | None:
        """Run the phase; returns the next phase, None after the last one."""

    def close(self) -> None:  # noqa: B027  # most phases leave nothing running
        """End background work before the disk is closed."""


@dataclass
class Describe(Phase):
    """Receive the description of the image, and check that it is the requested one and fits the disk."""

    def run(self, job: RestoreJob) -> Prepare:
        job.watches.begin()
        packed_header = ask_header(job.link)
        header = ImageHeader.unpack(packed_header)
        packed_index = receive_index(job.link, max_index_size(header.geometry))
        index = Index.unpack(packed_index, packed_header, header.geometry, hashed=not job.request.shared)
        job.follow(index)
        job.disk.check_fits(header, index)
        requests = REVOCABLE_REQUESTS if job.request.relay else MAX_WANTS
        controller = LinkSource(lambda: job.link, header, job.consequence, requests, job.pace)
        preferred = job.join_relay(header)
        for name, location in job.request.servers.items():
            # A mirror is to save time.
            patience = Patience(job.timeouts.http_busy, job.outcome.warn) if name == STORE else None
            file = HttpFile(location, job.timeouts.http_silence, patience=patience)
            preferred.append(HttpImage(name, file, index, job.outcome.warn, job.pace))
        router = Router(preferred, controller, header.geometry.chunk_count, job.outcome.warn)
        return Prepare(DescribedImage(header, index, router))


@dataclass
class Prepare(Phase):
    """Make the plan. On a disk of another size this needs some of the image's content."""

    image: DescribedImage

    def run(self, job: RestoreJob) -> Survey:
        image, size = self.image, job.disk.raw.size
        view = ExpectedView(image.header, size)
        if size != image.header.geometry.disk_size:
            job.wait_until(lambda: job.hashes.root)
        image.router.restart()
        content = ImageContent(image.router, image.header, image.index, job.zstd)
        patched = patched_chunks(image.header, image.index, size, content.read)
        plan = make_plan(image, patched, view, job.disk, job.request, job.zstd, job.watches)
        job.plan = plan
        return Survey(plan)


@dataclass
class Survey(Phase):
    """Compare the chunks that hold the guards, before anything is changed."""

    plan: RestorePlan

    def run(self, job: RestoreJob) -> Write | Compare:
        plan = self.plan
        job.disk.raw.flush()  # the page cache must not answer for the medium
        if job.request.rewrite and job.request.write:
            plan.delta.give_up()
        else:
            job.wait_until(lambda: all(row is None or row.hashed for row in map(plan.goal.row, plan.guards.chunks())))
            plan.delta.begin(whole=not job.request.write)
        for chunk in plan.guards.chunks():
            if plan.delta.states[chunk] == EQUAL:
                plan.guards.keep(chunk)
        return Write(plan) if job.request.write else Compare(plan)


@dataclass
class Compare(Phase):
    """Compare everything and write nothing."""

    plan: RestorePlan

    def run(self, job: RestoreJob) -> None:
        delta = self.plan.delta
        job.poll()
        while not delta.finished:
            delta.advance(len(delta.states), job.poll)
            _pause(job)
        job.wait_until(lambda: job.hashes.root)
        job.outcome.differing = [row.chunk for row in delta.rows(WANTED)]
        job.outcome.compared = True
        if not job.outcome.differing:
            with _views(job, self.plan) as wait:
                _take_views(job, wait(job.poll))
        self._compare_with_kernel(job)
        _warn_of_unreadable(job, self.plan)

    @staticmethod
    def _compare_with_kernel(job: RestoreJob) -> None:
        """Warn when the kernel uses another partition table than the disk has, which is not a fault of the disk."""
        outcome, path = job.outcome, job.disk.raw.path
        if outcome.differs:
            return
        try:
            wrong = compare_with_kernel(job.disk.run, path)
        except ImagingError as error:
            outcome.warn(str(error))
            return
        if wrong:
            outcome.warn(
                f"The kernel of this laptop uses another partition table than {path} has: {summarize(wrong)}. {RESTART}."
            )


@dataclass
class Write(Phase):
    """Fetch and write different chunks while the scan goes on in the background; a rotating disk is compared and written in turns."""

    plan: RestorePlan
    _scan_thread: threading.Thread | None = None
    _stop_scan: threading.Event = field(default_factory=threading.Event)

    def run(self, job: RestoreJob) -> Complete:
        delta = self.plan.delta
        self.plan.image.router.restart()
        delta.ask_again()
        job.poll()
        if job.relay is not None:
            job.relay.start(self.plan, job.disk, job.zstd)
        if job.disk.disk.rotational:
            self._fetch(job)
            while not delta.finished:
                delta.advance(CHUNKS_PER_TURN, job.poll)
                self._fetch(job)
                _pause(job)
        else:
            self._scan_in_background(job)
            self._fetch(job)
            self.close()
        if job.relay is not None:
            job.relay.source.stop()
        return Complete(self.plan)

    def close(self) -> None:
        self._stop_scan.set()
        if self._scan_thread is not None:
            self._scan_thread.join()

    def _scan_in_background(self, job: RestoreJob) -> None:
        """Scan in a thread of its own, which goes on when the link breaks."""
        delta = self.plan.delta
        if self._scan_thread is not None:
            return

        def poll() -> None:
            if self._stop_scan.is_set():
                raise ImagingError("The transfer has ended.")

        def run() -> None:
            try:
                while not delta.finished:
                    delta.advance(len(delta.states), poll)
                    poll()
                    _pause(job)
            except BaseException as error:  # the writing thread raises it
                delta.fail(error)

        self._scan_thread = threading.Thread(target=run, name="delta-scan", daemon=True)
        self._scan_thread.start()

    def _fetch(self, job: RestoreJob) -> None:
        """Write everything that is wanted now and, while a scan runs in the background, everything that it still finds."""
        delta, router = self.plan.delta, self.plan.image.router

        def receive(buffer: memoryview) -> RecordHeader | None:
            return self._receive(job, buffer)

        checked = job.relay.checked if job.relay is not None else ignore
        while True:
            self.plan.engine.write(
                receive, router.interrupt, delta.written, router.reject, lambda: router.stage, checked
            )
            delta.want_again(router.take_lost())
            if not delta.count(WANTED):
                break
            # The last records could not be used, so other sources have to send them.
        row = next(delta.rows(REQUESTED), None)
        if row is not None:
            raise ImagingError(f"The controller did not send chunk {row.chunk}, which the image has. Run again.")

    def _receive(self, job: RestoreJob, buffer: memoryview) -> RecordHeader | None:
        delta, router = self.plan.delta, self.plan.image.router
        while not router.interrupted:
            last = delta.finished or self._scan_thread is None
            delta.want_again(router.take_lost())
            if router.has_room:
                self._ask(job)
            if router.last_in_flight:
                job.report_progress()
            else:
                job.poll()
            if router.in_flight:
                header = router.receive(buffer)
                if header is not None:
                    self._check_asked(header.chunk)
                    return header
            elif last and not delta.count(WANTED):
                return None
            else:
                delta.wait(IDLE_PAUSE if job.hashes.root else HASHES_PAUSE)
        return None

    def _ask(self, job: RestoreJob) -> None:
        """Request the chunks that are known to differ."""
        revocable = job.relay is not None and job.relay.source.unused
        chunks = self.plan.delta.take(1 if revocable else CHUNKS_PER_REQUEST)
        if chunks:
            self.plan.change.begin()
            self.plan.image.router.request(chunks)

    def _check_asked(self, chunk: int) -> None:
        """Raise ImagingError for a record that was not requested: it would overwrite correct content, or lie beyond the end of this disk."""
        states = self.plan.delta.states
        if chunk >= len(states) or states[chunk] not in (REQUESTED, WRITTEN):
            raise ImagingError(f"The controller sent chunk {chunk}, which this laptop did not ask for. Run again.")


@dataclass
class Complete(Phase):
    """Write the chunks that need no sending, and flush everything to the medium, the guards last."""

    plan: RestorePlan

    def run(self, job: RestoreJob) -> ReadBack:
        plan = self.plan
        job.wait_until(lambda: job.hashes.root)
        job.poll()
        if plan.delta.count(KNOWN):
            job.enter(ZEROING, bytes_of(plan, plan.delta.rows(KNOWN)))
            plan.change.begin()

        def written(chunk: int) -> None:
            plan.delta.written(chunk)
            job.advance(bytes_of(plan, [plan.goal.row(chunk)]))

        plan.engine.write_known(plan.delta.rows(KNOWN), written)
        plan.change.finish_trim()
        job.enter(FLUSHING)
        flushing = job.watches.new()
        if plan.change.begun:
            plan.change.make_bootable()
            for chunk in plan.guards.chunks():
                if plan.delta.states[chunk] == EQUAL:
                    plan.delta.written(chunk)
        flushing.busy("flush")
        job.outcome.write_seconds = job.watches.seconds()
        return ReadBack(plan)


@dataclass
class ReadBack(Phase):
    """Compare what was written (the rest was compared before) and what a system sees, and draw the conclusion."""

    plan: RestorePlan

    def run(self, job: RestoreJob) -> PassOn | None:
        with _views(
            job, self.plan
        ) as wait:  # at the same time as the read-back, because each mostly waits for the disk
            if self.plan.change.begun and job.request.read_back:
                self._compare_written(job)
            if not job.outcome.differing:
                _take_views(job, wait(job.poll))
        self._conclude(job)
        _warn_of_unreadable(job, self.plan)
        return PassOn(job.relay) if job.relay is not None else None

    def _compare_written(self, job: RestoreJob) -> None:
        plan, outcome = self.plan, job.outcome
        job.enter(VERIFYING, bytes_of(plan, plan.delta.rows(WRITTEN)))
        with contextlib.closing(plan.scan.compare(plan.delta.rows(WRITTEN))) as results:
            for row, equal in results:
                if not equal:
                    outcome.differing.append(row.chunk)
                job.advance(plan.goal.bytes_in(row))
        outcome.compared = True

    def _conclude(self, job: RestoreJob) -> None:
        """Let the kernel read the new partition table; or, after a difference, make the disk unbootable."""
        change, outcome = self.plan.change, job.outcome
        if outcome.differs:
            change.make_unbootable()
            return
        if change.begun and outcome.compared:
            change.verified()
        view = reread_table(job.disk.run, job.disk.raw, change.begun)
        outcome.stale = view.stale
        if view.warning:
            outcome.warn(view.warning)


@dataclass
class PassOn(Phase):
    """Pass on what other laptops still take."""

    relay: Relay

    def run(self, job: RestoreJob) -> None:
        self.relay.take_leave(job.poll)


def _pause(job: RestoreJob) -> None:
    """Let hashes arrive, if there are not all."""
    if not job.hashes.root:
        time.sleep(HASHES_PAUSE)


def _views(job: RestoreJob, plan: RestorePlan) -> ContextManager[Callable[[Callable[[], None]], Comparison]]:
    """Compare in the background what a system sees on a disk whose content is complete, including the guards."""
    job.disk.raw.flush()  # the page cache must not answer for the medium
    return comparing(plan.view, job.disk.run, job.disk.raw.path)


def _take_views(job: RestoreJob, found: Comparison) -> None:
    job.outcome.unlike = found.differences
    if found.doubts:
        job.outcome.warn(
            f"Whether a system sees the same on {job.disk.raw.path} as on the reference can't be said: {summarize(found.doubts)}."
        )


def _warn_of_unreadable(job: RestoreJob, plan: RestorePlan) -> None:
    if plan.scan.unreadable:
        job.outcome.warn(
            f"{plan.scan.unreadable} chunks of {job.disk.raw.path} could not be read for the comparison, and count as different. "
            "The disk is probably failing: look at the kernel's log (dmesg) and at smartctl -a."
        )
