# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs bring a hive to the state that Windows will see; where that can't be known, the hive is refused."""

from __future__ import annotations

import io

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.hive import BadHive, Hive
from ansible_collections.fleet.imaging.plugins.module_utils.disk.hive_log import marvin32
from ansible_collections.fleet.imaging.tests.lab.hives import (
    WRITTEN,
    changed,
    entry,
    make_hive,
    new_log,
    old_log,
    unwritten,
)


def state(number: int, more: int = 0) -> bytes:
    """A hive that says which state it is in, and grows with ``more``."""
    return make_hive(
        {
            "Setup": {"State": number, "Text": f"state {number}"},
            **{f"Key{key}": {"x": "y" * 200} for key in range(more)},
        }
    )


STATES = [state(number, 20 * number) for number in range(5)]
STALE = unwritten(STATES[0])


def read(hive: bytes, *logs: bytes) -> str:
    return Hive(io.BytesIO(hive), logs).value("Setup", "State")


@pytest.mark.parametrize(
    ("data", "expected"), [("", 0x30ED35C100CD3C7D), ("af", 0x48E73FC77D75DDC1), ("37f495", 0xF0B07C789B8CF7E8)]
)
def test_the_hash_is_that_of_its_own_tests(data: str, expected: int) -> None:
    """Source: .NET, tests/System/MarvinTests.cs, the first seed."""
    assert int.from_bytes(marvin32(bytes.fromhex(data), 0x004FB61A001BDBCC), "little") == expected


def test_a_hive_that_was_written_wholly_needs_no_log() -> None:
    asked = (pytest.fail("a log was asked for") for dummy in [1])
    assert Hive(io.BytesIO(STATES[2]), asked).value("Setup", "State") == "2"
    assert read(STATES[2], new_log(STATES[2:], 1)) == "2"


@pytest.mark.parametrize("last", [1, 0xFFFFFFFF])
def test_the_entries_of_a_log_are_written_in_their_order(last: int) -> None:
    hive = unwritten(STATES[0], last) if last == 1 else changed(STATES[0], primary=0, secondary=last)
    log = changed(new_log(STATES[:1], last), primary=last, secondary=last) + b"".join(
        new_log(STATES[number : number + 2], (last + number) % (1 << 32))[512:] for number in range(4)
    )
    assert read(hive, log) == "4"


@pytest.mark.parametrize("turned", [False, True])
def test_two_logs_are_one_row(turned: bool) -> None:
    logs = [new_log(STATES[:3], 1), new_log(STATES[2:], 3)]
    assert read(STALE, *(reversed(logs) if turned else logs)) == "4"


def test_entries_that_were_written_already_are_left_out() -> None:
    old = new_log([STATES[0], STATES[4], STATES[0]], 5)
    hive = unwritten(STATES[2], 7)
    assert read(hive, old, new_log(STATES[2:4], 7)) == "3"
    both = new_log([STATES[1], STATES[2], STATES[3]], 6)  # the first is in the hive, the second is not
    assert read(hive, both) == "3"


def test_what_lies_behind_the_last_entry_is_of_an_older_row() -> None:
    log = new_log(STATES[:3], 1) + new_log([STATES[4], STATES[0]], 1)[512:]
    assert read(STALE, log) == "2"


def test_an_entry_that_was_not_written_wholly_never_was() -> None:
    whole = new_log(STATES[:3], 1)
    first = len(new_log(STATES[:2], 1))
    for damaged in (
        whole[:-1],
        whole[: first + 20],
        whole[: first + 60] + b"?" + whole[first + 61 :],
        whole[: first + 8] + b"?" + whole[first + 9 :],
    ):
        assert read(STALE, damaged) == "1"


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        ([], "no log of that write"),
        ([b"", bytes(4096), b"regf"], "no log of that write"),
        ([new_log(STATES[:2], 1)[:700]], "do not hold what is missing"),
        ([new_log(STATES[:2], 3)], "entry 1 was expected, 3 found"),
        ([new_log(STATES[:2], 1), new_log(STATES[2:4], 3)], "entry 2 was expected, 3 found"),
        ([changed(new_log(STATES[:2], 1), primary=9)], "no log of that write"),  # not written wholly itself
        ([new_log(STATES[:2], 1)[:508] + b"?" + new_log(STATES[:2], 1)[509:]], "no log of that write"),
        ([old_log(STATES[0], changed(STATES[1], written=WRITTEN + 1))], "no log of that write"),
        ([old_log(STATES[0], STATES[1])[:-1]], "no log of that write"),
    ],
)
def test_where_the_logs_do_not_say_the_state_is_not_known(logs: list[bytes], words: str) -> None:
    with pytest.raises(BadHive, match=words):
        read(STALE, *logs)


def test_a_log_in_the_old_format_is_written() -> None:
    for number in range(1, 5):
        assert read(STALE, old_log(STATES[0], STATES[number])) == str(number)
    torn = old_log(STATES[0], STATES[1])[:-1]
    assert read(STALE, torn, old_log(STATES[0], STATES[2])) == "2"


def test_a_log_of_the_new_format_counts_before_one_of_the_old() -> None:
    assert read(STALE, old_log(STATES[0], STATES[1]), new_log([STATES[0], STATES[2]], 1)) == "2"


def test_a_log_whose_pages_leave_a_hole_is_refused() -> None:
    log = new_log(STATES[:1], 1) + entry(1, 1 << 30, [((1 << 30) - 4096, bytes(4096))])
    with pytest.raises(BadHive, match="would be nothing"):
        read(STALE, log)


def test_a_hive_that_the_logs_leave_damaged_is_refused() -> None:
    log = new_log(STATES[:1], 1) + entry(1, len(STATES[0]) - 4096, [(0, bytes(4096))])
    with pytest.raises(BadHive, match="bin at 0x0"):
        read(STALE, log)
