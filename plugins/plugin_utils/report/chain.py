# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From which machine each laptop took the image: the flows between machines, and an order in which each laptop follows the one it took from."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ...module_utils.sources.http_image import MIRROR, STORE
from ...module_utils.stream.credentials import CONTROLLER

LAPTOPS = "laptops"
SOURCES = (CONTROLLER, STORE, MIRROR, LAPTOPS)
"""The kinds of machines from which laptops take an image."""

MANY = 40
"""Up to so many laptops have a row each. Of more, those that are alike and follow one another share one."""

FEW_ALIKE = 3
"""At least so many laptops share a row."""

MINOR = 0.05
"""A laptop that took less than this share from other machines than one counts as having taken all from that one, where rows are shared."""


LINKED = "linked"
"""What laptops have in common of which each took from the one before it."""


@dataclass(frozen=True)
class Machine:
    """One of SOURCES and, if it is a laptop, its name."""

    kind: str
    host: str = ""


@dataclass(frozen=True)
class Flow:
    """What a laptop took from a machine, in bytes of frames; None when it is not known how much."""

    giver: Machine
    taker: Machine
    size: float | None

    @property
    def weight(self) -> float:
        """The bytes, for comparisons."""
        return self.size or 0.0


@dataclass(frozen=True)
class Row:
    """A machine; or several laptops that are alike: each took from the one before it (``linked``), or all from the same one."""

    machines: Sequence[Machine]
    linked: bool = False


def flows(entries: Iterable[Mapping[str, Any]]) -> list[Flow]:
    """Return all flows of a report's laptops."""
    found = []
    for entry in entries:
        taker = Machine(LAPTOPS, entry["host"])
        sizes = entry["frame_bytes"]
        # A laptop whose transfer failed says nothing. The controller knows what it sent, which is more than frames.
        unknown = sizes[CONTROLLER] is None and not entry["taken_from"]
        direct = {**sizes, CONTROLLER: entry["sent_bytes"]} if unknown else sizes
        found += [Flow(Machine(kind), taker, direct[kind]) for kind in (CONTROLLER, STORE, MIRROR) if direct[kind]]
        for each in entry["taken_from"]:
            if each["bytes"] is None or each["bytes"]:
                found.append(Flow(Machine(LAPTOPS, each["host"]), taker, each["bytes"]))
    return found


def main_givers(found: Iterable[Flow]) -> dict[Machine, Machine]:
    """Return from which machine each laptop took most. Where that would be a circle, one laptop in it has none, or the next one.

    One that does not know how much it took from others had been told to take all from them.
    """
    givers: dict[Machine, Machine] = {}
    for flow in sorted(found, key=lambda flow: (flow.size is not None, -flow.weight)):
        if flow.taker not in givers and flow.taker not in _line(flow.giver, givers):
            givers[flow.taker] = flow.giver
    return givers


def _line(machine: Machine, givers: Mapping[Machine, Machine]) -> Iterator[Machine]:
    """Yield a machine, the one from which it took most, and so on."""
    at: Machine | None = machine
    while at is not None:
        yield at
        at = givers.get(at)


def in_order(found: Sequence[Flow], givers: Mapping[Machine, Machine]) -> list[Machine]:
    """Return all machines, each after the one from which it took most.

    The laptop that leads the longest line comes last, so lines stay together; one that gave more than another one comes before it.
    """
    given: dict[Machine, float] = defaultdict(float)
    for flow in found:
        given[flow.giver] += flow.weight
    below: dict[Machine, list[Machine]] = defaultdict(list)
    for taker, giver in givers.items():
        below[giver].append(taker)
    everybody = dict.fromkeys(machine for flow in found for machine in (flow.giver, flow.taker))
    sizes: dict[Machine, int] = defaultdict(int)
    for machine in everybody:
        for above in _line(machine, givers):
            sizes[above] += 1
    ordered = []
    roots = [machine for machine in everybody if machine not in givers]
    waiting = sorted(roots, key=lambda each: (each.kind == LAPTOPS, each.kind, sizes[each], each.host), reverse=True)
    while waiting:
        ordered.append(waiting.pop())
        waiting += sorted(below[ordered[-1]], key=lambda each: (sizes[each], -given[each], each.host), reverse=True)
    return ordered


def rows(ordered: Sequence[Machine], found: Sequence[Flow], remarkable: Collection[str]) -> list[Row]:
    """Return the rows of a picture. ``remarkable`` names laptops that have a row of their own in any case."""
    if len(ordered) <= MANY:
        return [Row((machine,)) for machine in ordered]
    only = _only_givers(found)
    takers: dict[Machine, set[Machine]] = defaultdict(set)
    for taker, giver in only.items():
        takers[giver].add(taker)

    def in_common(pair: tuple[Machine | None, Machine]) -> Machine | str | None:
        """Return what a machine has in common with those that may share its row; None if it has a row of its own."""
        before, machine = pair
        giver = None if machine.host in remarkable else only.get(machine)
        if giver is not None and giver == before and takers[giver] == {machine} and len(takers[machine]) <= 1:
            return LINKED
        return None if takers[machine] else giver

    result = []
    for common, pairs in groupby(zip([None, *ordered], ordered, strict=False), in_common):
        machines = tuple(machine for _before, machine in pairs)
        if common is not None and len(machines) >= FEW_ALIKE:
            result.append(Row(machines, linked=common == LINKED))
        else:
            result += [Row((machine,)) for machine in machines]
    return result


def _only_givers(found: Iterable[Flow]) -> dict[Machine, Machine]:
    """Return the machine from which each laptop took all, or all but little."""
    of_takers: dict[Machine, list[Flow]] = defaultdict(list)
    for flow in found:
        of_takers[flow.taker].append(flow)
    result = {}
    for taker, of_one in of_takers.items():
        most = max(of_one, key=lambda flow: flow.weight)
        if most.weight > (1 - MINOR) * sum(flow.weight for flow in of_one):
            result[taker] = most.giver
    return result
