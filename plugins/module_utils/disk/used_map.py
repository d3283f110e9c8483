# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Determines which bytes of a disk hold data.

Everything that is not proven to be free is used, and only a file system that is proven clean can prove that.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Iterator, Mapping

from ..errors import ImagingError
from .blkid import Content, detect
from .blkid_facts import BlkidFacts, blkid_version, facts_of
from .command import MissingTool, RunCommand
from .devices import Disk
from .filesystems.registry import distrust, file_system, file_system_size
from .filesystems.swap import SWAP
from .gpt import Read
from .owners import NEVER_MAPPED, covered, covering, inner_table, other_than_swap
from .partclone import used_blocks
from .partition_node import NoNode, drop_cache, partition_node
from .partition_table import Partition, PartitionTable
from .ranges import ByteRanges
from .signatures import probed_ranges

ALL = "all"

MAPPED_BY = "partclone"
"""The method of a mapped partition."""

SWAP_HEADER = 64 << 10
"""Bytes. The header of a swap area is one page, and no page is larger."""


@dataclass(frozen=True)
class PartitionUse:
    """The used space of one partition, and how it was determined. Sizes are in bytes.

    ``content`` is blkid's name. ``method`` is "partclone" (its map), "swap header", "extended" (the part outside of logical partitions) or "whole",
    for which ``reason`` says why. The places of signatures are always used. ``seen`` are blkid's facts (``disk.blkid_facts``).
    """

    number: int
    node: str
    start: int
    size: int
    type: str
    content: str
    label: str
    used: int
    method: str
    reason: str
    seen: BlkidFacts | None = None


@dataclass(frozen=True)
class UsedMap:
    """The used bytes of a disk. ``reason`` says why the whole disk counts as used, if it does; ``backup_gpt`` are the ranges of the backup GPT.

    ``seen`` are blkid's facts about the disk as a whole (``disk.blkid_facts``), and ``blkid`` is its version, empty when unknown.
    """

    ranges: ByteRanges
    partitions: list[PartitionUse] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reason: str = ""
    backup_gpt: tuple[tuple[int, int], ...] = ()
    seen: BlkidFacts | None = None
    blkid: str = ""

    def partitions_json(self) -> list[dict[str, Any]]:
        """Return the facts of each partition, for a result or an image's header."""
        return [asdict(partition) for partition in self.partitions]

    def source_json(self) -> dict[str, Any]:
        """Return the facts for the ``source`` of an image's header."""
        return {
            "partitions": self.partitions_json(),
            "backup_gpt": [list(place) for place in self.backup_gpt],
            "seen": self.seen,
            "blkid": self.blkid,
        }


def read_used_map(run: RunCommand, disk: Disk, table: PartitionTable | None, mode: str) -> UsedMap:
    """Determine the used bytes of a disk; ``mode`` is "auto", or "all" for everything.

    A partition that can't be mapped is completely used; ``warnings`` say so where the user can change it.
    """
    drop_cache(disk.path)
    mapper = _Mapper(run, disk.path)
    content, unknown = mapper.detect(0, 0)
    reason = "all of it was asked for" if mode == ALL else _why_whole(table, content, unknown)
    if reason and mode != ALL:
        mapper.warnings.append(f"All of {disk.path} is captured: {reason}.")
    found = mapper.use_all(table, reason) if table else []
    if table is None or reason:
        ranges = ByteRanges([(0, disk.size)])
    else:
        ranges = ByteRanges.union([ByteRanges(_outside_partitions(table, disk.size)), *(used for _use, used in found)])
    partitions = [use for use, _used in found]
    backup = table.backup_ranges if table else ()
    seen = _note(content, unknown)
    return UsedMap(
        ranges=ranges,
        partitions=partitions,
        warnings=mapper.warnings,
        reason=reason,
        backup_gpt=backup,
        seen=seen,
        blkid=blkid_version(run),
    )


