# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many simulated laptops follow the rules of the relay.

The bounds are for a simulation with few laptops and a short image, on which the same few seconds weigh more than on a real one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.rules import (
    AVOIDED,
    CONTROLLER,
    STARVED,
    TRIAL,
    Fleet,
    Guide,
    Member,
)

from .simulation import Laptop, Simulation

COUNT = 12
SIZE = 45.0
GAP = 0.3
"""Seconds between the arrivals of two laptops."""

PLACES = (0, 1, 5, COUNT - 1)
"""The head, the one below it, one in the middle, and the last one."""

CRAWL = {"takes": 0.1, "gives": 0.1}
KINDS = {
    "port": CRAWL,
    "very slow port": {"takes": 0.01, "gives": 0.01},
    "port of a quarter": {"takes": 0.25, "gives": 0.25},
    "disk": {"writes": 0.1},
    "sending": {"gives": 0.1},
}
KIND = pytest.mark.parametrize("kind", [KINDS["port"], KINDS["disk"]], ids=["port", "disk"])


def laptops(special: Mapping[int, dict[str, Any]] | None = None, count: int = COUNT, gap: float = GAP) -> list[Laptop]:
    """Laptops in the order of their arrival; ``special`` are the properties of some, by their number."""
    return [Laptop(number * gap, **(special or {}).get(number, {})) for number in range(count)]


def simulated(fleet: list[Laptop], size: float = SIZE, **options: Any) -> Simulation:
    simulation = Simulation(fleet, size, **options)
    simulation.run(limit=150 * size)
    return simulation


def slowest(simulation: Simulation, *without: int) -> float:
    """The time of the slowest laptop from its own arrival, as a multiple of one alone."""
    return max(time for number, time in simulation.own_times().items() if number not in without)


def slow(simulation: Simulation) -> list[int]:
    return [member.number for member in simulation.members if member.slow]


@pytest.mark.parametrize("count", [1, 2, 8, 32])
def test_all_are_as_fast_as_one_and_the_controller_sends_about_one_image(count: int) -> None:
    simulation = simulated(laptops(count=count))
    assert slowest(simulation) < 1.03
    assert simulation.images() < 1.03
    assert slow(simulation) == []
    # Two moves are the trial of the head.
    assert sum(len(laptop.fed_by) - 1 for laptop in simulation.order) <= 2


def test_three_hundred_form_one_chain() -> None:
    simulation = Simulation(laptops(count=300, gap=0.02), 30.0)
    simulation.run(limit=60)
    assert max(simulation.own_times().values()) < 1.25
    assert simulation.images() < 1.1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("resets", [True, False], ids=["killed", "cut off"])
@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_death_costs_the_others_three_seconds_at_most(place: int, resets: bool, at: float) -> None:
    death = {"dies": place * GAP + at * SIZE, "resets": resets}
    simulation = simulated(laptops({place: death}))
    assert slowest(simulation) < 1.03 + 3.0 / SIZE
    assert simulation.images() < 1.15


def test_two_neighbours_die_at_once() -> None:
    death = {"dies": 20.0, "resets": False}
    simulation = simulated(laptops({4: death, 5: death}))
    assert slowest(simulation) < 1.03 + 6.0 / SIZE
    assert simulation.images() < 1.1


