# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the phases of one restore or comparison share: the disk, the changing links to the controller, and the outcome so far."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Callable, Iterable

from ..disk_state import UNTOUCHED
from ..engine.pipeline import processors
from ..engine.status import COMPARING, STREAMING, VERIFYING, ZEROING, Reporter, Status
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.hashes import Hashes
from ..image.header import ImageHeader
from ..image.index import Index, Row
from ..sources.base import ChunkSource, Pace
from ..stream.conversation import ask_hashes, send_progress
from ..stream.link import Kind, Link, LinkError
from ..timeouts import Timeouts
from ..zstd import Zstd
from .relay import Relay
from .restore_plan import RestorePlan
from .session import LinkMonitor, Session
from .shown import show_status
from .target_disk import RestoreRequest, TargetDisk

HASHES_PAUSE = 0.05
"""Seconds after which who needs hashes of the image looks again whether they have arrived."""


@dataclass
class Outcome:
    """The outcome so far."""

    write_seconds: float | None = None
    """Seconds until everything was written and flushed; None before."""
    compared: bool = False
    """Whether the comparison for ``differing`` is complete."""
    differing: list[int] = field(default_factory=list)
    """Chunks that differ from the goal: all chunks in a comparison, the written chunks after a restore."""
    unlike: list[str] = field(default_factory=list)
    """Differences between what a system sees on the disk and on the reference, although no chunk differs."""
    stale: list[str] = field(default_factory=list)
    """Differences between the partition table that this laptop's kernel uses and that of the disk."""
    warnings: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether the latest comparison found a difference."""
        return bool(self.differing or self.unlike)

    def warn(self, warning: str) -> None:
        """Add a warning, once."""
        if warning not in self.warnings:
            self.warnings.append(warning)


class RestoreJob:
    """One restore or comparison. It listens to the controller, and reports its progress."""

    def __init__(self, disk: TargetDisk, request: RestoreRequest, zstd: Zstd, session: Session) -> None:
        self.disk = disk
        self.request = request
        self.zstd = zstd
        self.watches = Stopwatches()
        self.outcome = Outcome()
        self.plan: RestorePlan | None = None
        """The plan, once the image was described."""
        self.relay: Relay | None = None
        """The part in a relay, if laptops pass the image on, once it was described."""
        self.pace = Pace()
        """How fast records arrive from the controller."""
        self.hashes: Hashes
        """The hashes of the image, once it was described."""
        self._asked: Link | None = None
        """The link over which they were requested."""
        self._session = session
        self._monitor: LinkMonitor
        self._reporter = Reporter()
        self._doing = STREAMING if request.write else COMPARING
        self._done = self._total = 0

    def join_relay(self, header: ImageHeader) -> list[ChunkSource]:
        """Take part in a relay, if laptops pass the image on; returns the other laptops as sources."""
        if not self.request.relay:
            return []
        self.relay = self.relay or Relay(self._session, header, self.outcome.warn)
        return [self.relay.source]

    @property
    def links_made(self) -> int:
        """How many links to the controller were made."""
        return self._session.links_made

    @property
    def timeouts(self) -> Timeouts:
        """How long is waited for others."""
        return self._session.timeouts

    def use(self, link: Link) -> None:
        """Continue over a new link."""
        self._monitor = self._session.monitor(link)
        self._reporter.again()

    @property
    def link(self) -> Link:
        """The newest link."""
        return self._monitor.link

    def follow(self, index: Index) -> None:
        """Take the hashes of the image, which may all be there; raises ImagingError as :meth:`_agree`."""
        self.hashes = Hashes(index)
        if index.missing:
            self._session.handlers[Kind.HASHES] = self.hashes.unpack
            self._session.handlers[Kind.ROOT] = self._agree
        else:
            self._agree(index.root_digest())

    def _agree(self, root: bytes) -> None:
        """Take the root digest that the controller says; raises ImagingError unless the hashes have it, and it is that of the request."""
        self.hashes.agree(root)
        wanted = self.request.root_digest
        if root != wanted and (wanted or not self.request.shared):
            raise ImagingError(
                f"The index that arrived has the root digest {root.hex()} and the image that was asked for has {wanted.hex()}. {self.consequence()}."
            )

    def poll(self) -> None:
        """Check whether the controller has ended the transfer, take hashes of the image, and report the progress. Broken links are replaced.

        Must be called regularly while nothing is requested from the controller. Raises PeerEnded, ControllerGone, ImagingError.
        """
        self._monitor.check()
        if not self.hashes.root and self.link is not self._asked:
            self._asked = self.link
            with contextlib.suppress(LinkError):  # they are requested again over the next link
                ask_hashes(self.link, len(self.hashes))
        self.report_progress()

    def wait_until(self, ready: Callable[[], object]) -> None:
        """Wait for something that comes from the controller."""
        while not ready():
            self.poll()
            time.sleep(HASHES_PAUSE)

    def report_progress(self) -> None:
        """Send a progress report to the controller, if one is due."""
        if self.plan is not None and not self.link.closed and self._reporter.due():
            status = self.status(self.plan)
            show_status("restoring" if self.request.write else "comparing", self.request.device, status)
            try:
                send_progress(self.link, status.pack())
            except LinkError:
                pass  # the next user of the link finds out

    def enter(self, doing: str, total: int = 0) -> None:
        """Enter a phase (one of ``engine.status.PHASES``) with so many bytes to do, and report it to the controller."""
        self._doing, self._done, self._total = doing, 0, total
        self._reporter.again()
        self.poll()

    def advance(self, size: int) -> None:
        """Add to the bytes that are done in this phase."""
        self._done += size
        self.poll()

    def status(self, plan: RestorePlan) -> Status:
        """Return the current progress."""
        delta = plan.delta
        done, total = delta.done, delta.total
        if self._doing == COMPARING:
            done = delta.compared
        elif self._doing in (ZEROING, VERIFYING):
            done, total = self._done, self._total
        peers = self.relay.source.pace if self.relay is not None else None
        return Status(
            phase=self._doing,
            done=done,
            total=total,
            data_done=delta.data_done,
            data_total=delta.data_total,
            seconds=self.watches.seconds(),
            stages=self.watches.stages(),
            workers=plan.engine.workers,
            processors=processors(),
            cpu=time.process_time(),
            scanned=plan.scan.bytes_read,
            written=plan.engine.bytes_written,
            pace=(peers or self.pace).rate,
        )

    @property
    def disk_state(self) -> str:
        """One of DISK_STATES: what the disk is now."""
        return self.plan.change.state if self.plan else UNTOUCHED

    def consequence(self) -> str:
        """Return the state of the disk if the transfer ended now, as the beginning of a sentence."""
        begun = self.plan is not None and self.plan.change.begun
        return "The disk is not restored and does not boot" if begun else "Nothing was written"


def bytes_of(plan: RestorePlan, rows: Iterable[Row | None]) -> int:
    """Return how many bytes of these chunks have desired content."""
    return sum(plan.goal.bytes_in(row) for row in rows if row is not None)
