# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples to rates, and to plots."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.report.rates import (
    POINTS,
    Span,
    samples,
    shifted,
    spans,
    summed,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.svg import highest, throughput_plot

from .runs import timeline

MIB = 1 << 20


def test_a_span_is_what_was_done_between_two_samples() -> None:
    assert spans([(0.0, 0, "streaming"), (2.0, 10, "streaming"), (3.0, 40, "streaming")]) == [
        Span(0.0, 2.0, 10, "streaming"),
        Span(2.0, 3.0, 30, "streaming"),
    ]


def test_bytes_begin_anew_when_a_disk_is_read_back() -> None:
    found = spans([(1.0, 100, "streaming"), (1.0, 0, "verifying"), (2.0, 100, "verifying")])
    assert found == [Span(0.0, 1.0, 100, "streaming"), Span(1.0, 2.0, 100, "verifying")]
    # Read back so fast that there is one sample of it.
    assert spans([(1.0, 100, "streaming"), (2.0, 100, "verifying")])[1] == Span(1.0, 2.0, 100, "verifying")


def test_two_samples_of_one_moment() -> None:
    found = spans([(1.0, 10, "streaming"), (1.0, 30, "streaming"), (2.0, 50, "streaming")])
    assert sum(span.size for span in found) == 50


def test_what_was_before_the_transfer_is_left_out() -> None:
    assert spans([(20.0, 0, "streaming"), (21.0, 10, "streaming")]) == [Span(20.0, 21.0, 10, "streaming")]
    found = spans([(20.0, 5, "streaming"), (21.0, 15, "streaming")])
    assert found == [Span(19.0, 20.0, 5, "streaming"), Span(20.0, 21.0, 10, "streaming")]
    assert spans([(20.0, 5, "streaming")]) == [Span(0.0, 20.0, 5, "streaming")]


def test_samples_that_came_late_all_at_once_tell_only_how_much_was_done_by_then() -> None:
    late = [(float(1), 10, "streaming"), *((21 + part / 1000, 10 + 10 * part, "streaming") for part in range(1, 41))]
    assert [(span.start, span.end, span.size) for span in spans(late)] == [(0.0, 1.0, 10), (1.0, 21.04, 400)]


def test_phases_too_short_for_a_rate_and_those_that_move_nothing() -> None:
    found = spans(
        [
            (10.0, 500, "streaming"),
            (10.001, 70, "zeroing"),
            (10.002, 500, "flushing"),
            (14.0, 500, "flushing"),
            (15.0, 0, "verifying"),
            (16.0, 500, "verifying"),
        ]
    )
    assert [(span.phase, span.size) for span in found if span.size] == [("streaming", 500), ("verifying", 500)]
    assert found[-1].rate == 500


@pytest.mark.parametrize(
    "strange",
    [None, "x", [], [[]], [[1]], [["a", 1, "b"]], [[1, None, "b"]], [[float("nan"), 1, "b"]], {"a": 1}, [[-1, 1]]],
)
def test_what_is_no_sample_is_left_out(strange: object) -> None:
    assert samples(strange) == []


def test_samples_that_go_back_in_time_are_left_out() -> None:
    assert samples([[5, 1, "a"], [4, 9, "a"], [6, 2, "a"]]) == [(5.0, 1, "a"), (6.0, 2, "a")]


def test_the_sum_of_a_fleet_is_the_sum_of_its_laptops() -> None:
    one = spans(samples(timeline(60)))
    together = summed([*one, *shifted(one, 33.3), *shifted(one, 1000.0)])
    assert sum(span.size for span in together) == pytest.approx(3 * sum(span.size for span in one))
    assert together[-1].end == pytest.approx(1066.0)
    assert len(together) <= 2 * POINTS
    assert summed([]) == []


def test_what_happens_at_one_time_adds_up() -> None:
    assert highest([Span(0, 1, 5, "streaming"), Span(0, 1, 3, "verifying"), Span(1, 2, 7, "streaming")]) == 8
    assert highest([]) == 0


@pytest.mark.parametrize(
    "found",
    [
        [],
        [Span(0, 1e-9, 1, "streaming")],
        [Span(0, 0.3, 5 * MIB, "streaming")],
        [Span(0, 100000, 5, "x")],
        [Span(0, 1, 1e300, "streaming")],
        spans(samples(timeline(7))),
    ],
)
def test_a_plot_is_xml_with_a_title_and_finite_numbers(found: list[Span]) -> None:
    title = 'of "><script>alert(1)</script>\x1b\u202e\ud800 & others'
    plot = ET.fromstring(throughput_plot(title, found, max((span.end for span in found), default=0.0), highest(found)))
    assert plot[0].tag == "title"
    assert plot[0].text == 'of "><script>alert(1)</script>\\x1b\\u202e\\ud800 & others'
    assert {element.tag for element in plot.iter()} <= {"svg", "title", "line", "text", "path"}
    assert sum("B/s" in (element.text or "") for element in plot.iter("text")) == 3
    numbers = [value for element in plot.iter() for name, value in element.items() if name not in ("class", "role")]
    assert not any("nan" in value or "inf" in value for value in numbers)
    paths = [element.get("class") for element in plot.iter("path")]
    assert len(paths) == len({span.phase for span in found})
