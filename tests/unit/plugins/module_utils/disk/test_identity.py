# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognising a disk that was selected."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import describe
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import (
    IDENTITY,
    AnotherDisk,
    check_same,
    look_at,
    selected_disk,
)
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.held_disk import HeldDisk
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import ANOTHER_DISK, RESTARTED

SIZE = 1 << 20
GUID = bytes(range(16))


def no_table(command: Any) -> CommandResult:
    return CommandResult(1, "", "does not contain a recognized partition table")


def no_program(command: Any) -> CommandResult:
    raise AssertionError(f"{command} was run")


def look(path: Path) -> dict[str, Any]:
    return look_at(describe(no_table, str(path)))


def make(path: Path, signature: bytes = b"", guid: bytes = b"") -> Path:
    content = bytearray(SIZE)
    if signature:
        content[440:444], content[510:512] = signature, b"\x55\xaa"
    if guid:
        content[512:520], content[568:584] = b"EFI PART", guid
    path.write_bytes(content)
    return path


def test_everything_that_is_compared_is_known(tmp_path: Path) -> None:
    found = look(make(tmp_path / "disk"))
    assert set(found) == set(IDENTITY)
    assert (found["size"], found["serial"], found["wwn"], found["table"]) == (SIZE, "", "", "")
    assert len(found["boot_id"]) == 36 and found["diskseq"] == os.stat(tmp_path / "disk").st_ino
    check_same("disk", found, look(tmp_path / "disk"))


def test_the_partition_table_is_told_by_its_id(tmp_path: Path) -> None:
    assert look(make(tmp_path / "a", b"\x78\x56\x34\x12"))["table"] == "dos 12345678"
    assert look(make(tmp_path / "b", b"", GUID))["table"] == "gpt 03020100-0504-0706-0809-0a0b0c0d0e0f"


def test_a_disk_that_was_replaced_is_another_although_it_has_no_serial_number(tmp_path: Path) -> None:
    selected = look(make(tmp_path / "disk"))
    make(tmp_path / "new").rename(tmp_path / "disk")
    with pytest.raises(AnotherDisk, match=r"its diskseq was .* and is now .* It was not touched"):
        check_same("/dev/sda", selected, look(tmp_path / "disk"))
    replaced = look(make(tmp_path / "disk", b"", GUID))
    with pytest.raises(AnotherDisk, match="its table was '' and is now 'gpt") as caught:
        check_same("/dev/sda", dict(selected, diskseq=replaced["diskseq"]), replaced)
    assert caught.value.facts["codes"] == [ANOTHER_DISK]


def test_a_machine_that_was_restarted_is_looked_at_again(tmp_path: Path) -> None:
    found = look(make(tmp_path / "disk"))
    with pytest.raises(AnotherDisk, match=r"was restarted since /dev/sda was selected.*Run again") as caught:
        check_same("/dev/sda", dict(found, boot_id="another", diskseq=1), found)
    assert caught.value.facts["codes"] == [RESTARTED]


def test_what_was_absent_must_still_be_absent_and_what_is_not_given_is_not_compared(tmp_path: Path) -> None:
    found = dict(look(make(tmp_path / "disk")), serial="S1")
    with pytest.raises(AnotherDisk, match="serial was '' and is now 'S1'"):
        check_same("/dev/sda", dict(found, serial=""), found)
    check_same("/dev/sda", dict(found, serial=None, table=None), found)
    check_same("/dev/sda", {}, found)


def test_a_link_that_leads_to_another_disk_is_noticed_before_anything_is_done(tmp_path: Path) -> None:
    """And what is wrong with a path is said as for any other."""
    link = tmp_path / "link"
    link.symlink_to(make(tmp_path / "one"))
    expect = look(link)
    with selected_disk(no_table, str(link), expect) as disk:
        assert disk.path == str(tmp_path / "one")
    link.unlink()
    link.symlink_to(make(tmp_path / "two"))
    with pytest.raises(AnotherDisk, match="is not the disk that was selected"), selected_disk(
        no_table, str(link), expect
    ):
        pytest.fail("the other disk was given out")
    for path, words in ((tmp_path, "neither a block device nor a regular file"), (tmp_path / "three", "No such file")):
        with pytest.raises(ImagingError, match=words), selected_disk(no_table, str(path), {}):
            pytest.fail("there is no disk")


@pytest.mark.parametrize("writable", [False, True])
def test_a_disk_is_recognised_and_held_without_a_look_at_its_partitions(tmp_path: Path, writable: bool) -> None:
    disk = make(tmp_path / "disk", b"\1\2\3\4")
    expected = look(disk)
    with selected_disk(no_program, str(disk), expected) as selected:
        assert selected.path == str(disk)
    with HeldDisk(no_program, str(disk), expected, writable) as held:
        assert held.table_id() == "dos 04030201"
