# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The speed of transfers over time, from the samples of their progress."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...module_utils.engine.status import FLUSHING, STREAMING, VERIFYING, ZEROING
from ...module_utils.quantities import number

POINTS = 120
"""The number of intervals of a plot."""

MIN_INTERVAL = 0.1
"""Minimum seconds between two samples from which a rate is calculated; a laptop reports about once a second."""

COUNTS_ANEW = (ZEROING, VERIFYING)
"""The phases that count their bytes from 0. Flushing, between them, repeats the count of streaming."""

Sample = tuple[float, int, str]
"""Seconds since the beginning, bytes done, phase."""


@dataclass(frozen=True)
class Span:
    """An interval of a transfer, in seconds since the beginning, and the bytes that were done in it."""

    start: float
    end: float
    size: float
    phase: str

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / (self.end - self.start)


def samples(timeline: Any) -> list[Sample]:
    """Return the valid samples of a result's timeline, in order of time; ``progress.history`` limits their number."""
    found: list[Sample] = []
    for entry in timeline if isinstance(timeline, list | tuple) else []:
        if not isinstance(entry, list | tuple) or len(entry) < 2:
            continue
        seconds, done = number(entry[0]), number(entry[1])
        if seconds is not None and done is not None and (not found or seconds >= found[-1][0]):
            found.append((seconds, int(done), str(entry[2]) if len(entry) > 2 else STREAMING))
    return found


def spans(timeline: Iterable[Sample]) -> list[Span]:
    """Return the intervals between the samples, without the time before the transfer, in which the module was started.

    Of samples of one phase that arrived at almost the same time, because they were late, only the last one counts. A phase that is over as
    fast has no rate.
    """
    result: list[Span] = []
    settled = _settled(timeline)
    before: Sample = (_origin(settled), 0, "")
    for sample in settled:
        seconds, done, phase = sample
        anew = phase != before[2] and phase in COUNTS_ANEW
        if seconds - before[0] >= (MIN_INTERVAL if phase != before[2] and result else 1e-6):
            size = 0 if phase == FLUSHING else done if anew or done < before[1] else done - before[1]
            result.append(Span(before[0], seconds, size, phase))
        before = sample
    return result


def _settled(timeline: Iterable[Sample]) -> list[Sample]:
    """Return the samples without those that are followed almost at once by another one of the same phase."""
    result: list[Sample] = []
    for sample in timeline:
        if result and result[-1][2] == sample[2] and sample[0] - result[-1][0] < MIN_INTERVAL:
            result.pop()
        result.append(sample)
    return result


def _origin(settled: list[Sample]) -> float:
    """Return when a transfer began: at its first sample, or one interval earlier if that one has bytes already."""
    if not settled:
        return 0.0
    seconds, done, phase = settled[0]
    if not done:
        return seconds
    following = settled[1] if len(settled) > 1 else None
    return max(0.0, 2 * seconds - following[0]) if following and following[2] == phase else 0.0


def shifted(of_one: Iterable[Span], seconds: float) -> list[Span]:
    """Return the intervals, so many seconds later."""
    return [Span(span.start + seconds, span.end + seconds, span.size, span.phase) for span in of_one]


def summed(everything: list[Span]) -> list[Span]:
    """Return the sum over transfers whose intervals share one clock, as intervals of equal length for each phase."""
    width = max((span.end for span in everything), default=0.0) / POINTS
    sums: dict[str, list[float]] = {}
    for span in everything:
        bins = sums.setdefault(span.phase, [0.0] * POINTS)
        first, last = (min(int(edge / width), POINTS - 1) for edge in (span.start, span.end))
        for position in range(first, last + 1):
            common = min(span.end, (position + 1) * width) - max(span.start, position * width)
            bins[position] += span.rate * max(common, 0.0)
    return [
        Span(position * width, (position + 1) * width, size, phase)
        for phase, bins in sums.items()
        for position, size in enumerate(bins)
    ]
