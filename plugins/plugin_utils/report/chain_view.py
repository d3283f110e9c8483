# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page says of who fed whom."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils.sources.http_image import MIRROR, STORE
from ...module_utils.stream.credentials import CONTROLLER
from ..relay.upstreams import DAMAGE, LOST, UNREACHABLE
from .chain import LAPTOPS, Flow, Machine, Row, flows, in_order, main_givers, rows
from .chain_svg import chain_picture
from .text import laptops, size

NAMES = {CONTROLLER: "controller", STORE: "image store", MIRROR: "mirror", LAPTOPS: "other laptops"}

SLOW, FAILED = "slow", "failed"

PROBLEMS = {
    DAMAGE: ("sent damage", "Sent damaged data", "to"),
    LOST: ("lost", "Broke off or fell silent", "to"),
    UNREACHABLE: ("unreachable", "Could not be reached", "by"),
    SLOW: ("slow", "Too slow to take from", ""),
}
"""By their codes: how a problem is called in a row, how in the list of all, and the word before the laptops that noticed it."""

MAX_GIVERS = 3
"""So many of the machines that a laptop took from are named in its row."""


@dataclass(frozen=True)
class Line:
    """The text of a row. ``host`` is the laptop's name if it is about one laptop."""

    name: str
    host: str
    words: str
    problems: Sequence[str]


@dataclass(frozen=True)
class Chain:
    """What the page shows."""

    lines: Sequence[Line]
    picture: str
    problems: Mapping[str, Sequence[str]]
    """The laptops with each problem, by its words."""


def chain_view(report: Mapping[str, Any]) -> Chain | None:
    """Return what to show of who fed whom; None if only the controller sent something, to one laptop."""
    found = flows(report["laptops"])
    if report["purpose"] != "restore" or len(found) < 2:
        return None
    noticed = _noticed(report["laptops"])
    badges = {host: [PROBLEMS[code][0] for code in codes] for host, codes in noticed.items()}
    for entry in report["laptops"]:
        if entry["level"] == "bad":
            badges.setdefault(entry["host"], []).append(FAILED)
    of_rows = rows(in_order(found, main_givers(found)), found, badges)
    lines = [_line(row, found, badges) for row in of_rows]
    bad = [number for number, line in enumerate(lines) if line.problems]
    picture = chain_picture("Who fed whom", _described(of_rows), of_rows, found, bad)
    problems = {
        words: [_with_witnesses(host, word, codes[code]) for host, codes in noticed.items() if code in codes]
        for code, (_badge, words, word) in PROBLEMS.items()
    }
    return Chain(lines, picture, {words: hosts for words, hosts in problems.items() if hosts})


def _noticed(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Return for each laptop with problems their codes, and the laptops that noticed them."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        if entry["slow"]:
            found[entry["host"]][SLOW] = []
        for each in entry["left"]:
            if each["code"] in PROBLEMS:
                found[each["host"]][each["code"]].append(entry["host"])
    return found


def _with_witnesses(host: str, word: str, witnesses: Sequence[str]) -> str:
    return f"{host} ({word} {', '.join(witnesses)})" if witnesses else host


def _line(row: Row, found: Iterable[Flow], badges: Mapping[str, Sequence[str]]) -> Line:
    first, last = row.machines[0], row.machines[-1]
    inside = set(row.machines)
    givers: dict[str, float | None] = {}
    for flow in found:
        if flow.taker in inside:
            name = NAMES[LAPTOPS] if row.linked and flow.giver.kind == LAPTOPS else _name(flow.giver)
            givers[name] = givers.get(name) if flow.size is None else (givers.get(name) or 0.0) + flow.size
    named = sorted(givers, key=lambda name: (givers[name] is not None, -(givers[name] or 0.0)))
    taken = [f"{_amount(givers[name])} from {name}" for name in named[:MAX_GIVERS]]
    taken += [f"and from {len(named) - MAX_GIVERS} more"] if len(named) > MAX_GIVERS else []
    gave = f"gave {size(sum(flow.weight for flow in found if flow.giver in inside))}"
    words = ", ".join(taken) or gave
    if first == last:
        return Line(first.host or NAMES[first.kind], first.host, words, badges.get(first.host, ()))
    alike = f"{laptops(len(inside))}{', each from the one before' if row.linked else ''}"
    return Line(f"{first.host} \N{HORIZONTAL ELLIPSIS} {last.host}", "", f"{alike}: {words}", ())


def _amount(known: float | None) -> str:
    return "an unknown amount" if known is None else size(known)


def _name(machine: Machine) -> str:
    return machine.host if machine.kind == LAPTOPS else f"the {NAMES[machine.kind]}"


def _described(of_rows: Sequence[Row]) -> str:
    count = sum(len(row.machines) for row in of_rows if row.machines[0].kind == LAPTOPS)
    return f"Arrows lead to {laptops(count)} from what they took the image from. The list beside it says the same in words."
