# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of who fed whom, as SVG: a column of marks, one for each row, and arrows between them. The page has the names beside it."""

import html
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...module_utils.printable import printable_lines
from .chain import Flow, Row

ROW = 24
"""The height of a row in pixels, in which the page writes the names."""

LANE = 13
"""Pixels between two lanes. A lane is a vertical line left of the marks, for the takers of one row that do not follow it at once."""

MAX_LANES = 7
"""The number of lanes, because a narrow screen has no room for more. The smallest flows that find none are left out."""

MARK, HEAD, BEND, NARROW, WIDE = 4.5, 5, 5, 1.0, 4.0
"""The radius of a mark, the length of an arrow's head, the radius of a bend, and the least and greatest width of a line."""


@dataclass(frozen=True)
class _Arrow:
    """What all laptops of one row took from the machines of another one; None is not known."""

    giver: int
    taker: int
    kind: str
    size: float | None

    @property
    def span(self) -> tuple[int, int]:
        return min(self.giver, self.taker), max(self.giver, self.taker)

    @property
    def is_short(self) -> bool:
        """Whether it needs no lane."""
        return self.taker == self.giver + 1


def chain_picture(title: str, description: str, rows: Sequence[Row], found: Iterable[Flow], bad: Iterable[int]) -> str:
    """Return the picture. ``bad`` are the numbers of the rows whose laptops failed, or hindered others."""
    arrows = _arrows(rows, found)
    lanes = _lanes(arrows)
    x = 2 + LANE * (max(lanes.values(), default=-1) + 1) + MARK
    top = max((arrow.size or 0.0 for arrow in arrows), default=0.0) or 1.0
    width, height = x + MARK + 2, ROW * len(rows)
    parts = [
        f'<svg class="chain" role="img" width="{width:g}" height="{height}" viewBox="0 0 {width:g} {height}">',
        f"<title>{html.escape(printable_lines(title))}</title><desc>{html.escape(printable_lines(description))}</desc>",
    ]
    for arrow in sorted(arrows, key=lambda arrow: arrow.size or 0.0):
        if arrow.is_short or arrow.giver in lanes:
            line = NARROW + (WIDE - NARROW) * ((arrow.size or 0.0) / top) ** 0.5
            parts.append(_drawn(arrow, x, lanes.get(arrow.giver, 0), line))
    marked = frozenset(bad)
    parts += [_mark(row, number, x, number in marked) for number, row in enumerate(rows)]
    return "".join([*parts, "</svg>"])


def _arrows(rows: Sequence[Row], found: Iterable[Flow]) -> list[_Arrow]:
    """Return the flows between different rows."""
    place = {machine: number for number, row in enumerate(rows) for machine in row.machines}
    sizes: dict[tuple[int, int, str], float | None] = {}
    for flow in found:
        key = (place[flow.giver], place[flow.taker], flow.giver.kind)
        if key[0] != key[1]:
            before = sizes.get(key)
            sizes[key] = before if flow.size is None else (before or 0.0) + flow.size
    return [_Arrow(giver=giver, taker=taker, kind=kind, size=size) for (giver, taker, kind), size in sizes.items()]


def _lanes(arrows: Iterable[_Arrow]) -> dict[int, int]:
    """Return the lane of each row that needs one, from the right; the shortest lines are nearest to the marks."""
    of_givers: dict[int, list[_Arrow]] = defaultdict(list)
    for arrow in arrows:
        if not arrow.is_short:
            of_givers[arrow.giver].append(arrow)
    spans = {
        giver: (min(arrow.span[0] for arrow in of_one), max(arrow.span[1] for arrow in of_one))
        for giver, of_one in of_givers.items()
    }
    chosen = sorted(spans, key=lambda giver: -sum(arrow.size or 0.0 for arrow in of_givers[giver]))
    while (found := _in_lanes({giver: spans[giver] for giver in chosen})) is None:
        chosen.pop()
    return found


def _in_lanes(spans: Mapping[int, tuple[int, int]]) -> dict[int, int] | None:
    """Return a lane for each of these lines, so that none overlap; None when there are too few lanes."""
    ends: dict[int, list[tuple[int, int]]] = defaultdict(list)
    result = {}
    for giver, (first, last) in sorted(spans.items(), key=lambda item: (item[1][1] - item[1][0], item)):
        free = (lane for lane in range(MAX_LANES) if all(last < start or end < first for start, end in ends[lane]))
        lane = next(free, None)
        if lane is None:
            return None
        ends[lane].append((first, last))
        result[giver] = lane
    return result


def _middle(row: int) -> float:
    return ROW * (row + 0.5)


def _drawn(arrow: _Arrow, x: float, lane: int, line: float) -> str:
    """Return an arrow: straight down, or out to its lane, along it, and back."""
    start, end = _middle(arrow.giver), _middle(arrow.taker)
    tip = HEAD / 2 + line / 2
    if arrow.is_short:
        end -= MARK + 1
        path = f"M{x:g},{start:g}V{end - HEAD:g}"
        head = f"M{x - tip:g},{end - HEAD:g}H{x + tip:g}L{x:g},{end:g}Z"
    else:
        down = 1 if end > start else -1
        start, end, at = start + 3 * down, end - 3 * down, x - MARK - 4 - LANE * (lane + 0.5)
        right = x - MARK - 1
        path = (
            f"M{x:g},{start:g}H{at + BEND:g}Q{at:g},{start:g} {at:g},{start + BEND * down:g}"
            f"V{end - BEND * down:g}Q{at:g},{end:g} {at + BEND:g},{end:g}H{right - HEAD:g}"
        )
        head = f"M{right - HEAD:g},{end - tip:g}V{end + tip:g}L{right:g},{end:g}Z"
    dashed = ' stroke-dasharray="3 3"' if arrow.size is None else ""
    return (
        f'<path class="flow from-{arrow.kind}" stroke-width="{line:.1f}"{dashed} d="{path}"/>'
        f'<path class="head from-{arrow.kind}" d="{head}"/>'
    )


def _mark(row: Row, number: int, x: float, bad: bool) -> str:
    """Return a dot for a machine, and a longer mark for several."""
    several = len(row.machines) > 1
    reach = ROW / 2 - HEAD if several else MARK
    style = f"mark from-{row.machines[0].kind}{' bad' if bad else ''}{' several' if several else ''}"
    y = _middle(number)
    return f'<rect class="{style}" x="{x - MARK:g}" y="{y - reach:g}" width="{2 * MARK:g}" height="{2 * reach:g}" rx="{MARK:g}"/>'
