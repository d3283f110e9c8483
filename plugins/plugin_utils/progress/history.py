# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one transfer's reports said, as points in time, and how fast it was between them. As many points are kept as are needed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import STREAMING

from .limits import Usage

NOW = 5.0
"""Seconds over which the current rate and the current limit are taken."""

LEAST_TIME = 1.0
"""Seconds from which a rate can be told."""

MOST_RECENT = 64
"""How many reports the current rate is taken from at the most; an honest laptop makes one a second."""

MOST_POINTS = 120
"""How many points a timeline has at the most."""

Sample = tuple[float, int, str]


@dataclass(frozen=True)
class Point:
    """What was known at one moment. Sizes are in bytes."""

    at: float
    phase: str
    done: int
    data_done: int
    wire: int
    usage: Usage


class History:
    """The points of one transfer."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._recent: deque[Point] = deque(maxlen=MOST_RECENT)
        self.timeline: list[Sample] = []
        """Seconds since the laptop began, bytes done, phase. By the laptop's clock, as reports may be late."""

    def add(self, point: Point) -> None:
        """Note one more."""
        self._points.append(point)
        if len(self._points) > 4 * MOST_POINTS:
            del self._points[1:-MOST_POINTS:2]
        self._recent.append(point)
        while len(self._recent) > 2 and point.at - self._recent[1].at >= NOW:
            self._recent.popleft()
        self.timeline.append((point.usage.seconds, point.done, point.phase))
        if len(self.timeline) >= 2 * MOST_POINTS:
            thinned = _thinned(self.timeline)
            # A laptop that keeps reporting a new phase must not make the timeline longer by that.
            self.timeline = thinned if len(thinned) < 2 * MOST_POINTS else thinned[::2]

    def __bool__(self) -> bool:
        return bool(self._points)

    @property
    def last(self) -> Point:
        """The newest one; there must be one."""
        return self._points[-1]

    def of_phase(self) -> list[Point]:
        """The points of the phase that the last one is of."""
        return [point for point in self._points if point.phase == self.last.phase]

    def recent(self) -> tuple[Point, Point]:
        """From when to when is now, in the last phase."""
        return next(point for point in self._recent if point.phase == self.last.phase), self.last

    def streaming(self) -> tuple[Point, Point]:
        """The first and the last point of the streaming; of a transfer without one the last point."""
        points = [point for point in self._points if point.phase == STREAMING] or self._points[-1:]
        return points[0], points[-1]

    def rate_now(self) -> float | None:
        """Bytes of the phase done a second, at present; None when that can't be told yet."""
        first = self._recent[0]
        return self._rate(first) if first.phase == self.last.phase else self.rate_mean()

    def rate_mean(self) -> float | None:
        """The same since the phase began."""
        return self._rate(self.of_phase()[0])

    def _rate(self, since: Point) -> float | None:
        seconds = self.last.at - since.at
        return max(0.0, (self.last.done - since.done) / seconds) if seconds >= LEAST_TIME else None

    def settled(self, least: float) -> Point | None:
        """From when on what was done tells how the phase goes on: its last half, or so many seconds if that is more."""
        points, last = self.of_phase(), self.last
        window = max(least, (last.at - points[0].at) / 2)
        since = next(point for point in points if last.at - point.at <= window)
        return since if last.at - since.at >= LEAST_TIME else None


def _thinned(timeline: list[Sample]) -> list[Sample]:
    """Every other point, but all at which a phase begins or ends."""
    last = len(timeline) - 1
    return [
        point
        for place, point in enumerate(timeline)
        if place % 2 == 0 or place == last or timeline[place - 1][2] != point[2] or timeline[place + 1][2] != point[2]
    ]
