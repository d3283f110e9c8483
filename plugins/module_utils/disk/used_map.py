# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bytes of a disk hold data that matters."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .command import RunCommand
from .devices import Disk
from .partition_table import PartitionTable
from .ranges import ByteRanges


@dataclass(frozen=True)
class PartitionUse:
    """How much of one partition is used, and how that is known. Sizes in bytes.

    ``method`` is "partclone" (its map), "swap header" or "whole"; ``reason`` says why it is whole.
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


@dataclass(frozen=True)
class UsedMap:
    """The used bytes of a disk. ``reason`` says why the whole disk counts as used, if it does."""

    ranges: ByteRanges
    partitions: list[PartitionUse] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reason: str = ""

    def partitions_json(self) -> list[dict[str, Any]]:
        """The facts of each partition, for a result or an image's header."""
        return [asdict(partition) for partition in self.partitions]


def read_used_map(run: RunCommand, disk: Disk, table: PartitionTable | None, mode: str) -> UsedMap:
    """Find out what of a disk is used; ``mode`` is "auto", or "all" for everything. Raises ImagingError."""
    raise NotImplementedError
