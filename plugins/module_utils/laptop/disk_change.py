# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tracks the change of a disk from the first written byte to the moment when it may boot again."""

from __future__ import annotations

from ..disk.raw_io import RawDisk
from ..disk_state import INCOMPLETE, UNKNOWN, UNTOUCHED, UNVERIFIED, VERIFIED
from ..engine.goal import Goal
from ..engine.guards import Guards
from ..engine.trim import MAX_WAIT, Trimmer


class DiskChange:
    """Keeps the disk from booting while its content is incomplete. ``state`` is one of DISK_STATES."""

    def __init__(self, raw: RawDisk, goal: Goal, guards: Guards, discard: bool) -> None:
        """With ``discard``, the unused space is discarded when the first change begins."""
        self._raw = raw
        self._goal = goal
        self._guards = guards
        self._discard = discard
        self._trimmer: Trimmer | None = None
        self.state = UNTOUCHED

    @property
    def begun(self) -> bool:
        """Whether anything was changed."""
        return self.state != UNTOUCHED

    def begin(self) -> None:
        """Make the disk unbootable. Must be called before anything is written."""
        if self.begun:
            return
        self.state = INCOMPLETE
        self._guards.blank()
        if self._discard:
            self._trimmer = Trimmer(self._raw, self._goal)

    def finish_trim(self, seconds: float = MAX_WAIT) -> None:
        """Wait until the unused space was discarded, for at most so many seconds."""
        if self._trimmer is not None:
            self._trimmer.finish(seconds)

    @property
    def bytes_discarded(self) -> int:
        """Bytes that were discarded."""
        return self._trimmer.bytes_discarded if self._trimmer else 0

    def make_bootable(self) -> None:
        """Flush what was written, then write the guards; raises DiskError."""
        self.state = UNKNOWN
        self._guards.write_back()
        self.state = UNVERIFIED

    def make_unbootable(self) -> None:
        """Overwrite the guards of a disk with wrong content, so that it does not boot; raises DiskError."""
        self.state = UNKNOWN
        self._guards.blank()
        self.state = INCOMPLETE

    def verified(self) -> None:
        """Note that what was written was read back and is equal."""
        self.state = VERIFIED
