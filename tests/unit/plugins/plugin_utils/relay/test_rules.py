# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many simulated laptops follow the rules of the relay.

The bounds are for a simulation with few laptops and a short image, on which the same few seconds weigh more than on a real one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.rules import (
    CONTROLLER,
    STARVED,
    TRIAL,
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


def laptops(special: Mapping[int, dict[str, Any]] | None = None, count: int = COUNT, gap: float = GAP) -> list[Laptop]:
    """Laptops in the order of their arrival; ``special`` are the properties of some, by their number."""
    return [Laptop(number * gap, **(special or {}).get(number, {})) for number in range(count)]


def simulated(fleet: list[Laptop], **options: Any) -> Simulation:
    simulation = Simulation(fleet, SIZE, **options)
    simulation.run(limit=30 * SIZE)
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


def test_every_second_laptop_dies_at_once() -> None:
    simulation = simulated(laptops({number: {"dies": 20.0, "resets": False} for number in range(0, COUNT, 2)}))
    assert slowest(simulation) < 1.03 + 6.0 / SIZE
    assert simulation.images() < 1.2


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [CRAWL, {"takes": 0.1}, {"gives": 0.1}], ids=["port", "disk", "sending"])
def test_a_slow_laptop_hinders_no_other_and_is_as_fast_as_alone(place: int, kind: dict[str, float]) -> None:
    simulation = simulated(laptops({place: kind}))
    assert slowest(simulation, place) < 1.2
    # A laptop that sends slowly is found only if somebody takes from it.
    assert slow(simulation) == ([] if kind == {"gives": 0.1} and place == COUNT - 1 else [place])
    if "takes" in kind:
        assert slowest(simulation) < 10.2


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


def test_two_neighbours_are_slow() -> None:
    simulation = simulated(laptops({4: CRAWL, 5: CRAWL}))
    assert slowest(simulation, 4, 5) < 1.3
    assert slow(simulation) == [4, 5]


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


@pytest.mark.parametrize("place", [0, 5])
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
