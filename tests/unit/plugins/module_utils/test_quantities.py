# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, rates and durations have one form each, and what is none of them spoils no table."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.quantities import clock, duration, rate, size

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (12, "12 B"),
        (KIB, "1.0 KiB"),
        (744 * MIB, "744.0 MiB"),
        (1.5 * GIB, "1.5 GiB"),
        (2 * TIB, "2.0 TiB"),
    ],
)
def test_a_size(value: float, shown: str) -> None:
    assert size(value) == shown


def test_a_part_of_a_size_has_the_unit_of_the_whole() -> None:
    assert (size(5.2 * GIB, 12.6 * GIB), size(0.4 * GIB, 2 * GIB)) == ("5.2 of 12.6 GiB", "0.4 of 2.0 GiB")
    assert (size(0, 0), size(5, 12)) == ("0 of 0 B", "5 of 12 B")


def test_a_rate() -> None:
    assert (rate(212e6), rate(9.96e6), rate(4.26e6), rate(0)) == ("212 MB/s", "10 MB/s", "4.3 MB/s", "0.0 MB/s")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (3.14, "3.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (330, "5 min 30 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_a_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_duration_where_there_is_little_room() -> None:
    assert [clock(each) for each in (35.4, 59.9, 728, 3723)] == ["0:35", "1:00", "12:08", "1:02:03"]


@pytest.mark.parametrize("value", [None, "odd", [], {}, True, -1, float("nan"), float("inf"), 10**400])
def test_what_is_no_quantity_is_unknown(value: Any) -> None:
    assert (size(value), rate(value), duration(value), clock(value)) == ("-", "-", "-", "-:--")
