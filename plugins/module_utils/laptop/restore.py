# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptop's half of a restore or a comparison: runs its phases (``laptop.restore_phases``), over as many links as necessary."""

from __future__ import annotations

from ..errors import ImagingError
from ..stream.conversation import finish
from ..stream.link import Link, LinkError
from ..zstd import Zstd
from .restore_job import Outcome, RestoreJob
from .restore_phases import Describe, Phase
from .restore_result import Restored, restore_result
from .session import Session
from .target_disk import RestoreRequest, TargetDisk


class RestoreSink:
    """One restore or comparison. Each phase is completed once; a new link continues the phase in which the last link broke."""

    def __init__(self, disk: TargetDisk, request: RestoreRequest, zstd: Zstd, session: Session) -> None:
        self._job = RestoreJob(disk, request, zstd, session)
        self._phase: Phase | None = Describe()

    def converse(self, link: Link) -> None:
        """Run the remaining phases over a link; raises LinkError when it breaks before the end."""
        self._job.use(link)
        while self._phase is not None:
            self._phase = self._phase.run(self._job)
        try:
            finish(self._job.link)
        except LinkError:
            pass  # everything is done here, and the controller gets the result over Ansible's own connection

    def close(self) -> None:
        """End background work before the disk is closed."""
        if self._phase is not None:
            self._phase.close()
        if self._job.relay is not None:
            self._job.relay.close()
        if self._job.plan is not None:
            self._job.plan.change.finish_trim(0.0)

    @property
    def disk_state(self) -> str:
        """One of DISK_STATES: what the disk is now."""
        return self._job.disk_state

    @property
    def outcome(self) -> Outcome:
        """The outcome so far."""
        return self._job.outcome

    def result(self) -> Restored:
        """Return the result after the conversation."""
        plan = self._job.plan
        if plan is None or self._phase is not None:
            raise ImagingError("The controller ended the transfer before it was done.")
        return restore_result(self._job, plan)
