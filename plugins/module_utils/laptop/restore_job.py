# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the phases of one restore or comparison share: the disk, the controller that comes and goes, and what came out so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Iterable

from ..disk_state import UNTOUCHED
from ..engine.pipeline import processors
from ..engine.status import COMPARING, STREAMING, VERIFYING, ZEROING, Reporter, Status
from ..engine.stopwatch import Stopwatches
from ..image.index import Row
from ..stream.conversation import tell_progress
from ..stream.link import Link, LinkError
from ..timeouts import Timeouts
from ..zstd import Zstd
from .restore_plan import RestorePlan
from .session import Attendance, Session
from .target_disk import RestoreRequest, TargetDisk


@dataclass
class Outcome:
    """What came out so far."""

    write_seconds: float | None = None
    """When everything was written and flushed; None before."""
    compared: bool = False
    """Whether all was compared that ``differing`` speaks of."""
    differing: list[int] = field(default_factory=list)
    """Chunks that differ: in a comparison from the goal, after writing from what was written."""
    unlike: list[str] = field(default_factory=list)
    """What a system sees on the disk that is not what it saw on the reference, although no chunk differs."""
    stale: list[str] = field(default_factory=list)
    """Why this laptop's kernel goes on with another partition table than the disk has, and in what."""
    warnings: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether the disk, as far as it was compared last, is not what it should be."""
        return bool(self.differing or self.unlike)

    def warn(self, warning: str) -> None:
        """Note what a person should know, once."""
        if warning not in self.warnings:
            self.warnings.append(warning)


class RestoreJob:
    """One restore or comparison. It listens to the controller, and tells it how far things are."""

    def __init__(self, disk: TargetDisk, request: RestoreRequest, zstd: Zstd, session: Session) -> None:
        self.disk = disk
        self.request = request
        self.zstd = zstd
        self.watches = Stopwatches()
        self.outcome = Outcome()
        self.plan: RestorePlan | None = None
        """Once the image was described."""
        self._session = session
        self._attendance: Attendance
        self._reporter = Reporter()
        self._doing = STREAMING if request.write else COMPARING
        self._done = self._total = 0

    @property
    def links_made(self) -> int:
        """How many links to the controller there have been."""
        return self._session.links_made

    @property
    def timeouts(self) -> Timeouts:
        """How long is waited for others."""
        return self._session.timeouts

    def use(self, link: Link) -> None:
        """Go on over a new link."""
        self._attendance = self._session.attend(link)
        self._reporter.again()

    @property
    def link(self) -> Link:
        """The newest link."""
        return self._attendance.link

    def attend(self) -> None:
        """Hear whether the controller has ended the transfer, over as many links as it makes, and tell it how far this is.

        To be called now and then while nothing is asked of the controller. Raises PeerEnded, ControllerGone.
        """
        self._attendance.check()
        self.tell()

    def tell(self) -> None:
        """Tell the controller how far this is, if that is due."""
        if self.plan is not None and not self.link.closed and self._reporter.due():
            try:
                tell_progress(self.link, self.status(self.plan).pack())
            except LinkError:
                pass  # whoever needs the link finds out

    def enter(self, doing: str, total: int = 0) -> None:
        """Begin with something else (one of ``engine.status.PHASES``), which is so many bytes, and tell the controller so."""
        self._doing, self._done, self._total = doing, 0, total
        self._reporter.again()
        self.attend()

    def advance(self, size: int) -> None:
        """Note that so many bytes more are done."""
        self._done += size
        self.attend()

    def status(self, plan: RestorePlan) -> Status:
        """How far this is."""
        look = plan.look
        done, total = look.done, look.total
        if self._doing == COMPARING:
            done = look.looked
        elif self._doing in (ZEROING, VERIFYING):
            done, total = self._done, self._total
        return Status(
            phase=self._doing,
            done=done,
            total=total,
            data_done=look.data_done,
            data_total=look.data_total,
            seconds=self.watches.seconds(),
            stages=self.watches.stages(),
            workers=plan.engine.workers,
            processors=processors(),
            cpu=time.process_time(),
            scanned=plan.scan.bytes_read,
            written=plan.engine.bytes_written,
        )

    @property
    def disk_state(self) -> str:
        """One of DISK_STATES: what the disk is now."""
        return self.plan.change.state if self.plan else UNTOUCHED

    def consequence(self) -> str:
        """What it means for the disk when the transfer ends now."""
        begun = self.plan is not None and self.plan.change.begun
        return "The disk is not restored and does not boot" if begun else "Nothing was written"


def bytes_of(plan: RestorePlan, rows: Iterable[Row | None]) -> int:
    """How many bytes of these chunks matter."""
    return sum(plan.goal.bytes_in(row) for row in rows if row is not None)
