# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that are shown, and how many of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.line import (
    MAX_EVENT_SIZE,
    ProgressEvent,
    plain_line,
    rows,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.publisher import Throttle
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.table import Table

GIB = 1 << 30
EVENT = ProgressEvent(
    "lab-01", "streaming", int(5.2 * GIB), int(12.6 * GIB), 0.41, 212e6, 198e6, 35.0, "target disk write", 0.91
)


def test_a_plain_line() -> None:
    assert plain_line(EVENT) == (
        "lab-01   41 %  5.2 of 12.6 GiB  212 MB/s  mean 198 MB/s  eta 0:35  streaming  limited by: target disk write 91%"
    ).replace("   41", "  41")
    assert plain_line(ProgressEvent("lab-01", "connecting")) == "lab-01  connecting"


@pytest.mark.parametrize("width", range(20, 200, 7))
def test_lines_fit_any_width_and_stay_aligned(width: int) -> None:
    other = replace(EVENT, host="reference-01", state="reconnecting", detail="12/120 s", limit="", done=0, eta=None)
    lines = rows([EVENT, other, ProgressEvent("lab-03", "connecting")], width)
    assert len(lines) == 3 and all(len(line) <= width for line in lines)
    assert all(line.startswith(host) for line, host in zip(lines, ("lab-01", "reference-01", "lab-03"), strict=True))
    if width > 60:
        assert "#" in lines[0] and "41 %" in lines[0] and "eta 0:35" in lines[0]
        assert lines[0].index("%") == lines[1].index("%")
    if width > 95:
        assert "target disk write 91%" in lines[0] and "reconnecting 12/120 s" in lines[1]


def test_names_can_not_write_to_the_terminal() -> None:
    wild = replace(EVENT, host="a\x1b[2Jb\u202ec\r\n")
    assert plain_line(wild).startswith("a\\x1b[2Jb\\u202ec  ")
    assert "\x1b" not in rows([wild], 100)[0]


def test_what_limits_a_chain_is_what_limits_those_that_do_not_wait_for_others() -> None:
    table = Table()
    for number in range(8):
        table.update(replace(EVENT, host=f"lab-{number:02}", limit="other laptops" if number else "network"))
    assert "limited by: network 91%" in table.total()
    table.update(replace(EVENT, host="lab-00", ended=True))
    assert "limited by: other laptops 91%" in table.total()


def test_the_slowest_come_first_and_the_rest_is_counted() -> None:
    table = Table()
    for number in range(40):
        table.update(replace(EVENT, host=f"lab-{number:02}", eta=float(number)))
    table.update(replace(EVENT, host="lab-99", ended=True))
    picture = table.render(120, 10, colour=False)
    assert [line.split()[0] for line in picture[:8]] == [f"lab-{number:02}" for number in range(39, 31, -1)]
    assert picture[8] == "and 32 more"
    assert picture[9].startswith("41 laptops  1 done  42%  8480 MB/s  eta 0:39  limited by: target disk write 91%")
    assert len(table.render(120, 100, colour=False)) == 41
    assert table.render(120, 1, colour=False) != [] and len(table.render(120, 1, colour=False)) == 1


def test_one_laptop_needs_no_total_and_none_no_picture() -> None:
    table = Table()
    assert table.render(100, 10, colour=False) == []
    table.update(EVENT)
    assert len(table.render(100, 10, colour=False)) == 1
    table.update(replace(EVENT, ended=True))
    assert table.render(100, 10, colour=False) == []


def test_colour_changes_nothing_but_the_colour() -> None:
    table = Table()
    table.update(EVENT)
    table.update(replace(EVENT, host="lab-02", state="reconnecting", detail="3/120 s"))
    bare, coloured = table.render(150, 10, colour=False), table.render(150, 10, colour=True)
    for code in ("\x1b[32m", "\x1b[33m", "\x1b[0m"):
        assert any(code in line for line in coloured)
        coloured = [line.replace(code, "") for line in coloured]
    assert coloured == bare


def test_plain_lines_come_at_each_tenth_and_every_ten_seconds() -> None:
    now = 0.0
    throttle = Throttle(lambda: now)
    shown = []
    for second in range(101):
        now = float(second)
        if throttle.due(replace(EVENT, done=min(second, 60), total=100)):
            shown.append(second)
    assert shown == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert throttle.due(replace(EVENT, done=1, total=100, state="verifying")) is False
    assert throttle.due(replace(EVENT, done=15, total=100, state="verifying")) is True
    assert throttle.due(replace(EVENT, done=16, total=100, ended=True)) is True
    assert throttle.due(replace(EVENT, done=17, total=100, ended=True)) is False, "it would say the same"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"host":1,"state":"x"}',
        b'{"host":"x","state":"x","eta":NaN}',
        b'{"host":"x","more":1}',
        b"\xff",
    ],
)
def test_what_is_no_news_is_not_taken(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ProgressEvent.unpack(data)


def test_news_survive_their_journey() -> None:
    assert ProgressEvent.unpack(EVENT.pack()) == EVENT
    assert len(replace(EVENT, host="x" * 255).pack()) < MAX_EVENT_SIZE
