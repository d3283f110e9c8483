# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of a forecast."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.forecast import (
    GIGABIT,
    CaptureWork,
    Controller,
    Forecast,
    Machine,
    RestoreWork,
    for_all,
    forecast_capture,
    forecast_restore,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import (
    CONTROLLER_CPU,
    LAPTOP_CPU,
    NETWORK,
    SOURCE_READ,
    STORE,
    TARGET_CPU,
    TARGET_READ,
    TARGET_WRITE,
)

MB = 1_000_000
CAPTURE = CaptureWork(read=1000 * MB, content=1200 * MB, sent=300 * MB, fixed=2.0)
RESTORE = RestoreWork(
    sent=300 * MB, content=1200 * MB, written=1000 * MB, zeroed=100 * MB, back=1100 * MB, back_content=1300 * MB
)
LAPTOP = Machine(read=500 * MB, compress=400 * MB, decompress=1200 * MB, hash=2600 * MB)
CONTROLLER_ = Controller(
    from_laptop=100 * MB,
    to_laptop=100 * MB,
    store_write=600 * MB,
    store_read=1000 * MB,
    processors=4,
    cache=8000 * MB,
)


def together(*stages: float) -> float:
    """What stages at the same time take that take so many seconds each."""
    return math.sqrt(math.sqrt(sum(seconds**4 for seconds in stages)))


def test_stages_that_take_equally_long_hold_each_other_up() -> None:
    even = forecast_capture(replace(CAPTURE, read=0, fixed=0), LAPTOP, replace(CONTROLLER_, store_write=6000 * MB))
    assert even.seconds == pytest.approx(3 * 2**0.25)
    assert even.help is not None and even.help.seconds == pytest.approx(together(3, 1.5))


def test_a_capture_takes_as_long_as_its_slowest_stage_and_what_comes_before_and_after() -> None:
    # Read 2 s, compress 3 s, send 3 s; the store has written beside that.
    found = forecast_capture(CAPTURE, replace(LAPTOP, compress=200 * MB), CONTROLLER_)
    assert found.seconds == pytest.approx(2 + together(2, 6, 3, 0.5))
    assert found.limit == LAPTOP_CPU
    assert found.resources == pytest.approx({SOURCE_READ: 2, LAPTOP_CPU: 6, NETWORK: 3, CONTROLLER_CPU: 0, STORE: 0.5})
    assert not found.unknown


@pytest.mark.parametrize(
    ("laptop", "controller", "limit", "stages"),
    [
        ({"read": 100 * MB}, {}, SOURCE_READ, (10, 3, 3, 0.5)),
        ({}, {"from_laptop": 10 * MB}, NETWORK, (2, 3, 30, 0.5)),
        ({}, {"store_write": 10 * MB}, STORE, (2, 3, 3, 30)),
        ({}, {"receive_cpu": 1e-7}, CONTROLLER_CPU, (2, 3, 3, 30, 0.5)),
        ({"send_cpu": 4e-7, "processors": 4}, {}, LAPTOP_CPU, (2, 3 + 30, 3, 0.5)),
        ({"read_cpu": 4e-8, "processors": 1}, {}, LAPTOP_CPU, (2, 3 + 40, 3, 0.5)),
    ],
)
def test_each_resource_can_limit_a_capture(
    laptop: dict[str, float], controller: dict[str, float], limit: str, stages: tuple[float, ...]
) -> None:
    found = forecast_capture(CAPTURE, replace(LAPTOP, **laptop), replace(CONTROLLER_, **controller))  # type: ignore[arg-type]
    assert found.limit == limit
    assert found.seconds == pytest.approx(CAPTURE.fixed + together(*stages))
    assert found.help is not None
    assert found.help.resource == limit


