# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one transfer's reports come to: how fast it is, when it will be done, and what limits it, now and over the run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import (
    COMPARING,
    PHASES,
    STREAMING,
    VERIFYING,
    Stages,
    Status,
)
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import BUSY, Stopwatches
from ansible_collections.fleet.imaging.plugins.plugin_utils.times import rfc3339

from .limits import (
    CONTROLLER_CPU,
    LIMITS,
    NETWORK,
    SOURCE_READ,
    STORE,
    TARGET_READ,
    Circumstances,
    Usage,
    advise,
    limiting,
    shares,
    tells,
)

NOW = 5.0
"""Seconds over which the current rate and the current limit are taken."""

SETTLED = 30.0
"""Seconds. The rate that a forecast goes by is that of the last half of the run, or of these last ones if that is more."""

ENOUGH_SCANNED = 32 << 20
"""Bytes that must have been read for comparison, that the read-back's rate is told from them."""

MOST_RECENT = 64
"""How many reports the current rate is taken from at the most; an honest laptop makes one a second."""

MOST_POINTS = 120
"""How many points a timeline has at the most."""

BY_FRAMES = (NETWORK, STORE, CONTROLLER_CPU)
"""What takes its time by the bytes that are sent, and not by those that they decompress to."""


@dataclass(frozen=True)
class _Point:
    """What was known at one moment."""

    at: float
    phase: str
    done: int
    data_done: int
    wire: int
    usage: Usage


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
        self._frames = frames
        self._clock = clock
        self.began = clock()
        self.started = rfc3339()
        """When it began."""
        self.status: Status | None = None
        self._points: list[_Point] = []
        self._recent: deque[_Point] = deque(maxlen=MOST_RECENT)
        self._base: _Point | None = None
        self._limited: dict[str, float] = {}
        self._busy: dict[str, dict[str, float]] = {}
        self._offset: float | None = None
        """What this machine's clock is ahead of the laptop's seconds."""
        self._to_write = 0
        self._lock = threading.Lock()
        self.timeline: list[tuple[float, int, str]] = []
        """Seconds since the laptop began, bytes done, phase. By the laptop's clock, as reports may be late."""

    def hear(self, report: bytes) -> None:
        """Take a report; raises ImagingError when it is none."""
        self._take(Status.unpack(report), self._clock())

    def _take(self, status: Status, now: float) -> None:
        with self._lock:
            self.status = status
            self._note(status, now)

    @property
    def mark(self) -> int:
        """A number that changes when the transfer gets on."""
        status = self.status
        return (PHASES.index(status.phase) << 62) + status.done if status else -1

    def _note(self, status: Status, now: float) -> None:
        if self._offset is None:
            self._offset = now - status.seconds
        # By the laptop's clock, because reports may wait for one another on their way.
        at = self._offset + status.seconds
        there = Usage(
            status.seconds,
            status.stages,
            status.cpu,
            now,
            self._watches.stages(),
            time.process_time(),
            max(1, status.workers),
            max(1, status.processors),
        )
        point = _Point(at, status.phase, status.done, status.data_done, self._wire(), there)
        self._points.append(point)
        if len(self._points) > 4 * MOST_POINTS:
            del self._points[1:-MOST_POINTS:2]
        self._recent.append(point)
        while len(self._recent) > 2 and at - self._recent[1].at >= NOW:
            self._recent.popleft()
        self._tell_limit(point)
        self.timeline.append((status.seconds, status.done, status.phase))
        if len(self.timeline) >= 2 * MOST_POINTS:
            thinned = _thinned(self.timeline)
            # A laptop that keeps reporting a new phase must not make the timeline longer by that.
            self.timeline = thinned if len(thinned) < 2 * MOST_POINTS else thinned[::2]

    def _tell_limit(self, point: _Point) -> None:
        """Charge the time since the last one to what limited it."""
        if self._base is None:
            self._base = point
            return
        before, after = self._base.usage, point.usage
        if not tells(before, after):
            return
        seconds = after.seconds - before.seconds
        busy = shares(before, after, self._capturing)
        limit = limiting(busy)
        self._limited[limit] = self._limited.get(limit, 0.0) + seconds
        sums = self._busy.setdefault(limit, dict.fromkeys(busy, 0.0))
        for name, share in busy.items():
            sums[name] += share * seconds
        self._base = point

    def close(self, report: str) -> None:
        """Take the last report, and charge what the store's disk took by itself, once the laptop was done; raises ImagingError."""
        status = Status.unpack(report.encode())
        # It comes with the module's result, some time after it was made.
        made = self._clock() if self._offset is None else self._offset + status.seconds
        heard = self._points[-1].usage.controller_seconds if self._points else made
        self._take(status, max(made, heard))
        seconds = _busy(self._watches.stages(), "finish")
        if seconds:
            sums = self._busy.setdefault(STORE, {})
            sums[STORE] = sums.get(STORE, 0.0) + seconds
            self._limited[STORE] = self._limited.get(STORE, 0.0) + seconds

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
            self._rate(self._recent[0] if self._recent else None),
            self._rate(self._first_of_phase()),
            self._eta(status),
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

    def _first_of_phase(self) -> _Point | None:
        status = self.status
        return next((point for point in self._points if status and point.phase == status.phase), None)

    def _rate(self, since: _Point | None) -> float | None:
        """Bytes of the phase done a second since a point."""
        last = self._points[-1]
        if since is None or since.phase != last.phase:
            since = self._first_of_phase()
        if since is None or last.at - since.at < LEAST_TIME:
            return None
        return max(0.0, (last.done - since.done) / (last.at - since.at))

    def _limit_now(self) -> tuple[str, float]:
        end = self._recent[-1]
        first, last = next(point for point in self._recent if point.phase == end.phase).usage, end.usage
        if not tells(first, last):
            return "", 0.0
        busy = shares(first, last, self._capturing)
        limit = limiting(busy)
        return limit, busy[limit]

    # --- when it will be done ---

    def _eta(self, status: Status) -> float | None:
        last = self._points[-1]
        since = self._settled_since(last)
        if since is None:
            return None
        seconds = last.at - since.at
        if status.phase == STREAMING:
            eta = self._streaming_eta(status, since, last, seconds)
            if eta is None or self._capturing:
                return eta
            left = max(0, status.data_total - status.data_done)
            return eta + self._read_back(status, status.written + left)
        rate = (last.done - since.done) / seconds
        if rate <= 0:
            return None
        after = 0.0 if status.phase in (COMPARING, VERIFYING) else self._read_back(status, status.written)
        return (status.total - status.done) / rate + after

    def _settled_since(self, last: _Point) -> _Point | None:
        """From when on what was done tells how it will go on."""
        points = [point for point in self._points if point.phase == last.phase]
        age = last.at - points[0].at
        window = max(SETTLED, age / 2)
        since = next(point for point in points if last.at - point.at <= window)
        return since if last.at - since.at >= LEAST_TIME else None

    def _streaming_eta(self, status: Status, since: _Point, last: _Point, seconds: float) -> float | None:
        left = max(0, status.data_total - status.data_done)
        if not left:
            return 0.0
        rate = (last.data_done - since.data_done) / seconds
        if rate <= 0:
            return None
        if self._frames is not None and self.limited_by in BY_FRAMES and last.wire > since.wire:
            frames = max(0, self._frames - last.wire)
            # What is equal already is not sent, so no more of the frames is left than of the data.
            frames = min(
                frames,
                int(self._frames * left / max(1, status.data_total)) if status.data_done > status.written else frames,
            )
            return frames * seconds / (last.wire - since.wire)
        return left / rate

    def _read_back(self, status: Status, size: int) -> float:
        """Seconds that reading so many bytes back takes: by the rate of the looks before, or, without any, by that of the writing."""
        read = _busy(status.stages, "read")
        if status.scanned >= ENOUGH_SCANNED and read > 0:
            compare = _busy(status.stages, "compare") / max(1, status.workers)
            return size * max(read, compare) / status.scanned
        write = _busy(status.stages, "write")
        return size * write / status.written if status.written > 0 else 0.0

    # --- what it came to ---

    @property
    def limited_by(self) -> str:
        """What limited most of the time; empty before that can be told."""
        return max(self._limited, key=lambda name: self._limited[name]) if self._limited else ""

    def limits(self) -> dict[str, float]:
        """For each limit the share of the time for which it was the one."""
        whole = sum(self._limited.values())
        return (
            {name: round(self._limited[name] / whole, 3) for name in LIMITS if self._limited.get(name)} if whole else {}
        )

    def verdict(self, around: Circumstances) -> dict[str, object] | None:
        """What limited the run, how busy that was meanwhile, and a sentence of advice; None when it was over before that could be told."""
        limit = self.limited_by
        if not limit:
            return None
        seconds = self._limited[limit]
        busy = {name: total / seconds for name, total in self._busy[limit].items()}
        return {
            "limit": limit,
            "share": round(busy[limit], 3),
            "advice": advise(limit, busy, self._measured(around, limit)),
        }

    def _measured(self, around: Circumstances, limit: str) -> Circumstances:
        """Complete the circumstances by what was measured."""
        status = self.status
        if status is None:
            return around
        streaming = [point for point in self._points if point.phase == STREAMING] or self._points[-1:]
        first, last = streaming[0], streaming[-1]
        seconds = max(last.at - first.at, 1e-9)
        done, stage = {SOURCE_READ: (status.done, "read"), TARGET_READ: (status.scanned, "read")}.get(
            limit, (status.written, "write")
        )
        return replace(
            around,
            wire_rate=(last.wire - first.wire) / seconds,
            disk_rate=done / max(_busy(status.stages, stage), 1e-9),
            level=status.level,
            workers=status.workers,
        )


LEAST_TIME = 1.0
"""Seconds from which a rate can be told."""


def _busy(stages: Stages, name: str) -> float:
    return stages[name][BUSY] if name in stages else 0.0


def _thinned(timeline: list[tuple[float, int, str]]) -> list[tuple[float, int, str]]:
    """Every other point, but all at which a phase begins or ends."""
    last = len(timeline) - 1
    return [
        point
        for place, point in enumerate(timeline)
        if place % 2 == 0 or place == last or timeline[place - 1][2] != point[2] or timeline[place + 1][2] != point[2]
    ]
