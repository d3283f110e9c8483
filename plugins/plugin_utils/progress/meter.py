# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluates one transfer's reports: its rate, the time left, and the limit, now and over the whole run."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from ...module_utils.engine.status import COMPARING, PHASES, STREAMING, VERIFYING, Status
from ...module_utils.engine.stopwatch import Stopwatches
from ..times import rfc3339
from .bottlenecks import Bottlenecks
from .history import History, Point, Sample
from .limits import (
    LIMITS,
    SOURCE_READ,
    STORE,
    STORE_SERVER,
    TARGET_READ,
    AdviceContext,
    Usage,
    advise,
    is_conclusive,
    limiting,
    shares,
)
from .line import ProgressEvent
from .time_left import TimeLeft, busy


class Meter:
    """Takes the laptop's reports and the measurements of this machine, about once a second.

    ``frames`` is the maximum number of bytes that a restore sends; for a capture it is unknown. ``wire`` returns how many bytes were sent.
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
        """The time at which the transfer began."""
        self.status: Status | None = None
        self.history = History()
        self.time_left = TimeLeft(self.history, capturing, frames)
        self.bottlenecks = Bottlenecks()
        self._base: Point | None = None
        """The end of the time that was charged to a limit."""
        self._offset: float | None = None
        """Offset: this machine's monotonic time minus the laptop's elapsed seconds."""
        self._to_write = 0
        self._lock = threading.Lock()

    def update(self, report: bytes) -> None:
        """Take a report; raises ImagingError when it is not valid."""
        self._take(Status.unpack(report), self._clock())

    def _take(self, status: Status, now: float) -> None:
        with self._lock:
            self.status = status
            point = self._point(status, now)
            self.history.add(point)
            self._charge(point)

    @property
    def mark(self) -> int:
        """A number that changes when the transfer makes progress."""
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
            seconds=status.seconds,
            stages=status.stages,
            cpu=status.cpu,
            controller_seconds=now,
            controller_stages=self._watches.stages(),
            controller_cpu=time.process_time(),
            workers=max(1, status.workers),
            processors=max(1, status.processors),
        )
        # The laptop's clock is used because reports may be delayed on their way.
        at = self._offset + status.seconds
        return Point(
            at=at, phase=status.phase, done=status.done, data_done=status.data_done, wire=self._wire(), usage=usage
        )

    def _charge(self, point: Point) -> None:
        """Charge the time since the last charge to its limit."""
        if self._base is None:
            self._base = point
            return
        before, after = self._base.usage, point.usage
        if is_conclusive(before, after):
            self.bottlenecks.charge(shares(before, after, self._capturing), after.seconds - before.seconds)
            self._base = point

    def close(self, report: str) -> None:
        """Take the last report, and charge the time that the store took alone after the laptop was done; raises ImagingError."""
        status = Status.unpack(report.encode())
        # It arrives with the module's result, some time after it was made.
        made = self._clock() if self._offset is None else self._offset + status.seconds
        heard = self.history.last.usage.controller_seconds if self.history else made
        self._take(status, max(made, heard))
        for stage, limit in (("finish", STORE), ("upload", STORE_SERVER)):
            seconds = busy(self._watches.stages(), stage)
            if seconds:
                self.bottlenecks.charge({limit: 1.0}, seconds)

    def stages(self) -> dict[str, Mapping[str, float]]:
        """Return the busy and waiting times of both ends in the form of a result."""
        laptop = self.status.stages if self.status else {}
        return {**laptop, **{f"controller {name}": times for name, times in self._watches.stages().items()}}

    # --- what is shown ---

    def reading(self, host: str) -> ProgressEvent | None:
        """Return the current progress of a laptop; None before the first report. May be called by any thread; another one takes the reports."""
        with self._lock:
            return self._reading(host, self.status) if self.status else None

    def _reading(self, host: str, status: Status) -> ProgressEvent:
        limit, share = self._limit_now()
        return ProgressEvent(
            host=host,
            state=status.phase,
            done=min(status.done, status.total),
            total=status.total,
            whole=self._whole(status),
            now=self.history.rate_now(),
            mean=self.history.rate_mean(),
            eta=self.time_left.seconds(status, self.limited_by),
            limit=limit,
            share=share,
        )

    def _whole(self, status: Status) -> float:
        """Return the completed share of all phases: writing and reading back count by their bytes; phases in between count as the end of writing."""
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
        if not is_conclusive(first, last):
            return "", 0.0
        how_busy = shares(first, last, self._capturing)
        limit = limiting(how_busy)
        return limit, how_busy[limit]

    # --- what it came to ---

    @property
    def limited_by(self) -> str:
        """The limit of most of the time; empty as long as it is unknown."""
        return self.bottlenecks.limit

    def limits(self) -> dict[str, float]:
        """Return for which share of the time each was the limit."""
        found = self.bottlenecks.shares()
        return {name: round(found[name], 3) for name in LIMITS if name in found}

    def verdict(self, context: AdviceContext) -> dict[str, object] | None:
        """What limited the run, as ``limits.advise`` has it; None when it was over before that could be told."""
        limit = self.limited_by
        if not limit:
            return None
        return advise(limit, self.bottlenecks.busy(), self._measured(context, limit))

    def _measured(self, context: AdviceContext, limit: str) -> AdviceContext:
        """Complete the context by what was measured."""
        status = self.status
        if status is None:
            return context
        done, stage = {SOURCE_READ: (status.done, "read"), TARGET_READ: (status.scanned, "read")}.get(
            limit, (status.written, "write")
        )
        return replace(
            context,
            wire_rate=self.history.wire_rate(),
            disk_rate=done / max(busy(status.stages, stage), 1e-9),
            level=status.level,
            workers=status.workers,
        )
