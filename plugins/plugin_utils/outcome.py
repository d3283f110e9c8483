# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a laptop in a run: decided here, from its transfers and failures, and shown by the report, the tables and the last lines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..module_utils.disk_state import DISK_STATES, UNKNOWN, UNTOUCHED, UNVERIFIED, VERIFIED
from .times import parse_time

CAPTURE = "capture"
RESTORE = "restore"
COMPARE = "compare"
"""Kinds of transfers. A comparison is a restore in check mode."""

NOT_BEGUN = "not_begun"
INTERRUPTED = "interrupted"
FAILED = "failed"
CAPTURED = "captured"
UNCHANGED = "unchanged"
CAPTURABLE = "capturable"
RESTORED = "restored"
NOT_VERIFIED = "not_verified"
EQUAL = "equal"
ALREADY_EQUAL = "already_equal"
DIFFERENT = "different"
RESTORABLE = "restorable"
"""Codes of outcomes. ALREADY_EQUAL: a restore had nothing to do; EQUAL, DIFFERENT: of a comparison; RESTORABLE: check mode found differences."""


def transfer_kind(action: str, check_mode: Any) -> str | None:
    """Return the kind of transfer of a module or action plugin, by its full name; None if it transfers nothing."""
    if action == "fleet.imaging.image_restore":
        return COMPARE if check_mode else RESTORE
    return CAPTURE if action == "fleet.imaging.image_capture" else None


@dataclass(frozen=True)
class Outcome:
    """What became of a laptop, and whether a later step failed."""

    code: str
    then_failed: bool = False


@dataclass(frozen=True)
class Failure:
    """A task that failed on a laptop, or did not reach it."""

    task: str
    message: str
    unreachable: bool = False


@dataclass
class Transfer:
    """One image_capture or image_restore on a laptop; without a result until it has ended."""

    began: datetime
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    failed: bool = False

    def value(self, name: str) -> Any:
        """Return a field of the result or, if it is missing, the argument of that name."""
        if self.result is not None and self.result.get(name) is not None:
            return self.result[name]
        return self.arguments.get(name)

    @property
    def started(self) -> datetime:
        """When the transfer itself began, according to its result; otherwise when the task began."""
        return parse_time((self.result or {}).get("started")) or self.began

    @property
    def has_kept(self) -> bool:
        """Whether a part of the image is stored, or may be stored because the transfer did not end."""
        kept = (self.result or {}).get("kept_bytes")
        return self.result is None or (isinstance(kept, int) and kept > 0)


@dataclass
class Laptop:
    """What is known of a host of the play."""

    name: str
    transfers: list[Transfer] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    disks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What disk_info returned about its disks, by their paths."""

    @property
    def transfer(self) -> Transfer | None:
        """The transfer that matters: the last capture or restore or, if there was none, the last comparison."""
        writing = [transfer for transfer in self.transfers if transfer.kind != COMPARE]
        chosen = writing or self.transfers
        return chosen[-1] if chosen else None

    @property
    def verified(self) -> bool:
        """Whether the last transfer read the disk from the medium and found it equal to the image."""
        last = self.transfers[-1] if self.transfers else None
        return bool(last and not last.failed and last.result and last.result.get("verified") is True)

    @property
    def unreachable(self) -> bool:
        """Whether Ansible did not reach it for a task."""
        return any(failure.unreachable for failure in self.failures)

    def fact(self, name: str) -> Any:
        """Return the model, serial or wwn of the disk, from the first source that has it."""
        transfer = self.transfer
        if transfer is None:
            return None
        expect = transfer.arguments.get("expect")
        known: list[Any] = [transfer.result, expect, self.disks.get(str(transfer.value("device")))]
        return next((source[name] for source in known if isinstance(source, Mapping) and source.get(name)), None)

    def outcome(self, check_mode: bool) -> Outcome:
        """Decide what became of it."""
        transfer = self.transfer
        if transfer is None:
            return Outcome(FAILED if self.failures else NOT_BEGUN)
        if transfer.failed or transfer.result is None:
            return Outcome(FAILED if self.failures or transfer.failed else INTERRUPTED)
        code = self._ended(transfer.kind, transfer.result.get("changed") is True, check_mode)
        if not self.failures:
            return Outcome(code)
        # The task that found a difference fails, so this failure says nothing more.
        failed = {NOT_VERIFIED: FAILED, DIFFERENT: DIFFERENT, RESTORABLE: DIFFERENT}
        return Outcome(failed[code]) if code in failed else Outcome(code, then_failed=True)

    def _ended(self, kind: str, changed: bool, check_mode: bool) -> str:
        """Return the outcome of a transfer that did not fail."""
        if kind == CAPTURE:
            return CAPTURABLE if check_mode else CAPTURED if changed else UNCHANGED
        if kind == RESTORE:
            return NOT_VERIFIED if not self.verified else RESTORED if changed else ALREADY_EQUAL
        if self.verified:
            return ALREADY_EQUAL if check_mode else EQUAL
        return RESTORABLE if check_mode else DIFFERENT

    @property
    def disk_state(self) -> str:
        """The state of its disk, one of DISK_STATES."""
        transfer = self.transfer
        if transfer is None or transfer.kind == COMPARE:
            return UNTOUCHED
        # Ansible's own connection matters only until the link is made, before which nothing is written.
        result = transfer.result or {}
        state = result.get("disk_state", UNTOUCHED if result.get("unreachable") else UNKNOWN)
        if state == VERIFIED and (self.transfers[-1].result or {}).get("verified") is False:
            return UNVERIFIED
        return str(state) if state in DISK_STATES else UNKNOWN