def wholly_used(used: UsedMap, doubts: Mapping[int, str | MissingTool]) -> UsedMap:
    """Return the map with these partitions, by number, counted as completely used. The reasons become warnings."""
    warnings = list(used.warnings)
    partitions, ranges = [], [used.ranges]
    for each in used.partitions:
        doubt = doubts.get(each.number)
        if doubt is None or each.method != MAPPED_BY:
            partitions.append(each)
            continue
        if isinstance(doubt, MissingTool):
            reason = f"{doubt.program} is not installed"
            text = f"{doubt} What it would check is captured whole, which takes longer. Install it."
        else:
            reason = doubt
            text = f"Partition {each.number} ({each.content}) is captured whole: {doubt}."
        if text not in warnings:
            warnings.append(text)
        partitions.append(replace(each, used=each.size, method="whole", reason=reason))
        ranges.append(ByteRanges([(each.start, each.start + each.size)]))
    return replace(used, ranges=ByteRanges.union(ranges), partitions=partitions, warnings=warnings)


def _note(content: Content, unknown: str) -> BlkidFacts | None:
    return None if unknown and content == Content() else facts_of(content)


def _why_whole(table: PartitionTable | None, content: Content, unknown: str) -> str:
    """Return why a whole disk counts as used; empty when it does not. ``content`` is that of the disk as a whole, ``unknown`` why it is unknown."""
    if table is None:
        return "it has no partition table that sfdisk knows"
    if table.label not in ("gpt", "dos"):
        return f"its partition table is of the kind {table.label}"
    if table.faults:
        return "its partition table is inconsistent. " + " ".join(table.faults).rstrip(".")
    if not table.partitions:
        return "its partition table is empty"
    return unknown or (f"the disk as a whole holds {content.type}" if content.type else "")


def _outside_partitions(table: PartitionTable, size: int) -> Iterator[tuple[int, int]]:
    yield 0, min(table.partitions[0].start, size)
    yield from table.metadata_ranges
    known = {(partition.start, partition.end) for partition in table.partitions}
    # An entry of a hybrid MBR usually repeats an entry of the GPT.
    yield from (claim for claim in table.hybrid_ranges if claim not in known)
    yield from probed_ranges(0, size)


class _SaidForAll(str):
    """A reason for which there is one warning for all partitions."""


