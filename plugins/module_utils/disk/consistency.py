# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks whether mapped file systems are consistent, which means that no block of a file is marked as free.

A clean flag does not prove that. A program that only reads checks each file system on a read-only loop device, while other work goes on. A file
system that can't be checked counts as inconsistent.
"""

from __future__ import annotations

import threading
from typing import Sequence

from ..errors import ImagingError
from .bounded_run import BoundedRun, Bounds, Stopped
from .command import MissingTool
from .filesystems.base import Checker
from .filesystems.registry import file_system
from .partition_node import loop_device
from .used_map import MAPPED_BY, PartitionUse

CHECK_SECONDS = 3600.0
"""Maximum seconds for one file system. A million files take a few seconds on a solid-state disk, and much longer on a rotating one."""

MIN_MEMORY = 256 << 20
"""Bytes of memory that a checker may always use."""

SETUP = Bounds(60.0, MIN_MEMORY)
"""Limits for making a loop device."""

CLOSING = 10.0
"""Seconds to wait for a check that was stopped."""


class ConsistencyChecks:
    """Checks the mapped file systems of a disk one after the other, in disk order, in a thread."""

    def __init__(self, disk: str, partitions: Sequence[PartitionUse], run: BoundedRun | None = None) -> None:
        """``disk`` is a block device or a regular file. Nothing runs before :meth:`start`."""
        self._disk = disk
        self._run = run or BoundedRun(Bounds(CHECK_SECONDS, max_memory()))
        self._partitions = sorted(
            (each for each in partitions if each.method == MAPPED_BY), key=lambda partition: partition.start
        )
        self._proven: set[int] = set()
        self._doubts: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._check_all, name="consistency", daemon=True)

    def missing(self) -> dict[int, MissingTool]:
        """Return the partitions, by number, whose checker is not installed."""
        programs = {each.number: _checker(each).command[0] for each in self._partitions}
        return {number: MissingTool(program) for number, program in programs.items() if not self._run.finds(program)}

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for so many seconds (None: without limit); returns whether all checks have finished."""
        return self._over.wait(seconds)

    def doubts(self) -> dict[int, str]:
        """Return the partitions, by number, that are not proven consistent, and the reasons. The list is complete when all checks have finished."""
        if self._over.is_set() and len(self._proven) + len(self._doubts) < len(self._partitions):
            for each in self._partitions:
                if each.number not in self._proven:
                    self._doubts.setdefault(each.number, "its check ended without an answer")
        return dict(self._doubts)

    def close(self) -> None:
        """End the running check."""
        self._run.stop()
        if self._thread.ident is not None:
            self._thread.join(CLOSING)

    def _check_all(self) -> None:
        try:
            for each in self._partitions:
                doubt = self._check(each)
                if doubt:
                    self._doubts[each.number] = doubt
                else:
                    self._proven.add(each.number)
        except Stopped:
            pass
        finally:
            self._over.set()

    def _check(self, partition: PartitionUse) -> str:
        checker = _checker(partition)
        try:
            with loop_device(BoundedRun(SETUP), self._disk, partition.start, partition.size) as node:
                return checker.doubt(self._run(checker.arguments(node, self._run.bounds.memory // 2)))
        except (ImagingError, OSError) as error:
            return str(error).rstrip(".")


def _checker(partition: PartitionUse) -> Checker:
    free_space = file_system(partition.content).free_space
    if free_space is None:
        raise ImagingError(f"Nothing can check a file system of the kind {partition.content}.")
    return free_space.checker


def max_memory() -> int:
    """Return the bytes of memory that a checker may use: half of the available memory."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":", 1) for line in file)
        available = int(sizes["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        available = 0
    return max(MIN_MEMORY, available // 2)
