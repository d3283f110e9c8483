# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report keeps of a run: the laptops, what was transferred, and what failed. It is told; it knows nothing of Ansible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .rates import samples

CAPTURE = "capture"
RESTORE = "restore"
COMPARE = "compare"
"""What image_restore does in check mode."""

PLAYBOOKS = ("capture", "restore", "verify")
"""Names of the playbooks that have a report also when nothing came to be transferred."""

FACTS = ("model", "serial", "wwn")


@dataclass(frozen=True)
class Failure:
    """A task that failed on a laptop, or did not reach it."""

    task: str
    message: str
    unreachable: bool = False


@dataclass
class Transfer:
    """One image_capture or image_restore on a laptop; without a result as long as it has not ended."""

    began: datetime
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    failed: bool = False

    def value(self, name: str) -> Any:
        """A field of the result or, where there is none, the argument that the task was given."""
        if self.result is not None and self.result.get(name) is not None:
            return self.result[name]
        return self.arguments.get(name)

    @property
    def started(self) -> datetime:
        """When the transfer itself began: what the result says or, where it does not say it, when the task began."""
        return parse_time((self.result or {}).get("started")) or self.began


@dataclass
class Laptop:
    """What is known of a host of the play."""

    name: str
    transfers: list[Transfer] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    disks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What disk_info has said of its disks, by their paths."""

    @property
    def transfer(self) -> Transfer | None:
        """The transfer that the report is about: the last one that was to write or, where there was none, the last one."""
        writing = [transfer for transfer in self.transfers if transfer.kind != COMPARE]
        chosen = writing or self.transfers
        return chosen[-1] if chosen else None

    @property
    def verified(self) -> bool:
        """Whether the last transfer has ended with the disk read from the medium and equal to the image."""
        last = self.transfers[-1] if self.transfers else None
        return bool(last and not last.failed and last.result and last.result.get("verified") is True)

    def fact(self, name: str) -> Any:
        """Model, serial or wwn of the disk, from whoever knows it."""
        transfer = self.transfer
        if transfer is None:
            return None
        expect = transfer.arguments.get("expect")
        known: list[Any] = [transfer.result, expect, self.disks.get(str(transfer.value("device")))]
        return next((source[name] for source in known if isinstance(source, Mapping) and source.get(name)), None)


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
        self.failures: list[Failure] = []
        """What ended the run for all laptops at once."""
        self.versions: dict[str, str] = {}

    @property
    def worth_a_report(self) -> bool:
        """Whether anything was transferred, or one of our playbooks failed before that."""
        transferred = any(laptop.transfers for laptop in self.laptops.values())
        failed = bool(self.failures) or any(laptop.failures for laptop in self.laptops.values())
        return transferred or (failed and self.playbook in PLAYBOOKS)

    def laptop(self, name: str) -> Laptop:
        """The laptop of that name."""
        return self.laptops.setdefault(name, Laptop(name=name))

    def expect(self, names: Iterable[str]) -> None:
        """Learn which laptops take part."""
        for name in names:
            self.laptop(name)

    def begin(self, name: str, kind: str, when: datetime) -> None:
        """A transfer begins on a laptop."""
        self.laptop(name).transfers.append(Transfer(began=when, kind=kind))

    def skip(self, name: str) -> None:
        """The transfer that had begun was none: its task was skipped."""
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
        # Of a timeline with thousands of samples it is kept what can be shown, as there may be hundreds of laptops.
        kept = dict(result, timeline=samples(result.get("timeline")))
        transfer.kind, transfer.arguments, transfer.result, transfer.failed = kind, arguments, kept, failed
        warnings = result.get("warnings")
        if isinstance(warnings, list):
            laptop.warnings += [str(warning) for warning in warnings]

    def fail(self, name: str, failure: Failure, for_all: bool = False) -> None:
        """A task failed on a laptop, or, where it stands for all of them, for all."""
        (self.failures if for_all else self.laptop(name).failures).append(failure)

    def learn_disks(self, name: str, disks: Any) -> None:
        """Remember what disk_info says of the disks of a laptop."""
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


def parse_time(value: Any) -> datetime | None:
    """A time of RFC 3339, or None for anything else."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def failure_message(result: Mapping[str, Any]) -> str:
    """All that a failed result says to a person."""
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
