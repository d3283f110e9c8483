# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plots of a report, as SVG. Texts keep their size at every width: only the curves are stretched, in an inner SVG."""

import html
from collections.abc import Iterable

from ...module_utils.engine.status import COMPARING, STREAMING, VERIFYING
from ...module_utils.printable import printable_lines
from ...module_utils.quantities import clock
from .rates import Span
from .text import rate

WIDTH, HEIGHT = 1000, 500
"""The size of a curve in its own units."""

PARTS = 4
"""The number of parts into which the time axis is divided; the rate axis has half of them."""

STYLES = {STREAMING: "streaming", VERIFYING: "verifying", COMPARING: "verifying"}
"""The classes of the phases' curves: one for writing and one for reading. All other phases share one."""


def style_of(phase: str) -> str:
    """Return the class of a phase's curves."""
    return STYLES.get(phase, "other")


def highest(spans: Iterable[Span]) -> float:
    """Return the highest rate in bytes per second, where simultaneous intervals add up."""
    at: dict[float, float] = {}
    for span in spans:
        at[span.start] = at.get(span.start, 0.0) + span.rate
    return max(at.values(), default=0.0)


def throughput_plot(title: str, spans: list[Span], seconds: float, top: float) -> str:
    """Return a plot of throughput over time. Its axes end at ``seconds`` and ``top`` (bytes per second), so that plots can be compared."""
    seconds, top = max(seconds, 1e-3), max(top, 1.0)
    parts = [f'<svg class="plot" role="img"><title>{html.escape(printable_lines(title))}</title>']
    for part in range(PARTS // 2 + 1):
        value = 2 * part / PARTS
        y = f"{100 - 100 * value:g}%"
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="-6" y="{y}" dy=".32em" text-anchor="end">{rate(top * value)}</text>')
    parts.append(f'<svg width="100%" height="100%" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">')
    parts += _curves(spans, seconds, top)
    parts.append('</svg><line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>')
    for part in range(PARTS + 1):
        x = f"{100 * part / PARTS:g}%"
        parts.append(f'<text x="{x}" y="100%" dy="1.5em" text-anchor="middle">{clock(seconds * part / PARTS)}</text>')
    return "".join([*parts, "</svg>"])


def _curves(spans: list[Span], seconds: float, top: float) -> list[str]:
    """Return an area for each stretch of one phase; simultaneous intervals are stacked."""
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
    """Return the adjacent intervals of one phase together, without those in which nothing happened."""
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
