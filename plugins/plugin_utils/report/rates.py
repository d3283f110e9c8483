# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples of how far a transfer was to how fast it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import FLUSHING, STREAMING, VERIFYING, ZEROING
from ansible_collections.fleet.imaging.plugins.module_utils.quantities import number

POINTS = 120
"""How many points a plot has at the most, but for the phases' ends."""


MIN_INTERVAL = 0.1
"""Seconds from which a rate can be told; a laptop reports about once a second."""

COUNTS_ANEW = (ZEROING, VERIFYING)
"""Phases that count their bytes from 0. The flushing between them repeats those of the streaming."""

Sample = tuple[float, int, str]
"""Seconds since the beginning, bytes done, phase."""


@dataclass(frozen=True)
class Span:
    """A part of a transfer in which as good as nothing is known but how much it got on."""

    start: float
    end: float
    size: float
    phase: str

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / (self.end - self.start)


def samples(timeline: Any, most: int = POINTS) -> list[Sample]:
    """The samples of a result's timeline that can be read, in order of time, and about so many of them at the most."""
    found: list[Sample] = []
    for entry in timeline if isinstance(timeline, list | tuple) else []:
        if not isinstance(entry, list | tuple) or len(entry) < 2:
            continue
        seconds, done = number(entry[0]), number(entry[1])
        if seconds is not None and done is not None and (not found or seconds >= found[-1][0]):
            found.append((seconds, int(done), str(entry[2]) if len(entry) > 2 else STREAMING))
    return _decimated(found, most)


def _decimated(found: list[Sample], most: int) -> list[Sample]:
    """Every sample that is the last one of its phase, and of the others so many that they lie evenly."""
    if len(found) <= most:
        return found
    step = (found[-1][0] - found[0][0]) / most
    kept = [found[0]]
    for sample, following in zip(found[1:], [*found[2:], None], strict=True):
        is_last = following is None or following[2] != sample[2]
        if is_last or sample[0] - kept[-1][0] >= step:
            kept.append(sample)
    # Phases that change with every sample are not worth their ends.
    return kept if len(kept) <= 2 * most else kept[:: -(-len(kept) // most)]


def spans(timeline: Iterable[Sample]) -> list[Span]:
    """What was done between each sample and the next. What was before the transfer, its module being started, is left out.

    Samples that came at almost the same time were late, and count as the last one of them. A phase that is over as fast has no rate.
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
    """The samples without those of the same phase that are followed by another one at once."""
    result: list[Sample] = []
    for sample in timeline:
        if result and result[-1][2] == sample[2] and sample[0] - result[-1][0] < MIN_INTERVAL:
            result.pop()
        result.append(sample)
    return result


def _origin(settled: list[Sample]) -> float:
    """Seconds after which a transfer has begun: at its first sample or, when that has bytes already, as long before as the next is after."""
    if not settled:
        return 0.0
    seconds, done, phase = settled[0]
    if not done:
        return seconds
    following = settled[1] if len(settled) > 1 else None
    return max(0.0, 2 * seconds - following[0]) if following and following[2] == phase else 0.0


def shifted(of_one: Iterable[Span], seconds: float) -> list[Span]:
    """The same, so much later."""
    return [Span(span.start + seconds, span.end + seconds, span.size, span.phase) for span in of_one]


def summed(transfers: Iterable[tuple[float, list[Span]]]) -> list[Span]:
    """The sum over transfers, each with the seconds after which it began: for every phase, spans of one length side by side."""
    everything = [span for begin, of_one in transfers for span in shifted(of_one, begin)]
    if not everything:
        return []
    end = max(span.end for span in everything)
    width = end / POINTS
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
