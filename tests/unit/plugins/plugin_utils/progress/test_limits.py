# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stage limits, by made-up busy times; and that each limit has its advice."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import documented_fields
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import (
    CONTROLLER_CPU,
    LAPTOP_CPU,
    LIMITS,
    MIRROR,
    NETWORK,
    OTHER_LAPTOPS,
    SOURCE_READ,
    STORE,
    TARGET_CPU,
    TARGET_READ,
    TARGET_WRITE,
    AdviceContext,
    Shares,
    Usage,
    advise,
    limiting,
    shares,
)

Times = dict[str, tuple[float, float]]


def usage(seconds: float, laptop: Times, there: Times, cpu: float = 0.0, controller_cpu: float = 0.0) -> Usage:
    """Busy seconds, and how many of them a processor was used, for each stage."""
    stages = [
        {name: {"busy": busy, "cpu": used, "wait": 0.0} for name, (busy, used) in times.items()}
        for times in (laptop, there)
    ]
    return Usage(seconds, stages[0], cpu, seconds, stages[1], controller_cpu, workers=2, processors=2)


START = usage(0, {}, {})
CAPTURES: list[tuple[str, Usage]] = [
    (
        NETWORK,
        usage(
            10, {"read": (1, 0), "compress": (4, 4), "send": (9.5, 0.3)}, {"receive": (9.5, 0.5), "store": (0.3, 0.2)}
        ),
    ),
    (SOURCE_READ, usage(10, {"read": (9.7, 0.3), "compress": (4, 4), "send": (0.5, 0.2)}, {"receive": (9.5, 0.2)})),
    (
        LAPTOP_CPU,
        usage(10, {"read": (1, 0), "hash": (2, 2), "compress": (17.5, 17), "send": (1, 0.2)}, {"receive": (9.5, 0.2)}),
    ),
    # One processor, on which everything takes its turn: no stage alone is busy all the time.
    (LAPTOP_CPU, usage(10, {"read": (3, 3), "compress": (9, 9), "send": (3, 3)}, {"receive": (9, 0.2)}, cpu=19.0)),
    (
        STORE,
        usage(
            10, {"read": (1, 0), "compress": (4, 4), "send": (9.5, 0.2)}, {"receive": (0.5, 0.1), "store": (9.4, 0.3)}
        ),
    ),
    (
        CONTROLLER_CPU,
        usage(10, {"compress": (4, 4), "send": (9.5, 0.2)}, {"receive": (9, 8.5), "check": (1, 1)}, controller_cpu=9.6),
    ),
]
RESTORES: list[tuple[str, Usage]] = [
    (
        NETWORK,
        usage(
            10,
            {"receive": (9.2, 0.4), "decompress": (2, 2), "write": (2, 0.1)},
            {"send": (9.8, 0.4), "read store": (0.1, 0.1)},
        ),
    ),
    (TARGET_WRITE, usage(10, {"receive": (0.5, 0.2), "decompress": (2, 2), "write": (9.8, 0.2)}, {"send": (9.9, 0.2)})),
    (TARGET_WRITE, usage(10, {"flush": (9.9, 0.0)}, {})),
    (
        OTHER_LAPTOPS,
        usage(10, {"fetch from peers": (9.2, 0.4), "receive": (0.2, 0.1), "decompress": (2, 2), "write": (2, 0.1)}, {}),
    ),
    (
        MIRROR,
        usage(
            10, {"fetch from mirror": (9.2, 0.4), "receive": (0.2, 0.1), "decompress": (2, 2), "write": (2, 0.1)}, {}
        ),
    ),
    (
        TARGET_CPU,
        usage(
            10, {"receive": (0.5, 0.2), "hash": (9, 9), "decompress": (10, 10), "write": (1, 0.1)}, {"send": (9.9, 0.2)}
        ),
    ),
    (STORE, usage(10, {"receive": (9.5, 0.2), "write": (1, 0.1)}, {"send": (0.3, 0.2), "read store": (9.6, 0.3)})),
    (CONTROLLER_CPU, usage(10, {"receive": (9.5, 0.2), "write": (1, 0.1)}, {"send": (9.8, 1.0)}, controller_cpu=9.9)),
    (TARGET_READ, usage(10, {"read": (9.8, 0.2), "compare": (9, 9)}, {})),
]


@pytest.mark.parametrize(
    ("limit", "after", "capturing"), [(*case, True) for case in CAPTURES] + [(*case, False) for case in RESTORES]
)
def test_the_busiest_is_the_limit(limit: str, after: Usage, capturing: bool) -> None:
    busy = shares(START, after, capturing)
    assert limiting(busy) == limit, busy
    assert busy[limit] > 0.85 and all(0 <= share <= 1 for share in busy.values())


def test_a_laptop_that_does_not_send_does_not_blame_the_link() -> None:
    """The controller waits all the time in both cases; only in one the laptop has something to send."""
    idle = shares(START, usage(10, {"read": (9.9, 0.1), "send": (0.4, 0.2)}, {"receive": (9.9, 0.1)}), True)
    assert idle[NETWORK] < 0.05


@pytest.mark.parametrize("limit", LIMITS)
def test_each_limit_has_advice(limit: str) -> None:
    said = advise(limit, {limit: 0.94}, AdviceContext(11.2e6, 85e6, 3, workers=2))
    assert said["advice"] == f"{limit} 94% busy: {said['explanation']}" and len(str(said["explanation"])) > 40
    documented = documented_fields("image_restore")["limited_by"]["contains"]
    assert said.keys() == documented.keys() and f"V({said['code']})" in documented["code"]["description"]


def explained(limit: str, busy: Shares, context: AdviceContext) -> str:
    return str(advise(limit, busy, context)["explanation"])


def test_advice_depends_on_the_circumstances() -> None:
    busy = {NETWORK: 0.94, LAPTOP_CPU: 0.39}
    slow = explained(NETWORK, busy, AdviceContext(wire_rate=11.2e6, level=3))
    assert "11 MB/s came through" in slow and "would trade idle CPU (61%) for fewer bytes" in slow
    assert "zstd level" not in explained(NETWORK, busy, AdviceContext(wire_rate=11.2e6, level=3, automatic=True))
    assert "zstd level" not in explained(NETWORK, {NETWORK: 0.94}, AdviceContext(wire_rate=11.2e6)), (
        "a restore compresses nothing"
    )
    full = explained(NETWORK, busy, AdviceContext(wire_rate=114e6, level=12, laptops=4))
    assert "fill a gigabit link" in full and "4 laptops share" in full and "zstd" not in full
    assert "follows what the link takes" in explained(LAPTOP_CPU, busy, AdviceContext(level=6, automatic=True))
    assert "imaging_compression_level: auto" in explained(LAPTOP_CPU, busy, AdviceContext(level=6))
    assert "makes the image larger" in explained(LAPTOP_CPU, busy, AdviceContext(level=3, automatic=True))
    assert "leaves out SSH" in explained(CONTROLLER_CPU, {CONTROLLER_CPU: 0.99}, AdviceContext(over_ssh=True))
    assert "encrypt" not in explained(CONTROLLER_CPU, {CONTROLLER_CPU: 0.99}, AdviceContext())
