# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the time of each stage of a pipeline: busy, or waiting for its neighbours."""

from __future__ import annotations

import threading
import time
from typing import Callable

BUSY = "busy"
WAIT = "wait"
CPU = "cpu"


class Stopwatch:
    """The time of one thread, without gaps: each lap charges the time since the previous lap to a stage.

    A busy lap also records the processor time of the thread. For the rest of the lap it waited for a disk, a link, or a processor.
    """

    def __init__(self, charge: Callable[[str, str, float], None]) -> None:
        """``charge`` is called with a stage, a kind of time, and seconds."""
        self._charge = charge
        self.restart()

    def restart(self) -> None:
        """Begin a lap now; the time since the previous lap is not charged."""
        self._mark = time.perf_counter()
        self._cpu_mark = time.thread_time()

    def busy(self, stage: str) -> None:
        """Charge the time since the last lap to the work of ``stage``."""
        seconds, cpu = self._lap()
        self._charge(stage, BUSY, seconds)
        self._charge(stage, CPU, cpu)

    def wait(self, stage: str) -> None:
        """Charge the time since the last lap to the waiting of ``stage``."""
        seconds, _cpu = self._lap()
        self._charge(stage, WAIT, seconds)

    def _lap(self) -> tuple[float, float]:
        before, cpu_before = self._mark, self._cpu_mark
        self.restart()
        return self._mark - before, self._cpu_mark - cpu_before


class Stopwatches:
    """The stopwatches of all threads of a run, which share their stages."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Set the beginning of the run to now."""
        self._began = time.perf_counter()

    def new(self) -> Stopwatch:
        """Return a stopwatch for the calling thread."""
        return Stopwatch(self._charge)

    def _charge(self, stage: str, kind: str, seconds: float) -> None:
        with self._lock:
            self._totals[stage, kind] = self._totals.get((stage, kind), 0.0) + seconds

    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self._began

    def stages(self) -> dict[str, dict[str, float]]:
        """Return the busy, waiting and processor seconds of each stage, summed over its threads."""
        with self._lock:
            totals = sorted(self._totals.items())
        result: dict[str, dict[str, float]] = {}
        for (stage, kind), seconds in totals:
            result.setdefault(stage, {BUSY: 0.0, WAIT: 0.0, CPU: 0.0})[kind] = round(seconds, 3)
        return result
