# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bytes of a disk hold data that matters.

Everything that is not proven to be free is used. Only a file system that is proven clean may prove that something is.
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
"""The method of a partition of which a map was made."""

SWAP_HEADER = 64 << 10
"""Bytes. The header of a swap area is one page, and no page is larger."""


@dataclass(frozen=True)
class PartitionUse:
    """How much of one partition is used, and how that is known. Sizes in bytes.

    ``content`` is blkid's name for what it holds. ``method`` is "partclone" (by its map), "swap header", "extended" (what of it is in
    no logical partition) or "whole"; ``reason`` says why it is whole. Where probes look for signatures is always used. ``seen`` is what
    blkid sees (``disk.blkid_facts``).
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
    """The used bytes of a disk. ``reason`` says why the whole disk counts as used, if it does; ``backup_gpt`` where the backup of a GPT lies.

    ``seen`` is what blkid sees on the disk as a whole (``disk.blkid_facts``), and ``blkid`` is its version, empty where that is not known.
    """

    ranges: ByteRanges
    partitions: list[PartitionUse] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reason: str = ""
    backup_gpt: tuple[tuple[int, int], ...] = ()
    seen: BlkidFacts | None = None
    blkid: str = ""

    def partitions_json(self) -> list[dict[str, Any]]:
        """The facts of each partition, for a result or an image's header."""
        return [asdict(partition) for partition in self.partitions]

    def source_json(self) -> dict[str, Any]:
        """What an image's header says of its source by this map."""
        return {
            "partitions": self.partitions_json(),
            "backup_gpt": [list(place) for place in self.backup_gpt],
            "seen": self.seen,
            "blkid": self.blkid,
        }


def read_used_map(run: RunCommand, disk: Disk, table: PartitionTable | None, mode: str) -> UsedMap:
    """Find out what of a disk is used; ``mode`` is "auto", or "all" for everything.

    Everything that stands in the way of a map makes its partition wholly used, and is said in ``warnings`` where a person can change it.
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
    """Why a whole disk counts as used, or nothing. ``content`` is what the disk holds as a whole, ``unknown`` why that is not known."""
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
    """What is used of a disk besides its partitions."""
    yield 0, min(table.partitions[0].start, size)
    yield from table.metadata_ranges
    known = {(partition.start, partition.end) for partition in table.partitions}
    # An entry of a hybrid MBR usually repeats one of the GPT, and then says nothing new.
    yield from (claim for claim in table.hybrid_ranges if claim not in known)
    yield from probed_ranges(0, size)


class _SaidForAll(str):
    """A reason of which one warning tells for all partitions."""


class _Mapper:
    """Maps the partitions of one disk, and collects what a person should know."""

    def __init__(self, run: RunCommand, disk: str) -> None:
        self._run = run
        self._disk = disk
        self._warned: set[str] = set()
        self.warnings: list[str] = []

    def detect(self, offset: int, size: int) -> tuple[Content, str]:
        """What lies at an offset of the disk, and why that is not known, if it is not."""
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
        """What of each partition is used; all of it when ``whole`` gives a reason."""
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
            method, ranges = "extended", _gaps(partition, table)
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
            number=partition.number,
            node=partition.node,
            start=partition.start,
            size=partition.size,
            type=partition.type,
            content=content.type,
            label=content.label,
            used=ranges.total(),
            method=method,
            reason=str(reason),
            seen=_note(content, unknown),
        )
        return use, ranges

    def _reader(self, partition: Partition) -> Read:
        """Reads at offsets of a partition."""

        def read(offset: int, length: int) -> bytes:
            try:
                with open(self._disk, "rb", buffering=0) as disk:
                    return os.pread(disk.fileno(), length, partition.start + offset)
            except OSError:
                return b""  # what can't be read ends the capture itself, with all that is to be said of it

        return read

    def _swap_ranges(self, partition: Partition) -> ByteRanges:
        """The header of a swap area, and what lies behind the area: that is not its own."""
        size = file_system_size(self._disk, partition.start, SWAP.names[0]) or 0
        header = (partition.start, min(partition.start + SWAP_HEADER, partition.end))
        return ByteRanges([header, (min(partition.start + size, partition.end), partition.end)])

    def _map(self, partition: Partition, content: Content, program: str) -> tuple[ByteRanges, str]:
        """The used ranges of a file system, or why there is no telling."""
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
        """Say once that a tool is missing; returns the reason."""
        way_out = "Install it, or set imaging_install: true" if error.package == "partclone" else "Install it"
        text = f"{error} What it would map is captured whole, which takes longer. {way_out}."
        self._warn_once(error.package, text)
        return _SaidForAll(f"{error.program} is not installed")

    def _warn_once(self, subject: str, text: str) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            self.warnings.append(text)


def _gaps(extended: Partition, table: PartitionTable) -> ByteRanges:
    """What of an extended partition is in no logical one: the tables that chain them, and boot code."""
    logical = ByteRanges((each.start, each.end) for each in table.partitions if table.is_logical(each))
    return ByteRanges(logical.complement(extended.end).within(extended.start, extended.end))
