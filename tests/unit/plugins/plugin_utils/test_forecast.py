# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of a forecast, on trials that were made up."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import STREAMING, Status
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.forecast import Forecast, forecast, measured_rates
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import (
    CONTROLLER_CPU,
    NETWORK,
    STORE,
    TARGET_CPU,
    TARGET_READ,
    TARGET_WRITE,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter

MB = 1_000_000
STREAM = {NETWORK: 0.9, CONTROLLER_CPU: 0.1, STORE: 0.05, TARGET_WRITE: 0.3, TARGET_CPU: 0.2}
RESTORE = Forecast(((STREAM, 20.0), ({TARGET_READ: 1.0, TARGET_CPU: 0.4}, 5.0)), 1.0)


def test_a_forecast_as_a_result() -> None:
    assert RESTORE.to_json() == {
        "seconds": 26.0,
        "limit": NETWORK,
        "code": "network",
        "resources": {
            NETWORK: 18.0,
            CONTROLLER_CPU: 2.0,
            STORE: 1.0,
            TARGET_WRITE: 6.0,
            TARGET_CPU: 6.0,
            TARGET_READ: 5.0,
        },
        "advice": "A network twice as fast would help most: 16.0 s instead of 26.0 s.",
    }


def test_what_limits_then_is_named_if_it_is_something_else() -> None:
    found = Forecast((({**STREAM, TARGET_WRITE: 0.8}, 20.0),)).to_json()
    assert found["advice"].endswith(f"17.8 s instead of 20.0 s, and {TARGET_WRITE} is the limit then.")


def test_of_a_slow_target_a_better_disk_reads_and_writes_faster() -> None:
    found = Forecast((({**STREAM, NETWORK: 0.1, TARGET_WRITE: 1.0}, 20.0), ({TARGET_READ: 1.0}, 10.0))).to_json()
    assert found["limit"] == TARGET_WRITE
    assert found["advice"] == "A disk twice as fast in the laptop would help most: 15.0 s instead of 30.0 s."


def test_when_nothing_gains_by_itself_it_is_said() -> None:
    # It is little beside what takes its time whatever the machines are like.
    found = Forecast(((STREAM, 1.0),), 600.0).to_json()
    assert found["advice"] == "No single part would help by being twice as fast."


def test_laptops_at_once_share_link_and_processors_of_the_controller() -> None:
    few = RESTORE.shared(2, 0.1, 4)
    assert few.seconds == RESTORE.seconds
    network = RESTORE.shared(8, 0.5, 4)
    assert network.seconds == pytest.approx(1 + 4 * 20 + 5)
    assert network.bottlenecks().limit == NETWORK
    assert RESTORE.shared(40, 0.0, 40).seconds == RESTORE.seconds
    processor = RESTORE.shared(40, 0.0, 2)
    assert processor.seconds == pytest.approx(1 + 2 * 20 + 5)
    assert processor.bottlenecks().limit == CONTROLLER_CPU


class Controller:
    """Its stopwatches and the link, at a time."""

    def __init__(self) -> None:
        self.now = 100.0

    def stages(self) -> dict[str, dict[str, float]]:
        seconds = self.now - 100.0
        return {"send": {"busy": 0.9 * seconds, "wait": 0.0, "cpu": 0.0}}

    def wire(self) -> int:
        return int(10 * MB * (self.now - 100.0))


def trial(seconds: int, total: int = 1000 * MB, data_total: int = 900 * MB) -> Meter:
    """A trial of a restore that gets on by 20 MB/s of what is written, 10 MB/s over the link, on which everybody waits."""
    there = Controller()
    watches: Stopwatches = there  # type: ignore[assignment]
    meter = Meter(watches, there.wire, frames=450 * MB, clock=lambda: there.now)
    for second in range(seconds + 1):
        there.now = 100.0 + second
        stages = {
            "receive": {"busy": 0.95 * second, "wait": 0.0, "cpu": 0.0},
            "write": {"busy": 0.2 * second, "wait": 0.8 * second, "cpu": 0.0},
            "read": {"busy": 1.0, "wait": 0.0, "cpu": 0.0},
            "compare": {"busy": 0.4, "wait": 0.0, "cpu": 0.0},
        }
        done = 20 * MB * second
        status = Status(STREAMING, done, total, done, data_total, float(second), stages, scanned=100 * MB, written=done)
        meter.update(status.pack())
    return meter


def test_the_rest_of_a_restore_goes_on_as_its_trial_did_and_is_read_back() -> None:
    found = forecast(trial(10), 12.5, {"rotational": False, "write_rate": 100.0 * MB})
    # 2.5 s before and after, 450 MB over the link at 10 MB/s, 1000 MB that are read at 100 MB/s.
    assert found.seconds == pytest.approx(2.5 + 45 + 10)
    result = found.to_json()
    assert result["limit"] == NETWORK
    assert result["resources"][NETWORK] == pytest.approx(0.9 * 45)
    assert result["resources"][TARGET_READ] == pytest.approx(10)


def test_zeros_are_written_to_a_disk_that_rotates() -> None:
    still, rotating = (
        forecast(trial(10), 10.0, {"rotational": rotational, "write_rate": 50.0 * MB}).seconds
        for rotational in (False, True)
    )
    assert rotating == pytest.approx(still + 2)


def test_rates_are_those_of_the_time_in_which_a_stage_was_busy() -> None:
    rates = measured_rates(trial(10), capturing=False)
    assert (rates["read"], rates["link"], rates["store"]) == (100 * MB, 10 * MB, None)


def test_a_trial_in_which_nothing_came_has_no_forecast() -> None:
    with pytest.raises(ImagingError, match="Too little came over the link"):
        forecast(Meter(Stopwatches(), lambda: 0), 1.0)
    with pytest.raises(ImagingError, match="Too little came over the link"):
        forecast(trial(0), 1.0)
