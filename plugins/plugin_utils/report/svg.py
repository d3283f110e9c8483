# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's plots, as SVG that is part of a page: its colours come from the page's style.

Texts keep their size at every width: only the curves are stretched, in an SVG of their own inside of the plot.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import COMPARING, STREAMING, VERIFYING
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable_lines
from ansible_collections.fleet.imaging.plugins.module_utils.quantities import clock

from .rates import Span
from .text import percent, rate

WIDTH, HEIGHT = 1000, 500
"""The size of a curve in its own units."""

MB = 1e6

COLOURS = 7
"""How many limits have a colour of their own."""

STEPS_OF_TIME = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)

STYLES = {STREAMING: "streaming", VERIFYING: "verifying", COMPARING: "verifying"}
"""Classes of the phases' curves, one for writing and one for reading; all other phases share one."""


def escape(text: str) -> str:
    """A text from anywhere as the content of an element or of an attribute."""
    return html.escape(printable_lines(text))


def style_of(phase: str) -> str:
    """The class of a phase's curves."""
    return STYLES.get(phase, "other")


def highest(spans: Iterable[Span]) -> float:
    """The highest rate, where what happens at one time is stacked; bytes per second."""
    at: dict[float, float] = {}
    for span in spans:
        at[span.start] = at.get(span.start, 0.0) + span.rate
    return max(at.values(), default=0.0)


def scale(plots: Sequence[list[Span]]) -> float:
    """Where the axis of these plots should end, in bytes per second.

    A disk is often read back so much faster than it was written that there would be nothing to see of the writing: then the axis is
    made for the writing, and what the reading came to is written at its upper edge.
    """
    everything = max(map(highest, plots), default=0.0)
    writing = max((highest(span for span in spans if span.phase != VERIFYING) for spans in plots), default=0.0)
    return 1.2 * writing if 0 < writing < everything / 2 else everything


def throughput_plot(title: str, spans: list[Span], seconds: float, top: float, ticks: int = 4) -> str:
    """Throughput over time. ``seconds`` and ``top`` (bytes per second) are where the axes end, so that plots can be compared."""
    steps, end = _steps(max(top / MB, 1e-3), 3)
    seconds = max(seconds, max((span.end for span in spans), default=0.0), 1e-3)
    parts = [f'<svg class="plot" role="img"><title>{escape(title)}</title>']
    for value in steps:
        y = f"{100 - 100 * value / end:.4g}%"
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="-6" y="{y}" dy=".32em" text-anchor="end">{value:g}</text>')
    parts.append(f'<svg width="100%" height="100%" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">')
    parts += _curves(spans, seconds, end * MB)
    parts.append("</svg>")
    parts.append('<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>')
    for value in _times(seconds, ticks):
        x = f"{100 * value / seconds:.4g}%"
        parts.append(f'<text x="{x}" y="100%" dy="1.5em" text-anchor="middle">{_clock(value, seconds)}</text>')
    parts += _beyond(spans, seconds, end * MB)
    parts.append('<text class="unit" x="-6" y="0" dy="-1em" text-anchor="end">MB/s</text>')
    parts.append(f'<text class="unit" x="100%" y="100%" dy="2.8em" text-anchor="end">{_unit(seconds)}</text></svg>')
    return "".join(parts)


def _beyond(spans: list[Span], seconds: float, top: float) -> list[str]:
    """What the highest rate is, at its place, when it lies beyond the axis."""
    peak = highest(spans)
    if peak <= top:
        return []
    fastest = max(spans, key=lambda span: span.rate)
    x = 100 * (fastest.start + fastest.end) / 2 / seconds
    anchor = "start" if x < 25 else "end" if x > 75 else "middle"
    return [f'<text class="beyond" x="{x:.4g}%" y="0" dy="-.5em" text-anchor="{anchor}">up to {rate(peak)}</text>']


def _curves(spans: list[Span], seconds: float, top: float) -> list[str]:
    """Areas, one for each stretch of one phase; what happens at one time is stacked."""
    base: dict[float, float] = {}
    paths = []
    for stretch in _stretches(spans):
        upper, lower = [], []
        for span in stretch:
            bottom = base.get(span.start, 0.0)
            base[span.start] = bottom + span.rate
            left, right = (round(WIDTH * edge / seconds) for edge in (span.start, span.end))
            low, high = (round(HEIGHT * (1 - min(rate / top, 1.0))) for rate in (bottom, bottom + span.rate))
            upper.append(f"V{high}H{right}")
            lower.append(f"V{low}H{left}")
        first = round(WIDTH * stretch[0].start / seconds)
        path = f"M{first},{lower[0].split('H')[0][1:]}{''.join(upper)}{''.join(reversed(lower))}Z"
        paths.append(f'<path class="{style_of(stretch[0].phase)}" d="{path}"/>')
    return paths


def _stretches(spans: list[Span]) -> list[list[Span]]:
    """Spans of one phase that follow upon each other, together; those in which nothing happened are left out."""
    result: list[list[Span]] = []
    for span in spans:
        if not span.size:
            continue
        last = result[-1][-1] if result else None
        if last is not None and last.phase == span.phase and abs(last.end - span.start) < 1e-6:
            result[-1].append(span)
        else:
            result.append([span])
    return result


def limits_bar(shares: Mapping[str, float], known: Sequence[str]) -> str:
    """Shares of the time as one bar; the words go beside it. The limits' colours go by their places among the known ones."""
    words = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    parts = [
        f'<svg class="bar" role="img" viewBox="0 0 {WIDTH} 10" preserveAspectRatio="none"><title>{escape(f"Limited by {words}")}</title>'
    ]
    left = 0.0
    for position, (name, share) in enumerate(shares.items()):
        width = WIDTH * share
        gap = 0 if position == len(shares) - 1 else min(4.0, width / 2)
        parts.append(f'<rect class="{limit_class(name, known)}" x="{left:.1f}" width="{width - gap:.1f}" height="10"/>')
        left += width
    return "".join([*parts, "</svg>"])


def limit_class(name: str, known: Sequence[str]) -> str:
    """The class of a limit: the first ones have a colour each."""
    return f"limit-{min(known.index(name), COLOURS) if name in known else COLOURS}"


def _steps(top: float, most: int) -> tuple[list[float], float]:
    """Round values from 0 to at least ``top``, and the last one of them."""
    power = 10.0**-6
    while True:
        for factor in (1, 2, 2.5, 5):
            step = factor * power
            if step * most >= top:
                count = next(count for count in range(1, most + 1) if step * count >= top)
                return [round(step * place, 9) for place in range(count + 1)], step * count
        power *= 10


def _times(seconds: float, most: int) -> list[float]:
    """Round times from 0 to at most ``seconds``."""
    if seconds < 1:
        return [0.0, seconds]
    step = next((step for step in STEPS_OF_TIME if seconds / step <= most), 86400 * int(seconds / 86400 / most + 1))
    return [float(step * place) for place in range(int(seconds / step) + 1)]


def _clock(value: float, seconds: float) -> str:
    if seconds < 60:
        return f"{value:.2g}" if value < 1 else f"{value:.0f}"
    return clock(value if seconds < 3600 else value / 60)


def _unit(seconds: float) -> str:
    return "seconds" if seconds < 60 else "minutes:seconds" if seconds < 3600 else "hours:minutes"