@pytest.mark.parametrize(
    ("laptop", "controller", "limit", "stages", "back"),
    [
        # Writing is assumed at half of the read rate, and half of a disk's rate is written in the first stage.
        ({"read": 100 * MB}, {}, TARGET_WRITE, (0.3, 3, 1, 20), (11, 0.5)),
        ({}, {"to_laptop": 10 * MB}, NETWORK, (0.3, 30, 1, 4), (2.2, 0.5)),
        ({}, {"store_read": 10 * MB}, STORE, (30, 3, 1, 4), (2.2, 0.5)),
        ({}, {"send_cpu": 1e-7}, CONTROLLER_CPU, (0.3, 30, 3, 1, 4), (2.2, 0.5)),
        ({"decompress": 40 * MB}, {}, TARGET_CPU, (0.3, 3, 30, 4), (2.2, 0.5)),
        ({"receive_cpu": 1e-7}, {}, TARGET_CPU, (0.3, 3, 1 + 30, 4), (2.2, 0.5)),
        ({"hash": 50 * MB}, {}, TARGET_CPU, (0.3, 3, 1, 4), (2.2, 26)),
    ],
)
def test_each_resource_can_limit_a_restore(
    laptop: dict[str, float],
    controller: dict[str, float],
    limit: str,
    stages: tuple[float, ...],
    back: tuple[float, ...],
) -> None:
    found = forecast_restore(RESTORE, replace(LAPTOP, **laptop), replace(CONTROLLER_, **controller))  # type: ignore[arg-type]
    assert found.limit == limit
    assert found.seconds == pytest.approx(together(*stages) + together(*back))


def test_a_look_and_the_read_back_are_the_target_disks() -> None:
    work = replace(RESTORE, written=0, content=0, sent=0, looked=500 * MB, back=1500 * MB)
    found = forecast_restore(work, LAPTOP, CONTROLLER_)
    assert found.limit == TARGET_READ
    assert found.seconds == pytest.approx(1 + together(3, 0.5))


def test_a_rotating_disk_is_written_as_fast_as_it_is_read_and_zeros_are_written() -> None:
    rotating = forecast_restore(RESTORE, replace(LAPTOP, read=100 * MB, rotational=True), CONTROLLER_)
    assert rotating.resources[TARGET_WRITE] == pytest.approx(11)
    assert forecast_restore(RESTORE, LAPTOP, CONTROLLER_).resources[TARGET_WRITE] == pytest.approx(4)


def test_what_would_help_most_is_what_gains_most() -> None:
    found = forecast_capture(CAPTURE, replace(LAPTOP, compress=200 * MB), CONTROLLER_)
    # Six seconds of compressing become three, which is what the network takes.
    assert found.help is not None
    assert found.help.resource == LAPTOP_CPU
    assert found.help.seconds == pytest.approx(2 + together(2, 3, 3, 0.5))
    assert found.advice().startswith("Twice the processor in the laptop would help most: 5.7 s instead of 8.1 s")


def test_of_a_slow_target_a_better_disk_reads_and_writes_faster() -> None:
    found = forecast_restore(RESTORE, replace(LAPTOP, read=100 * MB), CONTROLLER_)
    assert found.help is not None
    assert found.help.resource == TARGET_WRITE
    assert found.help.seconds == pytest.approx(together(0.3, 3, 1, 10) + together(5.5, 0.5))
    assert found.advice().startswith("A disk twice as fast in the laptop would help most: 15.5 s instead of 31.0 s")


def test_of_a_fast_ethernet_a_gigabit_is_what_is_compared() -> None:
    slow = replace(CONTROLLER_, from_laptop=11.7 * MB, link=11.75 * MB)
    found = forecast_capture(CAPTURE, LAPTOP, slow)
    assert found.help is not None
    assert found.help.words == "A gigabit network instead of one of 100 Mbit/s"
    assert found.help.seconds == pytest.approx(2 + together(2, 3, 300 * MB / GIGABIT, 0.5))
    faster = forecast_capture(CAPTURE, LAPTOP, replace(CONTROLLER_, from_laptop=30 * MB))
    assert faster.help is not None
    assert faster.help.words == "A network twice as fast"


def test_a_gigabit_that_ten_laptops_share_is_no_fast_ethernet() -> None:
    shared = replace(CONTROLLER_, to_laptop=GIGABIT, link=GIGABIT)
    found = forecast_restore(RESTORE, LAPTOP, shared, at_once=10)
    assert found.limit == NETWORK
    assert found.help is not None
    assert found.help.words == "A network twice as fast"
    assert found.help.seconds == pytest.approx(together(0.3, 1500 * MB / GIGABIT, 1, 4) + together(2.2, 0.5))


