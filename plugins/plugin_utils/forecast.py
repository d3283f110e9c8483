# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a capture or a restore will take, by what was measured, what limits it, and what would help most. Arithmetic alone.

A transfer is a pipeline: it takes as long as its slowest stage, or a little longer if others are about as slow. What can't go on beside it
(mapping, the read-back) is added. All rates are bytes a second; 0 or None is one that was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.quantities import duration

from .progress.limits import (
    CONTROLLER_CPU,
    LAPTOP_CPU,
    LIMITS,
    NETWORK,
    SOURCE_READ,
    STORE,
    TARGET_CPU,
    TARGET_READ,
    TARGET_WRITE,
)

TWICE = 2.0
BETTER: dict[tuple[str, ...], str] = {
    (SOURCE_READ,): "A disk that is read twice as fast",
    (LAPTOP_CPU,): "Twice the processor in the laptop",
    (NETWORK,): "A network twice as fast",
    (CONTROLLER_CPU,): "Twice the processor in the controller",
    (STORE,): "An image store twice as fast",
    (TARGET_CPU,): "Twice the processor in the laptop",
    (TARGET_WRITE, TARGET_READ): "A disk twice as fast in the laptop",
}
"""What is tried, at the beginning of a sentence, by the resources that it makes better."""

ETHERNET_SHARE = 0.94
"""Of an Ethernet's bits, those that TCP carries for us: 1448 of 1538 bytes for each packet, and a little of our own."""

FAST_ETHERNET = 100e6 / 8 * ETHERNET_SHARE
GIGABIT = 1000e6 / 8 * ETHERNET_SHARE
ALMOST = (0.75, 1.1)
"""A link that carries such a share of a fast Ethernet's rate is one."""

APART = 4.0
"""Exponent of the norm by which the seconds of stages at the same time make those of all together. Two that take equally long take 1.19
times as long, as each now and then waits for the other; one that takes half as long as another adds 2 percent.

Source: of 3 to 6 the one that suited 30 measured transfers best, three in each of ten situations; with the slowest stage alone all but
one were forecast too short, by up to a third.
"""

WORTH_SAYING = 0.02
"""A gain below this share of the whole is none."""

WRITE_SHARE = 0.5
"""Assumed for what does not rotate: it is written at this share of the rate at which it is read."""

WRITE_SHARE_ROTATING = 1.0


@dataclass(frozen=True)
class Machine:
    """A laptop, as measured. ``send_cpu``, ``receive_cpu`` and ``read_cpu`` are seconds of one processor for each byte."""

    read: float
    rotational: bool = False
    compress: float | None = None
    decompress: float | None = None
    hash: float | None = None
    send_cpu: float = 0.0
    receive_cpu: float = 0.0
    read_cpu: float = 0.0
    processors: int = 1

    @property
    def write(self) -> float:
        """At which rate the disk is assumed to be written."""
        return self.read * (WRITE_SHARE_ROTATING if self.rotational else WRITE_SHARE)


@dataclass(frozen=True)
class Controller:
    """The controller and the links, as measured.

    ``link`` is the rate of the controller's own network connection, by what the system knows of it. ``cache`` is how many bytes of an
    image stay in memory, once read.
    """

    from_laptop: float | None = None
    to_laptop: float | None = None
    link: float | None = None
    send_cpu: float = 0.0
    receive_cpu: float = 0.0
    processors: int = 1
    store_write: float | None = None
    store_read: float | None = None
    cache: int = 0


@dataclass(frozen=True)
class CaptureWork:
    """What a capture has to do, in bytes. ``content`` counts whole chunks. ``fixed`` are seconds for what does not depend on rates."""

    read: int
    content: int
    sent: int
    fixed: float = 0.0


@dataclass(frozen=True)
class RestoreWork:
    """What a restore has to do, in bytes, where nothing is on the disk yet.

    ``content`` counts whole chunks that come over the link, ``written`` what of them is used, ``zeroed`` what is to be zeros, which a
    disk that does not rotate is told in no time. ``back`` and ``back_content`` are read and hashed in the read-back, ``looked`` is
    read before anything is asked for.
    """

    sent: int
    content: int
    written: int
    zeroed: int
    back: int
    back_content: int
    looked: int = 0
    fixed: float = 0.0