@pytest.mark.parametrize("count", [8, 32])
@pytest.mark.parametrize("which", ["every second", "first", "last", "any"])
def test_half_of_the_laptops_die_at_once(count: int, which: str) -> None:
    half = {
        "every second": range(0, count, 2),
        "first": range(count // 2),
        "last": range(count // 2, count),
        "any": random.Random(1).sample(range(count), count // 2),
    }[which]
    simulation = simulated(laptops({number: {"dies": 20.0, "resets": False} for number in half}, count))
    assert slowest(simulation) < 1.03 + 6.0 / SIZE
    assert simulation.images() < 1.2


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_slow_laptop_hinders_no_other_and_is_as_fast_as_alone(place: int, kind: dict[str, float]) -> None:
    simulation = simulated(laptops({place: kind}))
    assert slowest(simulation, place) < 1.2
    assert simulation.images(place) < 1.15
    # A laptop that sends slowly is found only if somebody takes from it.
    assert slow(simulation) == ([] if kind is KINDS["sending"] and place == COUNT - 1 else [place])
    assert simulation.own_times()[place] < 1.05 / min(kind.get("takes", 0.9), kind.get("writes", 0.9))


@KIND
@pytest.mark.parametrize("count", [8, 32])
@pytest.mark.parametrize("share", [0.25, 0.5], ids=["two of eight", "half"])
def test_the_first_laptops_are_all_slow(kind: dict[str, float], count: int, share: float) -> None:
    first = range(round(share * count))
    simulation = simulated(laptops(dict.fromkeys(first, kind), count), size=60.0)
    assert slowest(simulation, *first) < 1.2
    assert simulation.images(*first) < 1.1
    assert slow(simulation) == list(first)
    # The slow ones are a chain of their own, which takes one more image from the controller when the others have ended.
    assert simulation.images() < 2.0
    assert slowest(simulation) < 10.5
    assert sum(len(laptop.fed_by) for laptop in simulation.order) < 5 * count


@KIND
@pytest.mark.parametrize("place", range(7))
def test_two_neighbours_are_slow(kind: dict[str, float], place: int) -> None:
    pair = [place, place + 1]
    simulation = simulated(laptops(dict.fromkeys(pair, kind), count=8))
    assert slowest(simulation, *pair) < 1.2
    assert simulation.images(*pair) < 1.1
    assert slow(simulation) == pair


HALVES = [(0, 2, 4, 6), (1, 3, 5, 7), *(tuple(sorted(random.Random(seed).sample(range(8), 4))) for seed in range(6))]


@KIND
@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_of_eight_laptops_are_slow(kind: dict[str, float], half: tuple[int, ...]) -> None:
    # One whose neighbours are both slow looks as slow as they do, until it takes from a fast one. All that costs the same seconds for any image.
    simulation = simulated(laptops(dict.fromkeys(half, kind), count=8), size=120.0)
    assert slowest(simulation, *half) < 1.2
    assert simulation.images(*half) < 1.1
    assert slow(simulation) == list(half)
    assert slowest(simulation) < 10.5


def test_slow_laptops_do_not_wait_for_slower_ones() -> None:
    special = {1: KINDS["very slow port"], 3: CRAWL, 5: KINDS["port of a quarter"], 6: {"writes": 0.1}}
    simulation = simulated(laptops(special, count=8), size=120.0)
    times = simulation.own_times()
    assert max(times[number] for number in (0, 2, 4, 7)) < 1.2
    assert times[3] < 12 and times[5] < 4.8 and times[6] < 12


def test_two_slow_heads_of_a_hundred() -> None:
    simulation = Simulation(laptops({0: CRAWL | {"dies": 70.0}, 1: CRAWL | {"dies": 70.0}}, count=100, gap=0.02), 40.0)
    simulation.run(limit=70)
    assert max(simulation.own_times().values()) < 1.25
    assert simulation.images() < 1.1


@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_laptop_that_lives_and_gives_nothing_is_left(place: int) -> None:
    simulation = simulated(laptops({place: {"gives": 0.0}}))
    assert slowest(simulation) < 1.03 + 8.0 / SIZE
    assert slow(simulation) == [place]


@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_laptop_that_lives_and_gets_nothing_hinders_no_other(place: int) -> None:
    simulation = Simulation(laptops({place: {"takes": 0.0, "dies": 2 * SIZE}}), SIZE)
    simulation.run(limit=3 * SIZE)
    assert slowest(simulation) < 1.03 + 10.5 / SIZE


def test_a_slow_head_is_found_where_the_controller_is_much_faster_than_a_port() -> None:
    simulation = simulated(laptops({0: CRAWL}), controller=10.0)
    assert slowest(simulation, 0) < 1.2


def test_short_stalls_accuse_nobody() -> None:
    chance = random.Random(3)
    stalls = {
        number: {
            "stalls": [(at, at + chance.uniform(0.2, 1.5)) for at in (chance.uniform(0, SIZE) for _each in range(3))]
        }
        for number in range(COUNT)
    }
    simulation = simulated(laptops(stalls))
    assert slow(simulation) == []
    assert simulation.images() < 1.1


@pytest.mark.parametrize("place", PLACES)
def test_a_laptop_that_sleeps_for_a_while_costs_the_others_little(place: int) -> None:
    simulation = simulated(laptops({place: {"stalls": [(15.0, 30.0)]}}))
    assert slowest(simulation, place) < 1.03 + 3.0 / SIZE
    assert slowest(simulation) < 1.1 + 15.0 / SIZE


def test_laptops_that_cannot_reach_each_other_take_from_the_controller_after_three_attempts() -> None:
    isolated = {number: {"cannot_reach": lambda _number: True} for number in range(8)}
    simulation = simulated(laptops(isolated, count=8), controller=8.0)
    assert slowest(simulation) < 1.03 + 3 * 3.0 / SIZE
    assert all(laptop.fed_by[-1] == CONTROLLER and len(laptop.fed_by) <= 7 for laptop in simulation.order)


def test_one_laptop_that_nobody_can_reach_is_left_out() -> None:
    fleet = laptops()
    for laptop in fleet:
        laptop.cannot_reach = lambda number: number == 3
    simulation = simulated(fleet)
    assert slowest(simulation) < 1.03 + 3.0 / SIZE
    assert simulation.images() < 1.1


def test_laptops_that_come_in_batches_cost_one_image_a_batch() -> None:
    simulation = simulated([Laptop(100.0 * (number // 3) + GAP * (number % 3)) for number in range(9)])
    assert 2.9 < simulation.images() < 3.4
    assert slowest(simulation) < 1.03


def test_a_late_laptop_takes_all_from_another_one() -> None:
    simulation = simulated([*laptops(count=4), Laptop(40.0)])
    assert simulation.order[4].fed_by[0] == 3
    assert simulation.images() < 1.6  # the others leave before it has everything
    assert slowest(simulation) < 1.06


def test_without_a_read_back_nobody_waits_for_the_next_one() -> None:
    simulation = simulated(laptops(), read_back=0.0)
    assert slowest(simulation) < 1.03
    assert simulation.images() < 1.15


def chain(*missing: int) -> list[Member]:
    """Laptops of which each takes from the one before, and what each lacks."""
    return [
        Member(number, f"lab-{number:02}", "198.18.0.10", 19000, upstream=number - 1, missing=each)
        for number, each in enumerate(missing)
    ]


def decide(members: list[Member], guide: Guide, now: float) -> None:
    for row in guide.decide(members, now):
        members[row.number] = row


def test_a_laptop_does_not_go_back_to_one_that_takes_from_it_meanwhile() -> None:
    members, second, third = chain(9, 10, 11), Guide(1), Guide(2)
    for now in (0.0, STARVED):
        decide(members, third, now)
    assert members[2].trial and members[2].upstream == 0
    # The first one is switched off; the second notices that before the third does.
    members[1:] = [replace(each, heard=STARVED) for each in members[1:]]
    second.lost(0, STARVED)
    decide(members, second, STARVED)
    assert members[1].upstream == 2
    decide(members, third, STARVED + TRIAL)
    assert not members[2].trial and members[2].upstream == CONTROLLER


@pytest.mark.parametrize("dead", [{"gone": True}, {"heard": -10.0}], ids=["gone", "silent"])
def test_a_trial_of_a_laptop_that_died_keeps_no_other_from_one(dead: dict[str, Any]) -> None:
    members, second = chain(9, 10), Guide(1)
    members.append(replace(members[1], number=2, upstream=CONTROLLER, trial=True, **dead))
    for now in (0.0, STARVED):
        decide(members, second, now)
    assert members[1].trial and members[1].upstream == CONTROLLER


def with_reference(*missing: int) -> list[Member]:
    """A chain whose first laptop takes from the reference of a clone."""
    reference, *laptops = chain(0, *missing)
    return [replace(reference, heard=math.inf, proven=True), *laptops]


def test_the_reference_of_a_clone_is_never_found_slow() -> None:
    members, first = with_reference(9), Guide(1)
    for now in range(int(3 * STARVED)):
        members[1] = replace(members[1], heard=float(now))
        decide(members, first, float(now))
        assert members[1].upstream == 0 and not members[1].trial
    assert not members[0].slow


def test_a_slow_first_laptop_of_a_clone_is_passed_over() -> None:
    members = with_reference(1000, 1010, 1020)
    members = [
        members[0],
        *(replace(each, receives=speed) for each, speed in zip(members[1:], (1.0, 1.1, 10.0), strict=True)),
    ]
    # The second laptop receives slowly from the first one, and sends fast to the third one.
    assert Fleet(members, 0.0).holding_up(members[2], 1.0) == [members[1]]
    second = Guide(2)
    taken_from = []
    for now in range(5):
        members[1:] = [replace(each, heard=float(now), missing=each.missing - 1) for each in members[1:]]
        decide(members, second, float(now))
        taken_from.append(members[2].upstream)
    # It gets no more from the reference.
    assert taken_from == [1, 1, 0, 0, 1]
    assert not members[1].slow


def test_a_laptop_that_lost_the_reference_takes_from_there_again_also_if_others_take_from_it() -> None:
    members, first = with_reference(9, 10, 11), Guide(1)
    first.lost(0, 0.0)
    decide(members, first, 0.0)
    assert members[1].upstream == CONTROLLER
    members[1:] = [replace(each, heard=AVOIDED) for each in members[1:]]
    decide(members, first, AVOIDED)
    assert members[1].upstream == 0