def test_when_nothing_gains_by_itself_it_is_said() -> None:
    # It is little beside what takes its time whatever the machines are like.
    found = forecast_capture(replace(CAPTURE, fixed=600), LAPTOP, CONTROLLER_)
    assert found.help is None
    assert found.advice() == "No single part would help by being twice as fast."


def test_laptops_at_once_share_link_store_and_processors_of_the_controller() -> None:
    controller = replace(CONTROLLER_, link=200 * MB, send_cpu=1e-9)
    one = forecast_restore(RESTORE, LAPTOP, controller)
    eight = forecast_restore(RESTORE, LAPTOP, controller, at_once=8)
    assert one.resources[NETWORK] == pytest.approx(3)
    assert eight.resources[NETWORK] == pytest.approx(8 * 300 / 200)
    assert eight.resources[CONTROLLER_CPU] == pytest.approx(2 * one.resources[CONTROLLER_CPU])
    assert eight.resources[STORE] == pytest.approx(one.resources[STORE])
    small = forecast_restore(RESTORE, LAPTOP, replace(controller, cache=100 * MB), at_once=8)
    assert small.resources[STORE] == pytest.approx(8 * one.resources[STORE])
    assert eight.resources[TARGET_CPU] == one.resources[TARGET_CPU]


def test_of_a_connection_of_unknown_speed_no_more_is_taken_to_come_than_was_measured() -> None:
    assert forecast_restore(RESTORE, LAPTOP, CONTROLLER_, at_once=5).resources[NETWORK] == pytest.approx(15)


def test_laptops_beyond_the_forks_come_in_further_groups() -> None:
    assert for_all(10.0, 30, 64) == 10.0
    assert for_all(10.0, 65, 64) == 20.0
    assert for_all(10.0, 1, 1) == 10.0


@pytest.mark.parametrize("missing", [None, 0.0])
def test_what_was_not_measured_is_left_out_and_named(missing: float | None) -> None:
    laptop = Machine(read=missing or 0.0, compress=missing, decompress=missing, hash=missing)
    nothing = Controller(from_laptop=missing, to_laptop=missing, store_write=missing, store_read=missing)
    capture = forecast_capture(CAPTURE, laptop, nothing)
    assert capture.unknown == sorted([SOURCE_READ, LAPTOP_CPU, NETWORK, STORE])
    assert (capture.seconds, capture.help) == (2.0, None)
    restore = forecast_restore(RESTORE, laptop, nothing)
    assert restore.unknown == sorted([STORE, NETWORK, TARGET_CPU, TARGET_WRITE, TARGET_READ])
    assert restore.seconds == 0.0
    assert forecast_capture(CAPTURE, replace(LAPTOP, compress=None), CONTROLLER_).limit == NETWORK


def test_of_an_empty_disk_nothing_is_expected() -> None:
    found = forecast_capture(CaptureWork(0, 0, 0), LAPTOP, CONTROLLER_)
    assert (found.seconds, found.limit, found.help) == (0.0, "", None)
    assert forecast_restore(RestoreWork(0, 0, 0, 0, 0, 0), LAPTOP, CONTROLLER_).seconds == 0.0


def test_a_slow_store_holds_a_capture_up() -> None:
    found = forecast_capture(CAPTURE, LAPTOP, replace(CONTROLLER_, store_write=10 * MB))
    assert found.limit == STORE
    assert found.seconds == pytest.approx(CAPTURE.fixed + together(2, 3, 3, CAPTURE.sent / (10 * MB)))


def test_a_forecast_as_a_result() -> None:
    result = forecast_capture(CAPTURE, replace(LAPTOP, compress=200 * MB), CONTROLLER_).to_json()
    assert (result["seconds"], result["limit"]) == (8.109, LAPTOP_CPU)
    assert result["help"]["resource"] == LAPTOP_CPU
    assert result["help"]["seconds"] == 5.653
    assert Forecast(0.0, "").to_json()["help"] is None