@dataclass(frozen=True)
class Help:
    """What would help most: the resource, in words what of it, the seconds then and what limits then."""

    resource: str
    words: str
    seconds: float
    then: str


@dataclass(frozen=True)
class Forecast:
    """What is expected. ``resources`` are the seconds that each alone would take; ``unknown`` those that were not measured."""

    seconds: float
    limit: str
    resources: dict[str, float] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    help: Help | None = None

    def advice(self) -> str:
        """What would help most, in a sentence."""
        if self.help is None:
            return "No single part would help by being twice as fast."
        then = f", and {self.help.then} is the limit then" if self.help.then not in (self.limit, "") else ""
        return f"{self.help.words} would help most: {duration(self.help.seconds)} instead of {duration(self.seconds)}{then}."

    def to_json(self) -> dict[str, Any]:
        """For a result."""
        helped = self.help
        return {
            "seconds": round(self.seconds, 3),
            "limit": self.limit,
            "code": LIMITS[self.limit].code if self.limit else "",
            "resources": {name: round(seconds, 3) for name, seconds in self.resources.items()},
            "help": helped and {"resource": helped.resource, "seconds": round(helped.seconds, 3), "limit": helped.then},
            "advice": self.advice(),
        }


Faster = Mapping[str, float]
"""How many times as fast a resource is as it was measured, where it is not once."""


