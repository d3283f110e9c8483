# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.base import DIRTY, HEAD
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.registry import (
    BY_NAME,
    FILE_SYSTEMS,
    distrust,
    file_system,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.findings import CONTENT_CHECKS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.grow import GROWABLE

ROOT = Path(__file__).resolve().parents[6]


def no_program(command: object) -> None:
    raise AssertionError(f"{command} was run")


def test_no_name_is_that_of_two_kinds() -> None:
    assert len(BY_NAME) == sum(len(kind.names) for kind in FILE_SYSTEMS)


def test_what_is_left_out_or_grown_is_checked_and_its_size_is_known() -> None:
    for kind in FILE_SYSTEMS:
        assert kind.size and (kind.check or not (kind.free_space or kind.grower or kind.files)), kind.names


def test_ways_out_are_of_findings_that_there_are() -> None:
    assert {finding for kind in FILE_SYSTEMS for finding in kind.ways_out} <= {check.name for check in CONTENT_CHECKS}


@pytest.mark.parametrize("name", BY_NAME)
def test_of_a_head_of_zeros_and_of_one_bits_a_size_is_a_number(name: str) -> None:
    size = file_system(name).size
    assert size is not None and size(bytes(HEAD)) >= 0 and size(b"\xff" * HEAD) >= 0


@pytest.mark.parametrize("name", [name for name, kind in BY_NAME.items() if kind.check])
def test_what_ends_in_its_superblock_is_not_trusted_and_no_program_sees_it(name: str, tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_bytes(bytes(20))
    found = distrust(no_program, name, str(node), 20)  # type: ignore[arg-type]
    assert found is not None and found.kind == DIRTY


def named(path: str, start: str, end: str) -> set[str]:
    """The names of file systems between two words of a text; ntfs, vfat and the like in capital or small letters."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return set(re.findall(r"\w+", text[text.index(start) :].split(end)[0].lower())) & {*BY_NAME, "lvm"}


def test_the_documentation_names_what_can_be_grown() -> None:
    for path, start, end in (
        ("plugins/modules/partition_grow.py", "the file system in it", ". All"),
        ("inventory/group_vars/all.yml", "grow a partition and its file system", "to the end"),
        ("README.md", "grows the last partition and its file system", ";"),
    ):
        assert named(path, start, end) == set(GROWABLE), path


def test_the_documentation_names_where_systems_are_looked_for() -> None:
    read = {name for name, kind in BY_NAME.items() if kind.files}
    assert named("plugins/modules/source_info.py", "Windows is looked for on", "A warning") == read
    assert named("README.md", "Windows is looked for on", "A warning") == read
