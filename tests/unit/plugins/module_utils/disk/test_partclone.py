# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Sequence

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partclone import BadMap, parse_map, used_blocks

HEAD = """# Domain logfile created by unset_name v0.3.23
# Source: /dev/loop0p1
# Offset: 0x00000000
# current_pos  current_status
{total}     ?
#      pos        size  status
"""


def a_map(total: str, *rows: str) -> list[str]:
    return (HEAD.format(total=total) + "".join(f"{row}\n" for row in rows)).splitlines(keepends=True)


def test_used_rows_are_used_and_free_ones_are_not() -> None:
    lines = a_map("0x00004000", "0x00000000  0x00001000  +", "0x00001000  0x00002000  ?", "0x00003000  0x00001000  +")
    assert list(parse_map(lines, 0x4000)) == [(0, 0x1000), (0x3000, 0x4000)]


def test_what_the_map_does_not_cover_is_used() -> None:
    lines = a_map("0x00002000", "0x00000000  0x00001000  +", "0x00001000  0x00001000  ?")
    assert list(parse_map(lines, 0x2200)) == [(0, 0x1000), (0x2000, 0x2200)]


def test_positions_of_more_than_eight_digits_are_read() -> None:
    lines = a_map("0x1000000000", "0x00000000  0xFFFFFF000  ?", "0xFFFFFF000  0x00001000  +")
    assert list(parse_map(lines, 0x1000000000)) == [(0xFFFFFF000, 0x1000000000)]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["\n"],
        HEAD.format(total="0x00000000").splitlines(keepends=True),
        a_map("0x00004000"),
        a_map("0x00004000", "0x00000000  0x00001000  +"),
        a_map("0x00004000", "0x00001000  0x00003000  +"),
        a_map("0x00004000", "0x00000000  0x00002000  +", "0x00001000  0x00003000  ?"),
        a_map("0x00004000", "0x00000000  0x00001000  +", "0x00002000  0x00002000  ?"),
        a_map("0x00004000", "0x00000000  0x00005000  +"),
        a_map("0x00004000", "0x00000000  0x00000000  +", "0x00000000  0x00004000  +"),
        a_map("0x00004000", "0x00000000  0x00004000  *"),
        a_map("0x00004000", "0x00000000  0x00004000  -"),
        a_map("0x00004000", "0x00000000  0x00004000  + +"),
        a_map("0x00004000", "0x00000000  0x00004"),
        a_map("0x00004000", "0x00000000  -0x0004000  +"),
        a_map("0x00004000", "0x00000000  0x00000FFF  +", "0x00000FFF  0x00003001  ?"),
        a_map("0x00004000", "0x00000000  0x00004000  +", "0x00004000  0x00001000  ?"),
        a_map("0xFFFFFFFFFFFFFFFFFF", "0x00000000  0xFFFFFFFFFFFFFFFFFF  +"),
        a_map("0x00005000", "0x00000000  0x00005000  +"),
    ],
)
def test_a_map_that_is_not_whole_or_can_not_be_is_refused(lines: list[str]) -> None:
    with pytest.raises(BadMap):
        list(parse_map(lines, 0x4000))


def test_a_failure_of_partclone_is_told_and_nothing_is_left_behind() -> None:
    folders = []

    def run(command: Sequence[str]) -> CommandResult:
        assert not {"-F", "--force"} & set(command)
        folders.append(os.path.dirname(command[command.index("--overwrite") + 1]))
        return CommandResult(1, "", "Partclone v0.3.23\nfs is scheduled for a check\n")

    with pytest.raises(BadMap, match="scheduled for a check"):
        list(used_blocks(run, "ext4", "/dev/loop0", 1 << 20))
    assert not os.path.exists(folders[0])


def test_a_map_that_was_not_written_is_refused_although_partclone_exits_0() -> None:
    def run(command: Sequence[str]) -> CommandResult:
        open(command[command.index("--overwrite") + 1], "w").close()
        return CommandResult(0, "", "")

    with pytest.raises(BadMap):
        list(used_blocks(run, "ext4", "/dev/loop0", 1 << 20))
