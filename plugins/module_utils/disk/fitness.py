# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Examines whether a disk is fit to be captured: its content, and the reasons against copying it to other machines."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import ImagingError
from .blkid import Content, detect
from .boot_mode import BOOT_TYPES, boot_mode
from .command import MissingTool, RunCommand
from .filesystems.base import UNMAPPABLE, Distrust, Files
from .filesystems.fat import FatTree
from .filesystems.registry import BY_NAME, distrust, file_system, file_system_size
from .findings import (
    ENCRYPTED,
    SUSPENDED,
    UNKNOWN_STATE,
    WHOLE_DISK,
    Finding,
    PartitionFacts,
    capital,
    findings_in,
    where_is,
)
from .loaders import read_loaders
from .owners import inner_table
from .partclone import used_blocks
from .partition_node import NoNode, partition_node
from .partition_table import Partition, PartitionTable, read_partition_table
from .systems import GENERALIZED, LINUX, NOT_GENERALIZED, UNKNOWN, WINDOWS, System, find_windows
from .systems_linux import find_hibernation, find_linux, join

ORDINARY = ("DM_verity_hash", "jbd", "xfs_external_log")
"""Contents that hold no system, besides the kinds of ``disk.filesystems``."""

ORDINARY_TYPES = ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE", *BOOT_TYPES)
"""Types of partitions without a file system: reserved by Microsoft, or for booting."""

BLANK = 1 << 20
"""Bytes at the start of a partition; if all are zero, it holds no system."""


@dataclass(frozen=True)
class Fitness:
    """The content of a disk, and the reasons against capturing it. ``generalization`` is that of its Windows, if there is one.

    ``warnings`` name what was not examined. ``boot_mode`` is the firmware that can start the disk: UEFI, BIOS or unknown. ``boot_problem`` says why
    its systems will not start.
    """

    device: str
    partitions: list[PartitionFacts] = field(default_factory=list)
    systems: list[System] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    boot_mode: str = UNKNOWN
    boot_problem: str = ""

    @property
    def generalization(self) -> str:
        """That of the disk: it is generalized when all its Windows are."""
        states = {system.generalization for system in self.systems if system.kind == WINDOWS}
        if NOT_GENERALIZED in states:
            return NOT_GENERALIZED
        unseen = any(finding.name == UNKNOWN_STATE.name for finding in self.findings)
        return GENERALIZED if states == {GENERALIZED} and not unseen else UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """Return the form of a result."""
        return {
            "device": self.device,
            "boot_mode": self.boot_mode,
            "generalization": self.generalization,
            "partitions": [asdict(facts) for facts in self.partitions],
            "systems": [asdict(system) for system in self.systems],
            "findings": [dict(asdict(finding), sentence=finding.sentence()) for finding in self.findings],
        }


def examine_disk(run: RunCommand, path: str) -> Fitness:
    """Examine a whole disk, or a regular file that stands for one; raises ImagingError.

    Nothing is written. Only a clean XFS or btrfs is mounted, and invisibly to other programs.
    """
    table, partitions, warnings = _to_examine(run, path)
    look = _Examination(run, path, table, warnings)
    facts = [look.at(partition) for partition in partitions]
    look.sum_up()
    systems = _systems(facts, warnings)
    mode, problem = boot_mode(path, table, systems, lambda esp: _has_loader(run, path, esp))
    findings = [finding for each in facts for finding in findings_in(each)]
    return Fitness(
        device=path,
        partitions=facts,
        systems=systems,
        findings=findings,
        warnings=warnings,
        boot_mode=mode,
        boot_problem=problem,
    )


def _has_loader(run: RunCommand, path: str, esp: Partition) -> bool:
    """Return whether firmware finds a loader on an EFI system partition; True when that is unknown."""
    try:
        with partition_node(run, path, esp) as node:
            return read_loaders(FatTree(run, node)).first() is not None
    except (ImagingError, OSError):
        return True


def _to_examine(run: RunCommand, path: str) -> tuple[PartitionTable | None, list[Partition], list[str]]:
    table = read_partition_table(run, path)
    if table is None:
        with open(path, "rb", buffering=0) as disk:
            return None, [Partition(number=WHOLE_DISK, node=path, start=0, size=disk.seek(0, os.SEEK_END), type="")], []
    try:
        beside = detect(run, path).type
    except ImagingError:  # reported with each partition
        beside = ""
    also = [f"{path} has partitions, and the disk as a whole also looks like {beside}, which was not examined."]
    # Only the part of a partition that lies on the disk: a table may describe a larger one.
    there = [partition for partition in table.partitions if partition.start < table.disk_size]
    sizes = (min(partition.size, table.disk_size - partition.start) for partition in there)
    return table, [replace(partition, size=size) for partition, size in zip(there, sizes)], also if beside else []


