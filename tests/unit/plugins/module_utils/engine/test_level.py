# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The level follows what limits."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.engine import level as level_module
from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import (
    CONTEXTS,
    COSTS,
    AutoLevel,
    better,
    context_size,
    parse_level,
)
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError


class Clock:
    """Time, and what the threads were busy with in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.work = self.send = 0.0

    def perf_counter(self) -> float:
        return self.now

    def stages(self) -> dict[str, dict[str, float]]:
        return {"compress": {"busy": self.work}, "hash": {"busy": 0.0}, "send": {"busy": self.send}}

    def run(self, level: AutoLevel, records: int, working: float, sending: float, workers: int = 2) -> None:
        for _record in range(records):
            self.now += 0.1
            self.work += 0.1 * working * workers
            self.send += 0.1 * sending
            level.sent()


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(level_module, "time", clock)
    return clock


def auto(clock: Clock, workers: int = 2) -> AutoLevel:
    return AutoLevel(clock, workers, workers + 3)  # type: ignore[arg-type]


def test_a_slow_link_is_given_smaller_frames(clock: Clock) -> None:
    level = auto(clock)
    assert level.now == 3
    clock.run(level, 10, working=0.2, sending=0.98)
    assert level.now == 6, "it takes three times as long as level 3, and there is four times as much"
    clock.run(level, 300, working=0.3, sending=0.98)
    assert level.now == 12


def test_a_link_that_gets_faster_is_not_held_up(clock: Clock) -> None:
    level = auto(clock)
    clock.run(level, 300, working=0.3, sending=0.98)
    assert level.now == 12
    clock.run(level, 300, working=0.97, sending=0.1)
    assert level.now == 3, "below it, restores lose more than the capture wins"


@pytest.mark.parametrize(("working", "sending"), [(0.9, 0.9), (0.2, 0.3), (0.7, 0.95), (0.95, 0.7)])
def test_where_both_or_neither_are_busy_it_stays(clock: Clock, working: float, sending: float) -> None:
    level = auto(clock)
    clock.run(level, 300, working, sending)
    assert level.now == 3


def test_what_was_on_its_way_does_not_count(clock: Clock) -> None:
    """The slots that were full when the level changed say nothing of the new one."""
    level = auto(clock)
    clock.run(level, 5 + 6, working=0.2, sending=0.98)
    first = level.now
    assert first > 3
    clock.run(level, 5, working=0.2, sending=0.98)
    assert level.now == first


@pytest.mark.parametrize("workers", range(1, 8))
def test_the_compressors_of_all_workers_have_room(clock: Clock, workers: int) -> None:
    level = auto(clock, workers)
    clock.run(level, 900, working=0.1, sending=0.99, workers=workers)
    assert level.now >= 9 and workers * context_size(level.now) <= CONTEXTS


ALL = list(COSTS)


def test_a_level_is_chosen_by_what_it_costs() -> None:
    assert better(3, ALL, hashing=0.1, compressing=0.2, sending=0.99) == 6
    assert better(3, ALL, hashing=0.3, compressing=0.3, sending=0.99) == 4
    assert better(6, ALL, hashing=0.1, compressing=0.5, sending=0.99) == 7
    assert better(6, ALL, hashing=0.05, compressing=0.93, sending=0.6) == 4
    assert better(6, ALL, hashing=0.1, compressing=0.88, sending=0.1) == 3
    assert better(9, ALL, hashing=0.05, compressing=0.95, sending=0.5) == 6


def test_there_is_nothing_beyond_the_last_one() -> None:
    assert better(3, ALL, hashing=0.2, compressing=0.78, sending=0.1) == 3
    assert better(12, ALL, hashing=0.1, compressing=0.1, sending=0.99) == 12
    assert better(9, ALL[:-3], hashing=0.1, compressing=0.1, sending=0.99) == 9
    assert better(3, ALL, hashing=0.0, compressing=0.0, sending=0.99) == 12


@pytest.mark.parametrize(("given", "level"), [("auto", None), ("3", 3), ("-7", -7), ("19", 19)])
def test_levels_as_they_are_given(given: str, level: int | None) -> None:
    assert parse_level(given) == level


@pytest.mark.parametrize("given", ["20", "-8", "", "fast", "3.5"])
def test_other_levels_are_refused(given: str) -> None:
    with pytest.raises(ImagingError, match=r"must be auto, or from -7 to 19\. Set imaging_compression_level"):
        parse_level(given)
