# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one transfer's reports come to: how fast it is, when it will be done, and what limits it, now and over the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import (
    COMPARING,
    PHASES,
    STREAMING,
    VERIFYING,
    Status,
)
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.plugin_utils.times import rfc3339

from .bottlenecks import Bottlenecks
from .history import History, Point, Sample
from .limits import LIMITS, SOURCE_READ, STORE, TARGET_READ, Circumstances, Usage, advise, limiting, shares, tells
from .time_left import TimeLeft, busy


@dataclass(frozen=True)
class Reading:
    """What a person is shown of a transfer. Sizes are in bytes, rates in bytes a second, times in seconds; None is unknown.

    ``done`` and ``total`` are of the phase, ``whole`` is the share of all phases that is done, from 0 to 1.
    """

    phase: str
    done: int
    total: int
    whole: float = 0.0
    now: float | None = None
    mean: float | None = None
    eta: float | None = None
    limit: str = ""
    share: float = 0.0


class Meter:
    """Takes what the laptop reports, and what this machine knows, about once a second.

    Of a restore ``frames`` is how many bytes there are to be sent at the most; of a capture nobody knows. ``wire`` says how many were.
    """

    def __init__(
        self,
        watches: Stopwatches,
        wire: Callable[[], int],
        capturing: bool = False,
        frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watches = watches
        self._wire = wire
        self._capturing = capturing
        self._clock = clock
        self.began = clock()
        self.started = rfc3339()
        """When it began."""
        self.status: Status | None = None
        self.history = History()
        self.time_left = TimeLeft(self.history, capturing, frames)
        self.bottlenecks = Bottlenecks()
        self._base: Point | None = None
        """Until when the time was charged."""
        self._offset: float | None = None
        """What this machine's clock is ahead of the laptop's seconds."""
        self._to_write = 0
        self._lock = threading.Lock()

    def hear(self, report: bytes) -> None:
        """Take a report; raises ImagingError when it is none."""
        self._take(Status.unpack(report), self._clock())

    def _take(self, status: Status, now: float) -> None:
        with self._lock:
            self.status = status
            point = self._point(status, now)
            self.history.add(point)
            self._charge(point)

    @property
    def mark(self) -> int:
        """A number that changes when the transfer gets on."""
        status = self.status
        return (PHASES.index(status.phase) << 62) + status.done if status else -1

    @property
    def timeline(self) -> list[Sample]:
        """Seconds since the laptop began, bytes done, phase."""
        return self.history.timeline

    def _point(self, status: Status, now: float) -> Point:
        if self._offset is None:
            self._offset = now - status.seconds
        usage = Usage(
            status.seconds,
            status.stages,
            status.cpu,
            now,
            self._watches.stages(),
            time.process_time(),
            max(1, status.workers),
            max(1, status.processors),
        )
        # By the laptop's clock, because reports may wait for one another on their way.
        at = self._offset + status.seconds
        return Point(at, status.phase, status.done, status.data_done, self._wire(), usage)

    def _charge(self, point: Point) -> None:
        """Charge the time since the last one to what limited it."""
        if self._base is None:
            self._base = point
            return
        before, after = self._base.usage, point.usage
        if tells(before, after):
            self.bottlenecks.charge(shares(before, after, self._capturing), after.seconds - before.seconds)
            self._base = point

    def close(self, report: str) -> None:
        """Take the last report, and charge what the store's disk took by itself, once the laptop was done; raises ImagingError."""
        status = Status.unpack(report.encode())
        # It comes with the module's result, some time after it was made.
        made = self._clock() if self._offset is None else self._offset + status.seconds
        heard = self.history.last.usage.controller_seconds if self.history else made
        self._take(status, max(made, heard))
        seconds = busy(self._watches.stages(), "finish")
        if seconds:
            self.bottlenecks.charge({STORE: 1.0}, seconds)

    def stages(self) -> dict[str, Mapping[str, float]]:
        """The busy and waiting times of both ends, as a result has them."""
        laptop = self.status.stages if self.status else {}
        return {**laptop, **{f"controller {name}": times for name, times in self._watches.stages().items()}}

    # --- what is shown ---

    def reading(self) -> Reading | None:
        """How it stands; None before the first report. From any thread: reports come in by another one."""
        with self._lock:
            return self._reading(self.status) if self.status else None

    def _reading(self, status: Status) -> Reading:
        limit, share = self._limit_now()
        return Reading(
            status.phase,
            min(status.done, status.total),
            status.total,
            self._whole(status),
            self.history.rate_now(),
            self.history.rate_mean(),
            self.time_left.seconds(status, self.limited_by),
            limit,
            share,
        )

    def _whole(self, status: Status) -> float:
        """Writing and reading back count by their bytes, and what is between them as the end of the writing."""
        if self._capturing or status.phase == COMPARING:
            return status.done / max(1, status.total)
        if status.phase == VERIFYING:
            return (self._to_write + status.done) / max(1, self._to_write + status.total)
        self._to_write = max(self._to_write, status.total)
        done = status.done if status.phase == STREAMING else self._to_write
        left = max(0, status.data_total - status.data_done)
        return done / max(1, self._to_write + status.written + left)

    def _limit_now(self) -> tuple[str, float]:
        first, last = (point.usage for point in self.history.recent())
        if not tells(first, last):
            return "", 0.0
        how_busy = shares(first, last, self._capturing)
        limit = limiting(how_busy)
        return limit, how_busy[limit]

    # --- what it came to ---

    @property
    def limited_by(self) -> str:
        """What limited most of the time; empty before that can be told."""
        return self.bottlenecks.limit

    def limits(self) -> dict[str, float]:
        """For each limit the share of the time for which it was the one."""
        found = self.bottlenecks.shares()
        return {name: round(found[name], 3) for name in LIMITS if name in found}

    def verdict(self, around: Circumstances) -> dict[str, object] | None:
        """What limited the run, how busy that was meanwhile, and a sentence of advice; None when it was over before that could be told."""
        limit = self.limited_by
        if not limit:
            return None
        how_busy = self.bottlenecks.busy()
        advice = advise(limit, how_busy, self._measured(around, limit))
        return {"limit": limit, "share": round(how_busy[limit], 3), "advice": advice}

    def _measured(self, around: Circumstances, limit: str) -> Circumstances:
        """Complete the circumstances by what was measured."""
        status = self.status
        if status is None:
            return around
        first, last = self.history.streaming()
        done, stage = {SOURCE_READ: (status.done, "read"), TARGET_READ: (status.scanned, "read")}.get(
            limit, (status.written, "write")
        )
        return replace(
            around,
            wire_rate=(last.wire - first.wire) / max(last.at - first.at, 1e-9),
            disk_rate=done / max(busy(status.stages, stage), 1e-9),
            level=status.level,
            workers=status.workers,
        )