class _Examination:
    """Examines the partitions of a disk, and collects warnings."""

    def __init__(self, run: RunCommand, path: str, table: PartitionTable | None, warnings: list[str]) -> None:
        self._run = run
        self._path = path
        self._table = table
        self._warnings = warnings
        self._unseen: list[str] = []
        self._missing: dict[str, MissingTool] = {}

    def at(self, partition: Partition) -> PartitionFacts:
        """Examine a partition."""
        facts = PartitionFacts(**partition.place(), content="", label="")
        if self._table is not None and self._table.is_extended(partition):
            return facts
        where = capital(where_is(partition.number))
        try:
            content = detect(self._run, self._path, partition.start, partition.size)
            size = file_system_size(self._path, partition.start, content.type)
            facts = replace(facts, content=content.type, label=content.label, file_system_size=size)
            if inner_table(content, lambda offset, length: self._read(partition, offset, length)):
                table = f"a partition table of its own, {content.partition_table}"
                self._unseen.append(f"{where_is(partition.number)} ({table})")
            elif file_system(content.type).check:
                with partition_node(self._run, self._path, partition) as node:
                    facts = self._check(facts, content, node)
                    files = file_system(content.type).files
                    facts = self._examine_files(facts, node, files) if files else facts
            elif self._may_hold_a_system(partition, content):
                self._unseen.append(f"{where_is(partition.number)} ({_describe(content)})")
        except (NoNode, ImagingError, OSError) as error:
            reason = str(error).rstrip(".")
            files = file_system(facts.content).files
            if not facts.content or (files and files.system == WINDOWS):  # unknown content may be a Windows
                return replace(facts, unread=reason)
            self._warnings.append(f"{where} was not examined: {reason}.")
        return facts

    def sum_up(self) -> None:
        """Add the warnings that concern several partitions."""
        if self._unseen:
            text = "These may hold an operating system and were not examined: " + ", ".join(self._unseen)
            self._warnings.append(f"{text}.")
        for missing in self._missing.values():
            self._warnings.append(
                f"{missing} Without it the free space of file systems is unknown and is captured, too."
            )

    def _check(self, facts: PartitionFacts, content: Content, node: str) -> PartitionFacts:
        doubt = distrust(self._run, content.type, node)
        if doubt:
            clean = None if doubt.kind == UNMAPPABLE else False
            return replace(facts, clean=clean, distrust=doubt.kind, reason=doubt.reason)
        free_space = file_system(content.type).free_space
        used = self._used(facts, node, free_space.map_program) if free_space else None
        return replace(facts, clean=True, used=used)

    def _used(self, facts: PartitionFacts, node: str, program: str) -> int | None:
        """Return the used bytes of a clean file system by partclone's map; None when there is no map. The capture itself warns of that."""
        end = facts.file_system_size or facts.size
        try:
            used = used_blocks(self._run, program, node, facts.size)
            return sum(max(0, min(stop, end) - start) for start, stop in used)
        except MissingTool as error:
            self._missing[error.package] = error
        except ImagingError:
            pass
        return None

    def _examine_files(self, facts: PartitionFacts, node: str, files: Files) -> PartitionFacts:
        if files.only_clean and not facts.clean:
            self._unseen.append(f"{where_is(facts.number)} ({facts.content}, not clean)")
            return facts
        with files.open(self._run, node) as tree:
            if files.second_look and facts.distrust:
                doubt = files.second_look(Distrust(facts.distrust, facts.reason), tree)
                facts = replace(facts, distrust=doubt.kind, reason=doubt.reason)
            if files.system == WINDOWS:
                found = find_windows(tree)
                systems = [found] if found else []
            else:
                systems = find_linux(tree)
                facts = replace(facts, hibernated=find_hibernation(tree))
        return replace(facts, systems=[replace(system, partition=facts.number) for system in systems])

    def _may_hold_a_system(self, partition: Partition, content: Content) -> bool:
        """Return whether content that is not examined may hold a system; a finding covers encrypted content."""
        if content.type in (*ORDINARY, *ENCRYPTED, *BY_NAME, SUSPENDED) or partition.type.upper() in ORDINARY_TYPES:
            return False
        return bool(content.type or content.ambivalent) or any(self._read(partition, 0, BLANK))

    def _read(self, partition: Partition, offset: int, length: int) -> bytes:
        with open(self._path, "rb", buffering=0) as disk:
            return os.pread(disk.fileno(), max(0, min(length, partition.size - offset)), partition.start + offset)


def _describe(content: Content) -> str:
    return "several things at once" if content.ambivalent else content.type or "unknown"


def _systems(partitions: list[PartitionFacts], warnings: list[str]) -> list[System]:
    """Return the systems of a disk, joined from their parts, and add warnings about the parts that were not examined."""
    systems = []
    for system in join([system for facts in partitions for system in facts.systems]):
        where = where_is(system.partition)
        if system.kind in (WINDOWS, LINUX):
            systems.append(replace(system, name=system.name or "Linux") if system.kind == LINUX else system)
        else:
            name = f" ({system.name})" if system.name else ""
            warnings.append(
                f"{capital(where)} holds the {system.kind} of a Linux{name}: it is not known which Linux it belongs to."
            )
        warnings.extend(f"The Windows in {where}: {note}." for note in system.notes)
        if system.apart:
            warnings.append(
                f"The Linux in {where} has {' and '.join(system.apart)} in file systems of their own, which were not found and not examined."
            )
    return systems
