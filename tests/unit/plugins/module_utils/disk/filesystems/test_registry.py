# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import struct
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
    found = distrust(no_program, name, str(node))  # type: ignore[arg-type]
    assert found is not None and found.kind == DIRTY


def test_what_should_lie_where_no_disk_reaches_is_not_trusted(tmp_path: Path) -> None:
    """The MFT of an NTFS, by its boot sector: sectors of 512 bytes, 8 in a cluster, records of 1024 bytes."""
    node = tmp_path / "node"
    node.write_bytes(struct.pack("<11xHB34xQQb", 512, 8, (1 << 64) - 1, 0, -10).ljust(4096, b"\0"))
    found = distrust(no_program, "ntfs", str(node))  # type: ignore[arg-type]
    assert found is not None and found.kind == DIRTY


def named(path: str, about: str) -> set[str]:
    """The file systems that a text names in its only sentence with several of them and these words."""
    text = " ".join((ROOT / path).read_text(encoding="utf-8").replace("\n#", "\n").split())
    (sentence,) = [
        each for each in re.split(r"(?<=\.) ", text) if "NTFS" in each and "ext3" in each and re.search(about, each)
    ]
    return set(re.findall(r"\w+", sentence.lower().replace("fat32", "vfat"))) & set(BY_NAME)


@pytest.mark.parametrize("path", ["plugins/modules/partition_grow.py", "inventory/group_vars/all.yml", "README.md"])
def test_the_documentation_names_what_can_be_grown(path: str) -> None:
    assert named(path, r"\bfile system (is|\()") == set(GROWABLE)


@pytest.mark.parametrize("path", ["plugins/modules/source_info.py", "README.md"])
def test_the_documentation_names_where_systems_are_looked_for(path: str) -> None:
    assert named(path, "Linux") == {name for name, kind in BY_NAME.items() if kind.files}


def test_the_documentation_names_whose_free_space_is_left_out() -> None:
    assert named("README.md", "partclone's map") == {name for name, kind in BY_NAME.items() if kind.free_space}
