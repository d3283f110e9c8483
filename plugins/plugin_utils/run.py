# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of a run of a playbook: its laptops, their transfers and what failed. Callers report events; nothing here depends on Ansible."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from .outcome import Failure, Laptop, Transfer
from .report.rates import samples

CLONE = "clone"

PLAYBOOKS = ("capture", CLONE, "restore", "verify")
"""The playbooks that have a report even if nothing was transferred."""

FACTS = ("model", "serial", "wwn")


class Run:
    """One run of a playbook."""

    def __init__(self, playbook: str, user: str, controller: str, began: datetime) -> None:
        self.playbook = playbook
        self.user = user
        self.controller = controller
        self.began = began
        self.ended: datetime | None = None
        self.interrupted = False
        self.check_mode = False
        self.laptops: dict[str, Laptop] = {}
        self.playing: list[Laptop] = []
        """The laptops of the current play; of a clone, those of all plays so far."""
        self.failures: list[Failure] = []
        """Failures that ended the run for all laptops."""
        self.versions: dict[str, str] = {}

    @property
    def transferred(self) -> bool:
        """Whether a transfer was begun."""
        return any(laptop.transfers for laptop in self.laptops.values())

    @property
    def worth_a_report(self) -> bool:
        """Whether anything was transferred, or a playbook of this collection failed before that."""
        failed = bool(self.failures) or any(laptop.failures for laptop in self.laptops.values())
        return self.transferred or (failed and self.playbook in PLAYBOOKS)

    def laptop(self, name: str) -> Laptop:
        """The laptop of that name."""
        return self.laptops.setdefault(name, Laptop(name=name))

    def expect(self, names: Iterable[str]) -> None:
        """Learn which laptops take part in the play that begins. The plays of a clone are one work, so their laptops are added up."""
        before = [laptop.name for laptop in self.playing] if self.playbook == CLONE else []
        self.playing = [self.laptop(name) for name in dict.fromkeys([*before, *names])]

    def begin(self, name: str, kind: str, when: datetime) -> None:
        """A transfer begins on a laptop."""
        self.laptop(name).transfers.append(Transfer(began=when, kind=kind))

    def skip(self, name: str) -> None:
        """Forget the transfer that has begun: its task was skipped."""
        transfers = self.laptop(name).transfers
        if transfers and transfers[-1].result is None:
            transfers.pop()

    def end(
        self, name: str, kind: str, arguments: dict[str, Any], result: dict[str, Any], failed: bool, when: datetime
    ) -> None:
        """The transfer that had begun has ended."""
        laptop = self.laptop(name)
        if not laptop.transfers or laptop.transfers[-1].result is not None:
            laptop.transfers.append(Transfer(began=when, kind=kind))
        transfer = laptop.transfers[-1]
        # A result may come from a broken laptop, so only valid samples are kept.
        kept = dict(result, timeline=samples(result.get("timeline")))
        transfer.kind, transfer.arguments, transfer.result, transfer.failed = kind, arguments, kept, failed
        warnings = result.get("warnings")
        if isinstance(warnings, list):
            laptop.warnings += [str(warning) for warning in warnings]

    def fail(self, name: str, failure: Failure, for_all: bool = False) -> None:
        """A task failed on a laptop or, if it runs once for all laptops, for all."""
        (self.failures if for_all else self.laptop(name).failures).append(failure)

    def learn_disks(self, name: str, disks: Any) -> None:
        """Remember what disk_info returned about the disks of a laptop."""
        for disk in disks if isinstance(disks, list) else []:
            if isinstance(disk, Mapping) and disk.get("path"):
                self.laptop(name).disks[str(disk["path"])] = {fact: disk.get(fact) for fact in FACTS}

    def forgive(self, names: Iterable[str]) -> None:
        """Forget the failures of these laptops: a rescue section has handled them."""
        for name in names:
            self.laptop(name).failures.clear()

    def close(self, when: datetime, interrupted: bool) -> None:
        """The run is over."""
        self.ended, self.interrupted = when, interrupted


def failure_message(result: Mapping[str, Any]) -> str:
    """Return all messages of a failed result."""
    parts = [_text(result.get("msg"))]
    items = result.get("results")
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable")):
            label = _text(item.get("_ansible_item_label", item.get("item")))
            parts.append(f"{label}: {failure_message(item)}" if label else failure_message(item))
    parts += [_text(result.get(stream)) for stream in ("stderr", "module_stderr", "module_stdout")]
    said: list[str] = []
    for part in filter(None, parts):
        if not any(part in other for other in said):
            said.append(part)
    return "\n".join(said) or "It failed without a message."


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(line) for line in value).strip()
    return "" if value is None else str(value).strip()
