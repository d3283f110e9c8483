# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a report."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.outcome import CAPTURE, SHARE, Failure
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.page import render
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.summary import summary
from ansible_collections.fleet.imaging.plugins.plugin_utils.run import Run

from .runs import closed, end, fleet, new_run, relayed, restored

VOID = {"meta"}
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "section",
        "h1",
        "h2",
        "h3",
        "p",
        "dl",
        "div",
        "dt",
        "dd",
    ),
    *(
        "time",
        "bdi",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "a",
        "span",
        "small",
        "strong",
        "q",
        "pre",
        "ul",
        "li",
        "figure",
    ),
    *("figcaption", "svg", "line", "text", "path", "rect", "desc", "ol"),
}
ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "style",
        "datetime",
        "id",
        "aria-labelledby",
        "aria-hidden",
        "role",
        "scope",
    ),
    *(
        "data-label",
        "colspan",
        "href",
        "viewbox",
        "preserveaspectratio",
        "width",
        "height",
        "x",
        "y",
        "x1",
        "x2",
        "y1",
        "y2",
        "dx",
        "dy",
    ),
    *("text-anchor", "d", "rx", "stroke-width", "stroke-dasharray"),
}
HOSTILE = "\"><script>alert(1)</script><!--\u202e\u2066evil\x1b[2J\x00\ud800\u2028{{ 7 * 7 }}{% raw %}]]>' onload=x"


