# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each stage of a pipeline spent its time on: busy, or waiting for its neighbours."""

from __future__ import annotations

import time
from typing import Dict, Tuple

Totals = Dict[Tuple[str, str], float]

BUSY = "busy"
WAIT = "wait"
CPU = "cpu"


class Stopwatch:
    """One thread's time, without gaps: each lap charges the time since the last one to a stage.

    Of a busy lap it is also noted for how long the thread had a processor; the rest it was waiting for a disk, a link, or its turn.
    """

    def __init__(self) -> None:
        self.totals: Totals = {}
        self._mark = time.perf_counter()
        self._cpu_mark = time.thread_time()

    def restart(self) -> None:
        """Begin a lap now; the time since the last one is charged to nobody."""
        self._mark = time.perf_counter()
        self._cpu_mark = time.thread_time()

    def busy(self, stage: str) -> None:
        """Charge the time since the last lap to the work of ``stage``."""
        before = self._cpu_mark
        self._lap((stage, BUSY))
        self._add((stage, CPU), self._cpu_mark - before)

    def wait(self, stage: str) -> None:
        """Charge the time since the last lap to the waiting of ``stage``."""
        self._lap((stage, WAIT))

    def _lap(self, key: tuple[str, str]) -> None:
        now = time.perf_counter()
        self._add(key, now - self._mark)
        self._mark, self._cpu_mark = now, time.thread_time()

    def _add(self, key: tuple[str, str], seconds: float) -> None:
        self.totals[key] = self.totals.get(key, 0.0) + seconds


class Stopwatches:
    """The stopwatches of all threads of a run."""

    def __init__(self) -> None:
        self._all: list[Stopwatch] = []
        self._began = time.perf_counter()

    def begin(self) -> None:
        """The run begins now, and not when this was made."""
        self._began = time.perf_counter()

    def new(self) -> Stopwatch:
        """A stopwatch for the calling thread."""
        watch = Stopwatch()
        self._all.append(watch)
        return watch

    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.perf_counter() - self._began

    def stages(self) -> dict[str, dict[str, float]]:
        """Busy and waiting seconds of each stage, summed over its threads, and for how many of the busy ones these had a processor."""
        result: dict[str, dict[str, float]] = {}
        for watch in list(self._all):
            for (stage, kind), seconds in list(watch.totals.items()):
                times = result.setdefault(stage, {BUSY: 0.0, WAIT: 0.0, CPU: 0.0})
                times[kind] += seconds
        return {
            stage: {kind: round(value, 3) for kind, value in times.items()} for stage, times in sorted(result.items())
        }
