# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.printable import (
    MARKS_IN_A_ROW,
    printable,
    printable_all,
    printable_lines,
    without_secrets,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Samsung SSD 980 PRO", "Samsung SSD 980 PRO"),
        (
            "  Größe, 日本語, עברית, นี้, 10 €, e\u0301 \N{NO-BREAK SPACE}. ",
            "Größe, 日本語, עברית, นี้, 10 €, e\u0301 \N{NO-BREAK SPACE}.",
        ),
        ("\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        ("\x9b31m\x00\x7f", "\\x9b31m\\x00\\x7f"),
        ("a\nb\tc\rd", "a\\x0ab\\x09c\\x0dd"),
        ("gpj.exe\u202etxt\u2066\u2069\u200e\u061c", "gpj.exe\\u202etxt\\u2066\\u2069\\u200e\\u061c"),
        ("a\u200bb\ufeffc\u2060d\u00ade\u2028f\u2029", "a\\u200bb\\ufeffc\\u2060d\\xade\\u2028f"),
        ("\ud800 \udcff", "\\ud800 \\udcff"),
        ("a\ufe0f\u3164\u115f\U000e0101\U000e0041", "a\\ufe0f\\u3164\\u115f\\U000e0101\\U000e0041"),
        ("\ue000\uffff", "\\ue000\\uffff"),
    ],
)
def test_what_is_not_seen_or_is_obeyed_is_shown_as_its_code(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_marks_do_not_cover_the_lines_around() -> None:
    shown = printable("H" + "\u0336" * 1000 + "i")
    assert shown.count("\u0336") == MARKS_IN_A_ROW and shown.endswith("\\u0336i")


def test_messages_keep_their_lines() -> None:
    assert printable_lines("one\r\ntwo\n\tthree\r\x1b[A") == "one\ntwo\n\tthree\\x0d\\x1b[A"


def test_all_strings_of_a_value_are_made_fit_keys_too() -> None:
    value = json.loads('{"a\\u001b[2J": ["\\u202e", {"b": "\\u200b", "n": 1, "none": null}], "yes": true, "f": 1.5}')
    assert printable_all(value) == {
        "a\\x1b[2J": ["\\u202e", {"b": "\\u200b", "n": 1, "none": None}],
        "yes": True,
        "f": 1.5,
    }


def test_a_value_of_any_depth_is_taken() -> None:
    value: object = "bottom"
    for _level in range(5000):
        value = [value]
    assert "..." in json.dumps(printable_all(value))


def test_errors_and_what_programs_complain_of_are_fit_to_be_shown() -> None:
    assert str(ImagingError("blkid: \x1b[2J\u202e")) == "blkid: \\x1b[2J\\u202e"
    assert CommandResult(1, "", "no\x1b[2J such\n disk").complaint() == "exit status 1, no\\x1b[2J such disk"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a", "https://host/a"),
        ("https://user:p@ss@host:8/a?signature=x#y", "https://...@host:8/a?..."),
        ("s3://bucket/a#b", "s3://bucket/a?..."),
        ("https://host/a@b", "https://host/a@b"),
        ("/home/me@here/images?", "/home/me@here/images?"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown == without_secrets(shown)
