# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems import base
from ansible_collections.fleet.imaging.plugins.module_utils.disk.findings import (
    CONTENT_CHECKS,
    PartitionFacts,
    findings_in,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.systems import System

NAMES = {check.name for check in CONTENT_CHECKS}

FIT = PartitionFacts(
    number=2,
    node="/dev/sda2",
    start=1 << 20,
    size=1 << 30,
    type="83",
    content="ntfs",
    label="C",
    clean=True,
    systems=[System("windows", "Windows 11")],
)
UNFIT = {
    "encrypted": [replace(FIT, content=content) for content in ("BitLocker", "crypto_LUKS", "FileVault2")],
    "hibernated": [
        replace(FIT, content="swsuspend"),
        replace(FIT, hibernated="/swapfile"),
        replace(FIT, distrust=base.HIBERNATED),
    ],
    "dirty": [replace(FIT, distrust=base.DIRTY)],
    "not_generalized": [replace(FIT, systems=[System("windows", "Windows 11", problem="was not generalized")])],
    "unknown_state": [
        replace(FIT, systems=[System("windows", "Windows 11", unread="its registry is damaged")]),
        replace(FIT, unread="its MFT can't be read"),
    ],
}


def test_nothing_speaks_against_what_is_fit() -> None:
    assert list(findings_in(FIT)) == []


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_check_finds_what_it_is_for_and_names_a_way_out(name: str) -> None:
    for facts in UNFIT[name]:
        (finding,) = findings_in(facts)
        assert (finding.name, finding.partition) == (name, 2) and finding.way_out
        assert finding.words.startswith("Partition 2 (") and finding.sentence().endswith(f"{finding.way_out}. [{name}]")


def test_the_way_out_is_that_of_the_file_system_where_it_has_one() -> None:
    ways = {
        content: next(findings_in(replace(FIT, content=content, distrust="dirty"))).way_out
        for content in ("ntfs", "ext4")
    }
    assert "chkdsk" in ways["ntfs"] and "fsck" in ways["ext4"]


def test_all_that_is_said_at_once_comes_in_the_order_of_the_checks() -> None:
    unfit = replace(FIT, content="BitLocker", distrust=base.DIRTY, unread="it is locked")
    assert [finding.name for finding in findings_in(unfit)] == ["encrypted", "dirty", "unknown_state"]
