# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.blkid import Content
from ansible_collections.fleet.imaging.plugins.module_utils.disk.blkid_facts import (
    MAX_TEXT_LENGTH,
    blkid_version,
    contradicts,
    describe_content,
    facts_of,
    parse_facts,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool

EXT4 = Content("ext4", "filesystem", "root", uuid="1-2")
NOTE = {"type": "ext4", "uuid": "1-2", "label": "root", "partition_table": "", "stray": "", "ambivalent": False}


def test_a_note_is_read_as_it_was_made() -> None:
    assert facts_of(EXT4) == NOTE
    assert parse_facts(NOTE) == Content("ext4", label="root", uuid="1-2")
    assert describe_content(parse_facts(NOTE)) == "TYPE=ext4 UUID=1-2 LABEL=root"
    for content in (Content(), Content(ambivalent=True), Content("x", label="y" * 2 * MAX_TEXT_LENGTH)):
        assert facts_of(parse_facts(facts_of(content))) == facts_of(content)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "ext4",
        {},
        {**NOTE, "type": 1},
        {**NOTE, "uuid": None},
        {**NOTE, "label": "x" * (MAX_TEXT_LENGTH + 1)},
        {**NOTE, "ambivalent": 0},
        {key: text for key, text in NOTE.items() if key != "label"},
    ],
)
def test_what_is_no_note_is_refused(value: Any) -> None:
    with pytest.raises(Exception, match="does not describe a content"):
        parse_facts(value)


def test_what_is_read_can_be_shown() -> None:
    assert parse_facts({**NOTE, "label": "a\x1b[31m\u202eb"}).label == "a\\x1b[31m\\u202eb"


@pytest.mark.parametrize(
    ("expected", "found", "other"),
    [
        (EXT4, EXT4, False),
        (EXT4, Content("linux_raid_member"), True),
        (EXT4, Content(ambivalent=True), True),
        (EXT4, replace(EXT4, stray="crypto_LUKS"), True),
        (replace(EXT4, stray="crypto_LUKS"), EXT4, False),
        (Content(ambivalent=True), Content(ambivalent=True), False),
        (Content(ambivalent=True), EXT4, False),
        (Content(), Content("apfs"), False),
        (Content("apfs"), Content(), False),
        (EXT4, Content("ext4", label="other"), False),
    ],
)
def test_another_type_or_several_contradict_whatever_the_versions(
    expected: Content, found: Content, other: bool
) -> None:
    assert contradicts(expected, found) == other


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("blkid from util-linux 2.38.1  (libblkid 2.38.1, 04-Aug-2022)\n", "2.38.1"),
        ("blkid from util-linux 2.41-rc1  (libblkid 2.41.0, 01-Feb-2025)\n", "2.41.0"),
        ("BusyBox v1.36.1 multi-call binary.\n", ""),
        ("", ""),
    ],
)
def test_the_version_of_libblkid_is_read(said: str, version: str) -> None:
    assert blkid_version(lambda _command: CommandResult(0, said, "")) == version
    assert blkid_version(lambda _command: CommandResult(1, "", said)) == version


def test_without_blkid_there_is_no_version() -> None:
    def missing(command: Any) -> CommandResult:
        raise MissingTool(command[0])

    assert blkid_version(missing) == ""