class _Stages:
    """Seconds of stages that go on at the same time, by their resources."""

    def __init__(self, faster: Faster, unknown: set[str]) -> None:
        self._faster = faster
        self._unknown = unknown
        self.seconds: dict[str, float] = {}

    def add(self, resource: str, size: float, rate: float | None, seconds: float = 0.0) -> None:
        """A stage that does so many bytes at a rate, and beside them something for so many seconds."""
        if size and not rate:
            self._unknown.add(resource)
            return
        taken = (size / rate if size and rate else 0.0) + seconds
        self.seconds[resource] = self.seconds.get(resource, 0.0) + taken / self._faster.get(resource, 1.0)

    @property
    def longest(self) -> str:
        """The stage that takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name], default="")

    @property
    def together(self) -> float:
        """What all of them take."""
        return math.pow(math.fsum(math.pow(seconds, APART) for seconds in self.seconds.values()), 1 / APART)


class _Sum:
    """Adds stages up, and remembers who is to blame."""

    def __init__(self, fixed: float) -> None:
        self.total = fixed
        self.blame: dict[str, float] = {}
        self.resources: dict[str, float] = {}

    def add(self, stages: _Stages) -> None:
        """Stages that go on after those before."""
        resource, seconds = stages.longest, stages.together
        for name, taken in stages.seconds.items():
            self.resources[name] = self.resources.get(name, 0.0) + taken
        self.total += seconds
        if seconds > 0:
            self.blame[resource] = self.blame.get(resource, 0.0) + seconds

    @property
    def limit(self) -> str:
        """Who takes most of the time."""
        return max(self.blame.items(), key=lambda item: item[1], default=("", 0.0))[0]


Computation = Callable[[Faster, set[str], Controller], _Sum]


def _shared_rate(own: float | None, controllers: float | None, at_once: int) -> float | None:
    """What a laptop has of the network when so many have the controller's connection together.

    Of a connection whose speed is not known it is assumed that it carries no more than what was measured with one laptop.
    """
    if not own:
        return None
    return min(own, (controllers or own) / at_once)


def _controller_seconds(cpu: float, size: int, controller: Controller, at_once: int) -> float:
    """Each laptop has a process of its own there, which takes one processor."""
    return cpu * size * max(1.0, at_once / max(1, controller.processors))


def forecast_capture(work: CaptureWork, machine: Machine, controller: Controller) -> Forecast:
    """What is to be expected of a capture."""

    def compute(faster: Faster, unknown: set[str], controller: Controller) -> _Sum:
        result = _Sum(work.fixed)
        stages = _Stages(faster, unknown)
        stages.add(SOURCE_READ, work.read, machine.read)
        beside = work.sent * machine.send_cpu + work.read * machine.read_cpu
        stages.add(LAPTOP_CPU, work.content, machine.compress, beside / max(1, machine.processors))
        stages.add(NETWORK, work.sent, _shared_rate(controller.from_laptop, controller.link, 1))
        stages.add(CONTROLLER_CPU, 0, None, _controller_seconds(controller.receive_cpu, work.sent, controller, 1))
        stages.add(STORE, work.sent, controller.store_write)
        result.add(stages)
        return result

    return _with_help(compute, controller, controller.from_laptop)


def forecast_restore(work: RestoreWork, machine: Machine, controller: Controller, at_once: int = 1) -> Forecast:
    """What is to be expected of a restore and its read-back, of each of so many laptops like this one at once."""

    def compute(faster: Faster, unknown: set[str], controller: Controller) -> _Sum:
        result = _Sum(work.fixed)
        looking = _Stages(faster, unknown)
        looking.add(TARGET_READ, work.looked, machine.read)
        result.add(looking)
        stages = _Stages(faster, unknown)
        # What one laptop was sent is in the controller's memory for the others, if there is room for all of it.
        readers = 1 if work.sent <= controller.cache else at_once
        stages.add(STORE, work.sent * readers, controller.store_read)
        stages.add(CONTROLLER_CPU, 0, None, _controller_seconds(controller.send_cpu, work.sent, controller, at_once))
        stages.add(NETWORK, work.sent, _shared_rate(controller.to_laptop, controller.link, at_once))
        beside = work.sent * machine.receive_cpu / max(1, machine.processors)
        stages.add(TARGET_CPU, work.content, machine.decompress, beside)
        stages.add(TARGET_WRITE, work.written + (work.zeroed if machine.rotational else 0), machine.write)
        result.add(stages)
        back = _Stages(faster, unknown)
        back.add(TARGET_READ, work.back, machine.read)
        beside = work.back * machine.read_cpu / max(1, machine.processors)
        back.add(TARGET_CPU, work.back_content, machine.hash, beside)
        result.add(back)
        return result

    return _with_help(compute, controller, controller.to_laptop)


def _better_network(controller: Controller, link: float | None) -> tuple[Controller, str]:
    """The same controller with a better network, and in words what of it. ``link``: what its link to the laptop carries now."""
    slowest = min(rate for rate in (link, controller.link) if rate) if link or controller.link else 0.0
    fast_ethernet = ALMOST[0] <= slowest / FAST_ETHERNET <= ALMOST[1]

    def better(rate: float | None) -> float | None:
        return rate and (max(rate, GIGABIT) if fast_ethernet else TWICE * rate)

    improved = replace(
        controller,
        from_laptop=better(controller.from_laptop),
        to_laptop=better(controller.to_laptop),
        link=better(controller.link),
    )
    return improved, "A gigabit network instead of one of 100 Mbit/s" if fast_ethernet else BETTER[(NETWORK,)]


def _with_help(compute: Computation, controller: Controller, link: float | None) -> Forecast:
    unknown: set[str] = set()
    now = compute({}, unknown, controller)
    best: Help | None = None
    for resources, usual in BETTER.items():
        concerned = [name for name in resources if name in now.resources]
        if not concerned:
            continue
        if NETWORK in concerned:
            improved, words = _better_network(controller, link)
            then = compute({}, set(), improved)
        else:
            words = usual
            then = compute(dict.fromkeys(concerned, TWICE), set(), controller)
        if now.total - then.total > WORTH_SAYING * now.total and (best is None or then.total < best.seconds):
            most = max(concerned, key=lambda name: now.blame.get(name, 0.0))
            best = Help(most, words, then.total, then.limit)
    return Forecast(seconds=now.total, limit=now.limit, resources=now.resources, unknown=sorted(unknown), help=best)


def for_all(together: float, laptops: int, at_once: int) -> float:
    """Seconds for all laptops, in groups of so many at once, each of which takes ``together``."""
    return together * -(-max(1, laptops) // max(1, at_once))
