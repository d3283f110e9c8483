# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hives are read, and what is damaged in one is never taken for something that is not there."""

from __future__ import annotations

import io
import struct

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.hive import BadHive, Hive
from ansible_collections.fleet.imaging.tests.lab.hives import BASE, HASHED, HINTED, PLAIN, Values, changed, make_hive

VALUES: Values = {
    "Setup": {
        "SetupType": 2,
        "CmdLine": "oobe\\windeploy.exe",
        "Data": b"\1\2\3\4\5\6",
        "": "of the key itself",
        "Short": "a",
    },
    r"ControlSet001\Control\Session Manager": {
        "BootExecute": ["autocheck autochk *", "another"],
        "Empty": "",
        "None": [],
    },
    "Schlüssel": {"Größe": 1},
    "Ключ": {"Имя": "имя"},
    **{f"Many\\Key{number:04}": {"Number": number} for number in range(700)},
}


def read(content: bytes) -> Hive:
    return Hive(io.BytesIO(content))


@pytest.mark.parametrize("kind", [HASHED, HINTED, PLAIN])
@pytest.mark.parametrize("leaf", [5, 1000])
def test_values_are_found_in_every_kind_of_list(kind: bytes, leaf: int) -> None:
    hive = read(make_hive(VALUES, kind, leaf))
    assert (hive.value("Setup", "SetupType"), hive.value("setup", "cmdline")) == ("2", "oobe\\windeploy.exe")
    assert (hive.value("\\Setup\\", ""), hive.value("Setup", "Short")) == ("of the key itself", "a")
    assert hive.value(r"ControlSet001\CONTROL\Session Manager", "BootExecute") == "autocheck autochk *\nanother"
    assert (hive.value("SCHLÜSSEL", "größe"), hive.value("ключ", "ИМЯ")) == ("1", "имя")
    assert [hive.value(f"Many\\Key{number:04}", "Number") for number in (0, 350, 699)] == ["0", "350", "699"]


def test_what_is_not_there_is_nothing() -> None:
    hive = read(make_hive(VALUES))
    for path, name in (
        ("Setup", "Nothing"),
        ("Nothing", "x"),
        (r"Setup\Below", "x"),
        ("Many", "x"),
        ("", "x"),
        (r"Many\Key0700", "Number"),
    ):
        assert hive.value(path, name) == ""
    assert hive.value("Setup", "Data") == ""  # neither text nor a number
    assert hive.value(r"ControlSet001\Control\Session Manager", "Empty") == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "regf"),
        (bytes(8192), "regf"),
        (b"regf" + bytes(8188), "header is damaged"),
        (make_hive(VALUES)[:-1], "is truncated"),
        (make_hive(VALUES)[:BASE], "is truncated"),
        (changed(make_hive(VALUES), kind=1), "not a hive"),
        (make_hive(VALUES)[:12] + b"\xff" + make_hive(VALUES)[13:], "checksum"),
        (changed(make_hive(VALUES), size=1 << 30), "is truncated"),
        (changed(make_hive(VALUES), size=4095), "header is damaged"),
    ],
)
def test_what_is_no_whole_hive_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(BadHive, match=words):
        read(content)


def test_any_page_of_zeros_is_seen() -> None:
    content = make_hive(VALUES)
    for place in range(BASE, len(content), 4096):
        with pytest.raises(BadHive, match="damaged"):
            read(content[:place] + bytes(4096) + content[place + 4096 :])


def test_damage_on_the_way_to_a_value_is_not_absence() -> None:
    content = make_hive({"One\\Two": {"Name": "a longer text"}})
    places = [place for place in range(BASE + 36, BASE + 600, 8) if content[place : place + 2] in (b"nk", b"vk", b"lh")]
    assert len(places) == 6  # three keys, two lists of keys, a value
    for place in places:
        for damaged in (place - 4, place):  # the size of its cell, its kind
            with pytest.raises(BadHive):
                read(content[:damaged] + bytes(4) + content[damaged + 4 :]).value("One\\Two", "Name")
    two = content.index(b"Two") - 76
    for field in (36, 40):  # how many values there are, and where
        spoilt = content[: two + field] + b"\xff\xff\xff\x7f" + content[two + field + 4 :]
        with pytest.raises(BadHive):
            read(spoilt).value("One\\Two", "Name")


def test_lists_that_never_end_are_refused() -> None:
    content = bytearray(make_hive({f"Key{number}": {} for number in range(20)}, PLAIN, leaf=10))
    place = content.index(b"ri\x02\0")
    own = struct.unpack_from("<I", content, place + 4)[0]
    struct.pack_into("<I", content, place + 4, place - 4 - BASE)  # a list of itself
    with pytest.raises(BadHive, match="list of keys"):
        read(bytes(content)).value("Nothing", "x")
    struct.pack_into("<II", content, place + 4, own, own)  # one twice: as many keys as there should be, and an end
    assert read(bytes(content)).value("Nothing", "x") == ""
    leaf = content.index(b"li")
    struct.pack_into("<H", content, leaf + 2, 0xFFFF)
    with pytest.raises(BadHive):
        read(bytes(content)).value("Nothing", "x")
    keys = content.index(b"nk") + 20
    struct.pack_into("<I", content, keys, 0xFFFFFFFF)
    with pytest.raises(BadHive, match="at most"):
        read(bytes(content)).value("Nothing", "x")


def test_a_value_of_many_pieces_is_refused() -> None:
    with pytest.raises(BadHive, match="20002 bytes"):
        read(make_hive({"Key": {"Name": "x" * 10_000}})).value("Key", "Name")