class _Mapper:
    """Maps the partitions of one disk, and collects warnings."""

    def __init__(self, run: RunCommand, disk: str) -> None:
        self._run = run
        self._disk = disk
        self._warned: set[str] = set()
        self.warnings: list[str] = []

    def detect(self, offset: int, size: int) -> tuple[Content, str]:
        """Return the content at an offset of the disk, and why it is unknown, if it is."""
        try:
            content = detect(self._run, self._disk, offset, size)
        except MissingTool as error:
            return Content(), self._missing_tool(error)
        except ImagingError as error:
            return Content(), str(error).rstrip(".")
        if content.ambivalent:
            return content, "its content looks like several things at once"
        if content.stray:
            return (
                content,
                f"it has a signature of {content.stray}, which may be a part of a file, or of a former or present owner",
            )
        return content, ""

    def use_all(self, table: PartitionTable, whole: str) -> list[tuple[PartitionUse, ByteRanges]]:
        """Return the used space of each partition; all of it when ``whole`` gives a reason."""
        contents = [self.detect(partition.start, partition.size) for partition in table.partitions]
        covers = ""
        for partition, (content, _unknown) in zip(table.partitions, contents):
            what = covering(content, self._reader(partition))
            covers = covers or (
                what and f"partition {partition.number} holds {what}, which may cover every block of it"
            )
        return [
            self._use(partition, table, content, whole, unknown, covers)
            for partition, (content, unknown) in zip(table.partitions, contents)
        ]

    def _use(
        self, partition: Partition, table: PartitionTable, content: Content, whole: str, unknown: str, covers: str
    ) -> tuple[PartitionUse, ByteRanges]:
        method, ranges, conflict = "whole", ByteRanges(), ""
        kind = file_system(content.type)
        if kind is SWAP or kind.free_space:
            conflict = inner_table(content, self._reader(partition)) or covers
        if kind is SWAP:
            conflict = conflict or other_than_swap(partition.type)
        reason = whole or NEVER_MAPPED.get(partition.type.upper(), "")
        if reason:
            pass
        elif table.is_extended(partition) and not unknown:
            # Outside of logical partitions are their tables, and boot code.
            logical = ByteRanges((each.start, each.end) for each in table.partitions if table.is_logical(each))
            gaps = logical.complement(partition.end).within(partition.start, partition.end)
            method, ranges = "extended", ByteRanges(gaps)
        elif unknown or conflict:
            reason = unknown or conflict
            self._warn_whole(partition, content, reason)
        elif kind is SWAP:
            method = "swap header"
            ranges = self._swap_ranges(partition)
        elif kind.free_space:
            ranges, reason = self._map(partition, content, kind.free_space.map_program)
            method = "whole" if reason else MAPPED_BY
        else:
            reason = f"no map is made of {content.type}" if content.type else "its content is unknown"
        if method == "whole":
            ranges = ByteRanges([(partition.start, partition.end)])
        else:
            ranges = ByteRanges.union([ranges, ByteRanges(probed_ranges(partition.start, partition.size))])
        use = PartitionUse(
            **partition.place(),
            content=content.type,
            label=content.label,
            used=ranges.total(),
            method=method,
            reason=str(reason),
            seen=_note(content, unknown),
        )
        return use, ranges

    def _reader(self, partition: Partition) -> Read:

        def read(offset: int, length: int) -> bytes:
            try:
                with open(self._disk, "rb", buffering=0) as disk:
                    return os.pread(disk.fileno(), length, partition.start + offset)
            except OSError:
                return b""  # unreadable bytes make the capture itself fail, with a complete message

        return read

    def _swap_ranges(self, partition: Partition) -> ByteRanges:
        """Return the header of a swap area, and the space behind the area."""
        size = file_system_size(self._disk, partition.start, SWAP.names[0]) or 0
        header = (partition.start, min(partition.start + SWAP_HEADER, partition.end))
        return ByteRanges([header, (min(partition.start + size, partition.end), partition.end)])

    def _map(self, partition: Partition, content: Content, program: str) -> tuple[ByteRanges, str]:
        """Return the used ranges of a file system, or why they are unknown."""
        try:
            with partition_node(self._run, self._disk, partition) as node:
                size = file_system_size(self._disk, partition.start, content.type)
                reason = covered(self._reader(partition), partition.size, size)
                doubt = None if reason else distrust(self._run, content.type, node)
                if doubt:
                    reason = doubt.reason
                if not reason:
                    used = used_blocks(self._run, program, node, partition.size)
                    start = partition.start
                    return ByteRanges.from_sorted((start + low, start + high) for low, high in used), ""
        except MissingTool as error:
            return ByteRanges(), self._missing_tool(error)
        except NoNode as error:
            self._warn_once("loop", f"File systems are captured whole: {error}.")
            return ByteRanges(), str(error)
        except (ImagingError, OSError) as error:
            reason = str(error).rstrip(".")
        self._warn_whole(partition, content, reason)
        return ByteRanges(), reason

    def _warn_whole(self, partition: Partition, content: Content, reason: str) -> None:
        if isinstance(reason, _SaidForAll):
            return
        held = f" ({content.type})" if content.type else ""
        self.warnings.append(f"Partition {partition.number}{held} is captured whole: {reason}.")

    def _missing_tool(self, error: MissingTool) -> str:
        """Warn once of a missing tool; returns the reason."""
        way_out = "Install it, or set imaging_install: true" if error.package == "partclone" else "Install it"
        text = f"{error} What it would map is captured whole, which takes longer. {way_out}."
        self._warn_once(error.package, text)
        return _SaidForAll(f"{error.program} is not installed")

    def _warn_once(self, subject: str, text: str) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            self.warnings.append(text)
