# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one model of what limits transfers, on times that were made up."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.bottlenecks import Bottlenecks
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import (
    NETWORK,
    STORE,
    TARGET_CPU,
    TARGET_READ,
    TARGET_WRITE,
)


def made(*spans: tuple[dict[str, float], float]) -> Bottlenecks:
    found = Bottlenecks()
    for busy, seconds in spans:
        found.charge(busy, seconds)
    return found


RESTORE = made(({NETWORK: 0.9, TARGET_WRITE: 0.3}, 20.0), ({TARGET_READ: 1.0, TARGET_CPU: 0.4}, 10.0))


def test_time_is_charged_to_what_was_busiest() -> None:
    assert (RESTORE.limit, RESTORE.seconds) == (NETWORK, 30.0)
    assert RESTORE.shares() == pytest.approx({NETWORK: 2 / 3, TARGET_READ: 1 / 3})
    assert RESTORE.busy() == pytest.approx({NETWORK: 0.9, TARGET_WRITE: 0.3})
    assert RESTORE.resources() == pytest.approx({NETWORK: 18, TARGET_WRITE: 6, TARGET_READ: 10, TARGET_CPU: 4})


def test_what_limited_is_the_mean_of_the_times_in_which_it_did() -> None:
    found = made(({NETWORK: 0.8, STORE: 0.2}, 1.0), ({NETWORK: 1.0, STORE: 0.6}, 3.0))
    assert found.busy() == pytest.approx({NETWORK: 0.95, STORE: 0.5})


def test_what_is_faster_takes_half_the_time_unless_something_else_limits_before() -> None:
    found = RESTORE.faster((NETWORK,))
    assert found.seconds == pytest.approx(10 + 10)
    assert made(({NETWORK: 0.9, STORE: 0.6}, 9.0)).faster((NETWORK,)).seconds == pytest.approx(6)
    assert made(({NETWORK: 0.9, STORE: 0.6}, 9.0)).faster((NETWORK,)).limit == STORE
    assert RESTORE.faster((STORE,)).seconds == pytest.approx(30)


def test_one_disk_that_is_faster_is_so_in_all_phases() -> None:
    found = made(({TARGET_WRITE: 1.0, NETWORK: 0.1}, 20.0), ({TARGET_READ: 1.0, TARGET_CPU: 0.4}, 10.0))
    assert found.faster((TARGET_WRITE, TARGET_READ)).seconds == pytest.approx(15)


def test_no_time_has_no_limit() -> None:
    nothing = Bottlenecks()
    assert (nothing.limit, nothing.seconds, nothing.shares(), nothing.resources()) == ("", 0, {}, {})
    assert nothing.faster((NETWORK,)).seconds == 0
    assert made(({NETWORK: 0.0}, 5.0)).faster((NETWORK,)).seconds == 5.0
