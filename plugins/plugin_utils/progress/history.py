# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of one transfer's reports, as points in time, and the rates between them. Only the necessary points are kept."""

from collections import deque
from dataclasses import dataclass

from ...module_utils.engine.status import STREAMING
from .limits import Usage

NOW = 5.0
"""Seconds over which the current rate and the current limit are taken."""

MIN_TIME = 1.0
"""Minimum seconds from which a rate can be calculated."""

MAX_RECENT = 64
"""Maximum number of reports for the current rate; an honest laptop sends one a second."""

MAX_POINTS = 120
"""Maximum number of points of a timeline."""

Sample = tuple[float, int, str]


@dataclass(frozen=True)
class Point:
    """The state of a transfer at one moment. Sizes are in bytes."""

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
        self._recent: deque[Point] = deque(maxlen=MAX_RECENT)
        self.timeline: list[Sample] = []
        """Seconds since the laptop began, bytes done, phase. The laptop's clock is used because reports may be late."""

    def add(self, point: Point) -> None:
        """Add a point."""
        self._points.append(point)
        if len(self._points) > 4 * MAX_POINTS:
            del self._points[1:-MAX_POINTS:2]
        self._recent.append(point)
        while len(self._recent) > 2 and point.at - self._recent[1].at >= NOW:
            self._recent.popleft()
        self.timeline.append((point.usage.seconds, point.done, point.phase))
        if len(self.timeline) >= 2 * MAX_POINTS:
            thinned = _thinned(self.timeline)
            # A laptop that reports ever new phases must not make the timeline longer.
            self.timeline = thinned if len(thinned) < 2 * MAX_POINTS else thinned[::2]

    def __bool__(self) -> bool:
        return bool(self._points)

    @property
    def last(self) -> Point:
        """The latest point; there must be one."""
        return self._points[-1]

    def of_phase(self) -> list[Point]:
        """Return the points of the current phase."""
        return [point for point in self._points if point.phase == self.last.phase]

    def recent(self) -> tuple[Point, Point]:
        """Return the first and the last point of the latest ``NOW`` seconds of the current phase."""
        return next(point for point in self._recent if point.phase == self.last.phase), self.last

    def streaming(self) -> tuple[Point, Point]:
        """Return the first and the last point of the streaming; without streaming, the last point twice."""
        points = [point for point in self._points if point.phase == STREAMING] or self._points[-1:]
        return points[0], points[-1]

    def wire_rate(self) -> float:
        """Return the bytes a second that went over the link while streaming."""
        first, last = self.streaming()
        return (last.wire - first.wire) / max(last.at - first.at, 1e-3)

    def rate_now(self) -> float | None:
        """Return the current rate in bytes of the phase a second; None when it is not known yet."""
        first = self._recent[0]
        return self._rate(first) if first.phase == self.last.phase else self.rate_mean()

    def rate_mean(self) -> float | None:
        """Return the mean rate since the phase began; None when it is not known yet."""
        return self._rate(self.of_phase()[0])

    def _rate(self, since: Point) -> float | None:
        seconds = self.last.at - since.at
        return max(0.0, (self.last.done - since.done) / seconds) if seconds >= MIN_TIME else None

    def settled(self, least: float) -> Point | None:
        """Return the point since which the rate of the phase counts as settled: its last half, or ``least`` seconds if that is more."""
        points, last = self.of_phase(), self.last
        window = max(least, (last.at - points[0].at) / 2)
        since = next(point for point in points if last.at - point.at <= window)
        return since if last.at - since.at >= MIN_TIME else None


def _thinned(timeline: list[Sample]) -> list[Sample]:
    """Return every other point, and all points at which a phase begins or ends."""
    last = len(timeline) - 1
    return [
        point
        for place, point in enumerate(timeline)
        if place % 2 == 0 or place == last or timeline[place - 1][2] != point[2] or timeline[place + 1][2] != point[2]
    ]
