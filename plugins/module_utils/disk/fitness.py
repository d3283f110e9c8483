# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a disk is fit to be captured: what is on it, and everything that speaks against copying that to other machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Iterator

from ..errors import ImagingError
from .command import MissingTool, RunCommand
from .file_tree import ExtTree, FileTree, NtfsTree
from .filesystems import CHECKS, HIBERNATED, MAPPED, Content, detect, distrust_node
from .partclone import used_blocks
from .partition_node import NoNode, partition_node
from .partition_table import Partition, is_esp, read_partition_table
from .sizes import file_system_size
from .systems import GENERALIZED, NOT_GENERALIZED, SYSPREP, UNKNOWN, System, find_system

ENCRYPTED = ("BitLocker", "crypto_LUKS", "FileVault2")
"""blkid's names of what holds a file system that only a key opens."""

TREES: dict[str, Callable[[RunCommand, str], FileTree]] = {
    "ntfs": NtfsTree,
    "ext2": ExtTree,
    "ext3": ExtTree,
    "ext4": ExtTree,
}

WAYS_OUT = {
    "not_generalized": SYSPREP,
    "hibernated": "start it once more, and shut it down wholly (Windows: powercfg /h off, then shutdown /s /t 0)",
    "dirty": "start it once more and shut it down, or have it checked (Windows: chkdsk /f; Linux: fsck)",
    "encrypted": "decrypt it first (Windows: manage-bde -off C:), as no other machine can unlock a copy by itself",
}
"""What may speak against a capture, by the names that imaging_allow takes, and what to do about it."""


@dataclass(frozen=True)
class PartitionFacts:
    """One partition. Sizes in bytes; ``clean`` is None where nothing can tell, and ``reason`` says why it is not clean.

    ``file_system_size`` and ``used`` are None where nothing can tell them: used of a file system that is not clean, or is never mapped.
    """

    number: int
    node: str
    start: int
    size: int
    type: str
    content: str
    label: str
    clean: bool | None
    reason: str
    file_system_size: int | None = None
    used: int | None = None
    system: System | None = None


@dataclass(frozen=True)
class Finding:
    """Something that speaks against a capture: its name, where, what it is, how that is known, and what to do."""

    name: str
    partition: int
    words: str
    evidence: str
    way_out: str

    def sentence(self) -> str:
        """All of it."""
        return f"{self.words} ({self.evidence}): {self.way_out}. [{self.name}]"


@dataclass(frozen=True)
class Fitness:
    """What is on a disk, and what speaks against capturing it. ``generalization`` is that of its Windows, if it has one."""

    device: str
    partitions: list[PartitionFacts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def boot_mode(self) -> str:
        """By what firmware the disk can be started: UEFI when it has a partition for that, BIOS when it has others only."""
        if any(is_esp(facts.type) for facts in self.partitions):
            return "UEFI"
        return "BIOS" if self.partitions else UNKNOWN

    @property
    def systems(self) -> list[System]:
        """The operating systems."""
        return [facts.system for facts in self.partitions if facts.system]

    @property
    def generalization(self) -> str:
        """Of the disk: generalized when all its Windows are."""
        states = {system.generalization for system in self.systems if system.kind == "windows"}
        if NOT_GENERALIZED in states:
            return NOT_GENERALIZED
        return GENERALIZED if states else UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """The form of a result."""
        return {
            "device": self.device,
            "boot_mode": self.boot_mode,
            "generalization": self.generalization,
            "partitions": [asdict(facts) for facts in self.partitions],
            "systems": [asdict(system) for system in self.systems],
            "findings": [dict(asdict(finding), sentence=finding.sentence()) for finding in self.findings],
        }


def examine_disk(run: RunCommand, path: str) -> Fitness:
    """Look at a whole disk, or a regular file that stands for one. Nothing is written and nothing mounted. Raises ImagingError."""
    table = read_partition_table(run, path)
    fitness = Fitness(path)
    for partition in table.partitions if table else ():
        facts = _look_at(run, path, partition, fitness.warnings)
        fitness.partitions.append(facts)
        fitness.findings.extend(_against(facts))
    return fitness


def _look_at(run: RunCommand, path: str, partition: Partition, warnings: list[str]) -> PartitionFacts:
    content, clean, reason, system = Content(), None, "", None
    size = used = None
    try:
        content = detect(run, path, partition.start, partition.size)
        size = file_system_size(path, partition.start, content.type)
        if content.type in CHECKS:
            with partition_node(run, path, partition) as node:
                reason = distrust_node(run, content, node, partition.size) or ""
                clean = not reason
                if clean and content.type in MAPPED:
                    used = _used(run, content.type, node, partition.size)
                if content.type in TREES:
                    system = find_system(run, TREES[content.type](run, node))
                    if system and system.unread:
                        warnings.append(
                            f"The registry of the Windows in partition {partition.number} was not read: {system.unread}."
                        )
    except MissingTool as error:
        warnings.append(f"{error} Partition {partition.number} was not looked into.")
    except (NoNode, ImagingError, OSError) as error:
        warnings.append(f"Partition {partition.number} was not looked into: {str(error).rstrip('.')}.")
    return PartitionFacts(
        partition.number,
        partition.node,
        partition.start,
        partition.size,
        partition.type,
        content.type,
        content.label,
        clean,
        reason,
        size,
        used,
        system,
    )


def _used(run: RunCommand, kind: str, node: str, size: int) -> int | None:
    """The used bytes of a clean file system, by partclone's map; None when that can't be had, as a capture says itself."""
    try:
        return sum(end - start for start, end in used_blocks(run, kind, node, size))
    except ImagingError:
        return None


def _against(facts: PartitionFacts) -> Iterator[Finding]:
    where = f"Partition {facts.number} ({facts.content or 'unknown'}{f' {facts.label}' if facts.label else ''})"
    if facts.content in ENCRYPTED:
        yield _finding("encrypted", facts, f"{where} is encrypted", f"the signature of {facts.content}")
    if facts.reason == HIBERNATED:
        yield _finding("hibernated", facts, f"{where} is hibernated", facts.reason)
    elif facts.clean is False and not _is_only_unmappable(facts.reason):
        yield _finding("dirty", facts, f"{where} is not clean", facts.reason)
    if facts.system and facts.system.problem:
        evidence = ", ".join(facts.system.evidence)
        yield _finding("not_generalized", facts, f"{where}: {facts.system.name} {facts.system.problem}", evidence)


def _is_only_unmappable(reason: str) -> bool:
    """Whether a file system is merely one whose map can't be used."""
    return reason.startswith(
        ("it is a FAT12", "only one of its allocation", "it has more than one allocation", "it has a realtime")
    )


def _finding(name: str, facts: PartitionFacts, words: str, evidence: str) -> Finding:
    return Finding(name, facts.number, words, evidence, WAYS_OUT[name])
