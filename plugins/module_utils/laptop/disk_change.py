# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a disk, from the first byte that is written to the moment when it may boot again."""

from __future__ import annotations

from ..disk.raw_io import RawDisk
from ..disk_state import INCOMPLETE, UNKNOWN, UNTOUCHED, UNVERIFIED, VERIFIED
from ..engine.goal import Goal
from ..engine.guards import Guards
from ..engine.unused import LONGEST_WAIT, Discarding


class DiskChange:
    """Keeps the disk from booting while it is neither what it was nor what it is to be. ``state`` is one of DISK_STATES."""

    def __init__(self, raw: RawDisk, goal: Goal, guards: Guards, discard: bool) -> None:
        """With ``discard``, unused space is given back to the disk once anything is changed."""
        self._raw = raw
        self._goal = goal
        self._guards = guards
        self._discard = discard
        self._discarding: Discarding | None = None
        self.state = UNTOUCHED

    @property
    def begun(self) -> bool:
        """Whether anything was changed."""
        return self.state != UNTOUCHED

    def begin(self) -> None:
        """To be called before anything is written; the disk does not boot from then on."""
        if self.begun:
            return
        self.state = INCOMPLETE
        self._guards.lower()
        if self._discard:
            self._discarding = Discarding(self._raw, self._goal)

    def finish_discarding(self, seconds: float = LONGEST_WAIT) -> None:
        """Wait until the unused space was given back, for so many seconds at the most."""
        if self._discarding is not None:
            self._discarding.finish(seconds)

    @property
    def bytes_discarded(self) -> int:
        """Bytes that were given back to the disk."""
        return self._discarding.bytes_discarded if self._discarding else 0

    def make_bootable(self) -> None:
        """Flush what was written, and write what makes the disk boot last; raises DiskError."""
        self.state = UNKNOWN
        self._guards.raise_again()
        self.state = UNVERIFIED

    def make_unbootable(self) -> None:
        """See to it that nobody boots a disk that is not what it should be; raises DiskError."""
        self.state = UNKNOWN
        self._guards.lower()
        self.state = INCOMPLETE

    def verified(self) -> None:
        """Note that what was written was read back."""
        self.state = VERIFIED
