# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who fed whom: the order of the machines, the rows they share, and the picture."""

from __future__ import annotations

import itertools
import random
import xml.etree.ElementTree as ET

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import CONTROLLER
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.chain import (
    LAPTOPS,
    MANY,
    Flow,
    Machine,
    Row,
    flows,
    in_order,
    main_givers,
    rows,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.chain_svg import (
    LANE,
    MAX_LANES,
    ROW,
    _arrows,
    _lanes,
    chain_picture,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.summary import summary

from .runs import relayed

THE_CONTROLLER = Machine(CONTROLLER)


def laptop(number: int) -> Machine:
    return Machine(LAPTOPS, f"lab-{number:03d}")


def chain(count: int) -> list[Flow]:
    machines = [THE_CONTROLLER, *map(laptop, range(count))]
    return [Flow(giver, taker, 100) for giver, taker in itertools.pairwise(machines)]


def in_rows(found: list[Flow], remarkable: frozenset[str] = frozenset()) -> list[Row]:
    return rows(in_order(found, main_givers(found)), found, remarkable)


def disorder(count: int) -> list[Flow]:
    chance = random.Random(count)
    return [
        Flow(giver, laptop(taker), chance.choice([None, chance.randrange(1, 1 << 30)]))
        for taker in range(count)
        for giver in {laptop(chance.randrange(count)), laptop(chance.randrange(count)), THE_CONTROLLER}
    ]


def test_machines_follow_the_one_from_which_they_took() -> None:
    found = chain(20)
    assert in_order(list(reversed(found)), main_givers(found)) == [THE_CONTROLLER, *map(laptop, range(20))]


def test_a_line_is_not_torn_apart_by_laptops_that_branch_off() -> None:
    found = [*chain(5), Flow(laptop(1), laptop(9), 100), Flow(laptop(0), laptop(9), 3)]
    assert in_order(found, main_givers(found)) == [THE_CONTROLLER, *map(laptop, (0, 1, 9, 2, 3, 4))]


def test_of_laptops_that_took_from_the_same_one_that_which_gave_to_the_other_comes_first() -> None:
    found = [Flow(laptop(1), laptop(5), None), Flow(laptop(1), laptop(2), 60), Flow(laptop(5), laptop(2), 40)]
    assert in_order(found, main_givers(found)) == [laptop(1), laptop(5), laptop(2)]


def test_laptops_that_took_from_one_another_are_all_there() -> None:
    found = [Flow(laptop(1), laptop(2), 8), Flow(laptop(2), laptop(3), 7), Flow(laptop(3), laptop(1), 9)]
    assert main_givers(found) == {laptop(1): laptop(3), laptop(2): laptop(1)}
    assert in_order(found, main_givers(found)) == [laptop(3), laptop(1), laptop(2)]
    assert main_givers([Flow(laptop(1), laptop(1), 5)]) == {}


@pytest.mark.parametrize("count", [2, 30, 300])
def test_every_machine_is_in_one_row_however_wild_the_flows_are(count: int) -> None:
    found = disorder(count)
    machines = [machine for row in in_rows(found) for machine in row.machines]
    assert sorted(machine.host for machine in machines) == ["", *(laptop(number).host for number in range(count))]


def test_a_laptop_that_failed_follows_the_one_that_was_named_to_it_last() -> None:
    found = flows(summary(relayed(8))["laptops"])
    assert main_givers(found)[laptop(5)] == laptop(4)


def test_few_laptops_have_a_row_each_and_many_that_are_alike_share_one() -> None:
    assert [len(row.machines) for row in in_rows(chain(MANY - 1))] == [1] * MANY
    shared = in_rows(chain(300), frozenset([laptop(100).host]))
    assert [(len(row.machines), row.linked) for row in shared] == [
        (1, False),
        (100, True),
        (1, False),
        (199, True),
    ]
    star = [Flow(THE_CONTROLLER, laptop(number), 100) for number in range(300)]
    assert [(len(row.machines), row.linked) for row in in_rows(star)] == [(1, False), (300, False)]


def test_a_laptop_that_took_much_from_another_one_shares_no_row() -> None:
    found = [*chain(60), Flow(THE_CONTROLLER, laptop(30), 50), Flow(THE_CONTROLLER, laptop(40), 2)]
    assert [len(row.machines) for row in in_rows(found)] == [1, 30, 1, 29]


@pytest.mark.parametrize(
    "found", [chain(3), chain(300), disorder(12), disorder(300), []], ids=["3", "300", "wild", "many wild", "none"]
)
def test_a_picture_is_xml_with_words_and_no_line_on_another(found: list[Flow]) -> None:
    of_rows = in_rows(found)
    picture = ET.fromstring(chain_picture('"><script>\x1b', "a & b", of_rows, found, [0]))
    assert [element.text for element in picture[:2]] == ['"><script>\\x1b', "a & b"]
    assert {element.tag for element in picture.iter()} <= {"svg", "title", "desc", "path", "rect"}
    assert float(picture.get("height", "")) == ROW * len(of_rows)
    assert float(picture.get("width", "")) < LANE * (MAX_LANES + 2)
    assert not any("nan" in value or "inf" in value for element in picture.iter() for value in element.attrib.values())
    assert len(list(picture.iter("rect"))) == len(of_rows)
    arrows = _arrows(of_rows, found)
    lanes = _lanes(arrows)
    spans = {giver: [arrow.span for arrow in arrows if arrow.giver == giver and not arrow.is_short] for giver in lanes}
    for one, other in itertools.combinations(lanes, 2):
        if lanes[one] == lanes[other]:
            ends = [(min(map(min, spans[giver])), max(map(max, spans[giver]))) for giver in (one, other)]
            assert max(ends)[0] > min(ends)[1]


def test_an_arrow_is_dashed_where_it_is_not_known_how_much_was_taken() -> None:
    found = [Flow(laptop(1), laptop(2), None)]
    assert "stroke-dasharray" in chain_picture("", "", in_rows(found), found, [])
    assert "stroke-dasharray" not in chain_picture("", "", in_rows(chain(2)), chain(2), [])