class Page(HTMLParser):
    """A page that was read, and found to be well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open  # elsewhere in HTML, "/>" closes nothing
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def checked(run: Run) -> Page:
    """The page of a run, which has nothing in it that a report does not have."""
    text = render(summary(run))
    page = Page(text)
    assert page.elements <= ELEMENTS
    assert {name for name, _value in page.attributes} <= ATTRIBUTES
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert all(value.startswith("#") and value[1:] in ids for name, value in page.attributes if name == "href")
    assert all(value in ids for name, value in page.attributes if name == "aria-labelledby")
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert (
        "url(" not in text
        and "@import" not in text
        and "//" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
    )
    # What a terminal, an editor or a browser could take for more than text; lone halves of characters can't be written.
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", text)
    text.encode()
    for plot in re.findall(r"<svg class=\"plot\".*?</svg>(?=</div>)|<svg class=\"chain\".*?</svg>", text):
        ET.fromstring(plot)
    return page


def test_a_fleet() -> None:
    page = checked(fleet(4, failed=1))
    for words in (
        "3 of 4 laptops restored and verified; 1 failed.",
        "the disk is failing",
        "Samsung SSD 980 PRO",
        "ada@imaging-01",
        "2026-11-26 04:36 UTC".replace(" ", "\N{NO-BREAK SPACE}"),
        "1 min 10 s".replace(" ", "\N{NO-BREAK SPACE}"),
        "Connect the controller with more than 1 Gbit/s.",
        "network 81\N{NO-BREAK SPACE}%",
        "zstandard",
        "All 3 laptops together",
    ):
        assert words in page.text, words
    assert page.text.index("the disk is failing") < page.text.index("Samsung")


@pytest.mark.parametrize("count", [1, 8, 300])
def test_fleets_of_every_size(count: int) -> None:
    run = fleet(count, seconds=300)
    text = render(summary(run))
    checked(run)
    assert text.count('<svg class="plot"') == count + (count > 1)
    assert len(text) < 20_000 + 5_000 * count
    assert max(path.count("V") for path in re.findall(r' d="([^"]*)"', text)) <= 260


def test_nothing_that_comes_from_a_machine_is_more_than_text() -> None:
    run = new_run(HOSTILE)
    run.user = run.controller = HOSTILE
    run.versions = {HOSTILE: HOSTILE}
    result = restored(
        device=HOSTILE,
        image=HOSTILE,
        model=HOSTILE,
        serial=HOSTILE,
        zstd=HOSTILE,
        limits={HOSTILE: 0.9, "b": 0.1},
        limited_by={"limit": HOSTILE, "share": 0.9, "advice": HOSTILE, "explanation": HOSTILE},
        timeline=[[1, 5, HOSTILE], [2, 9, "verifying"]],
        taken_from=[{"host": HOSTILE, "bytes": 1}],
        warnings=[HOSTILE],
    )
    end(run, HOSTILE, result)
    end(run, "b", {"msg": HOSTILE}, failed=True)
    run.fail("c", Failure(HOSTILE, HOSTILE, unreachable=True))
    run.fail("c", Failure(HOSTILE, HOSTILE), for_all=True)
    page = checked(closed(run))
    assert "script" not in page.elements and "onload" not in str(page.attributes)
    seen = (
        "\"><script>alert(1)</script><!--\\u202e\\u2066evil\\x1b[2J\\x00\\ud800\\u2028{{ 7 * 7 }}{% raw %}]]>' onload=x"
    )
    assert page.text.count(seen) >= 16


def test_messages_are_whole() -> None:
    message = "\n".join(f"line {number} of a long story <{number}>" for number in range(3000))
    run = new_run()
    end(run, "a", {"msg": message}, failed=True)
    assert message in checked(closed(run)).text


@pytest.mark.parametrize(
    "result",
    [
        {},
        dict.fromkeys(restored()),
        restored(timeline=[[0, 0, "streaming"]]),
        restored(timeline=[[3, 500, "streaming"]]),
        restored(timeline=[[0, 5, "streaming"], [0, 9, "verifying"]], seconds=0, throughput=None),
        restored(limits={}, limited_by={"limit": "network"}),
        restored(started="yesterday"),
    ],
)
def test_whatever_is_missing(result: dict[str, Any]) -> None:
    run = new_run()
    end(run, "a", result)
    end(run, "b", restored())
    assert "restored" in checked(closed(run)).text


@pytest.mark.parametrize("playbook", ["capture", "restore", "verify"])
def test_no_results(playbook: str) -> None:
    run = new_run(playbook)
    run.expect(["a"])
    run.fail("a", Failure("Ask", "Nothing was touched"), for_all=True)
    page = checked(closed(run, interrupted=True))
    assert "Nothing was touched" in page.text and "Interrupted" in page.text
    assert "No laptop took part." in checked(closed(new_run(playbook))).text


def test_a_capture_is_not_said_to_be_unverified() -> None:
    run = new_run("capture")
    end(run, "reference", restored(verified=None), CAPTURE)
    page = checked(closed(run))
    assert "Capture of win11-lab" in page.text and "verified" not in page.text


def test_a_laptop_that_took_from_others_names_them() -> None:
    run = new_run()
    taken = [{"host": "b", "bytes": 3 << 30}, {"host": "c", "bytes": 1 << 20}]
    run.expect(["a", "b", "c"])
    end(run, "a", restored(taken_from=taken, frame_bytes={"mirror": 5 << 20, "controller": 0, "peers": 4 << 30}))
    text = checked(closed(run)).text
    assert "5.0\N{NO-BREAK SPACE}MiB from mirror" in text and "4.0\N{NO-BREAK SPACE}GiB from other laptops" in text
    assert "3.0\N{NO-BREAK SPACE}GiB from b" in text and "1.0\N{NO-BREAK SPACE}MiB from c" in text


def test_what_is_limiting_is_said_once_and_how_busy_it_was() -> None:
    run = new_run()
    said = "connect the controller with more"
    advice = f"network 94% busy: {said}"
    end(run, "a", restored(limited_by={"limit": "network", "share": 0.94, "advice": advice, "explanation": said}))
    page = checked(closed(run))
    assert "network, 94\N{NO-BREAK SPACE}% busy" in page.text
    assert "connect the controller with more" in page.text and advice not in page.text


def test_a_phase_of_which_nothing_is_seen_is_not_in_the_legend() -> None:
    run = new_run()
    samples = [[10, 500, "streaming"], [10.01, 70, "zeroing"], [12, 500, "flushing"], [14, 500, "verifying"]]
    end(run, "a", restored(timeline=samples))
    page = checked(closed(run))
    assert "streaming" in page.text and "verifying" in page.text
    assert "zeroing" not in page.text and "flushing" not in page.text


def test_the_bar_of_limits_has_their_shares_and_colours() -> None:
    run = new_run()
    shares = {"a": 0.8, "b": 0.1, "c": 0.04, "d": 0.03, "e": 0.01, "f": 0.01, "g": 0.005, "h": 0.005}
    end(run, "a", restored(limits=shares))
    page = checked(closed(run))
    assert [value for name, value in page.attributes if name == "style"] == [
        f"flex-grow: {share}" for share in shares.values()
    ]
    assert [value for name, value in page.attributes if value.startswith("limit-")] == 2 * [
        f"limit-{place}" for place in range(8)
    ]


def test_the_same_advice_for_many_is_given_once() -> None:
    page = checked(fleet(30))
    assert page.text.count("Connect the controller") == 1 and "30 laptops" in page.text


@pytest.mark.parametrize("count", [8, 32, 300])
def test_who_fed_whom(count: int) -> None:
    run = relayed(count)
    page = checked(run)
    assert "The image travelled 1.00 times from the controller." in page.text
    for words in (
        "Sent damaged data",
        "Broke off or fell silent",
        "Too slow to take from",
        "sent damage",
        "slow",
        "lost",
    ):
        assert words in page.text
    if count < 300:
        assert all(f"from {laptop}" in page.text for laptop in list(run.laptops)[:-1])
    else:
        # Those that did as all others share a row.
        assert "laptops, each from the one before" in page.text and "lab-003" in page.text
        assert len(re.findall("<li><(?:a|bdi)", render(summary(run)))) < 20


def test_what_comes_from_the_image_store_is_told_apart() -> None:
    run = new_run()
    one = {"controller": 0, "mirror": 0, "store": 1 << 30, "peers": 0}
    end(run, "a", restored(frame_bytes=one, sent_bytes=0, stored_bytes=1 << 30))
    end(run, "b", restored(frame_bytes={**one, "mirror": 1 << 29}, sent_bytes=0, stored_bytes=1 << 30))
    text = checked(closed(run)).text
    assert "The image travelled 2.00 times from the image store and 0.50 times from the mirror." in text


def test_a_reference_is_not_said_to_be_unverified() -> None:
    run = new_run("clone")
    end(run, "reference", {"passed_on": 1}, SHARE)
    end(run, "a", restored(taken_from=[{"host": "reference", "bytes": 1}], frame_bytes={"peers": 1}))
    text = checked(closed(run)).text
    assert "shared its disk" in text and "not verified" not in text


def test_a_picture_is_shown_only_of_what_more_than_one_laptop_or_machine_had_a_part_in() -> None:
    assert "Where the image came from" not in checked(fleet(1)).text
    assert "Where the image came from" in checked(fleet(2)).text


def test_time_that_laptops_waited_for_others_is_told_apart_from_what_limited_them() -> None:
    run = new_run()
    end(run, "a", restored(limits={"network": 1.0}))
    end(run, "b", restored(limits={"other laptops": 0.9, "target disk write": 0.1}))
    text = checked(closed(run)).text
    assert "For 45\N{NO-BREAK SPACE}% of the time of all transfers, laptops waited for other laptops." in text
    assert "network 91\N{NO-BREAK SPACE}%" in text
