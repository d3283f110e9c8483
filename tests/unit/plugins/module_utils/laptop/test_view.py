# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.view import Comparison, ExpectedView

from ..samples import STREAM, geometry

SIZE = 1 << 20
SEEN = {"type": "ext4", "uuid": "1-2", "label": "root", "partition_table": "", "stray": "", "ambivalent": False}
ENTRY = {"node": "/dev/sda1", "start": 8, "size": 8, "type": "83"}


def view(partitions: Any, table: Any = None, size: int = SIZE, **source: Any) -> ExpectedView:
    return ExpectedView(ImageHeader(geometry(SIZE), STREAM, "", table, {"partitions": partitions, **source}), size)


@pytest.mark.parametrize(
    "partitions", [None, "all", [], [1], [{"number": 1}], [{"number": 1, "start": 0, "size": 512}]]
)
def test_a_header_that_says_nothing_is_taken(partitions: Any) -> None:
    view(partitions)


@pytest.mark.parametrize(
    ("partition", "words"),
    [
        ({"start": 0, "size": 512, "seen": "ext4"}, "'ext4' does not describe"),
        ({"start": 0, "size": 512, "seen": {**SEEN, "uuid": 3}}, "does not describe"),
        ({"start": 0, "size": 512, "content": ["ext4"]}, "does not describe"),
    ],
)
def test_a_partition_that_cant_be_is_refused_before_anything_is_written(partition: Any, words: str) -> None:
    with pytest.raises(ImagingError, match=words) as refusal:
        view([{"number": 1, **partition}])
    assert "Nothing was written" in str(refusal.value)


@pytest.mark.parametrize("entries", ["none", [1], [{}], [{"node": "/dev/sda"}], [ENTRY] * 5000])
def test_a_table_that_cant_be_is_refused(entries: Any) -> None:
    with pytest.raises(ImagingError, match="Its partition table has"):
        view([], {"label": "dos", "partitions": entries})


def test_too_many_partitions_are_refused() -> None:
    with pytest.raises(ImagingError, match="5000 partitions"):
        view([{"number": number, "start": 0, "size": 512} for number in range(5000)])


@pytest.mark.parametrize(("start", "size"), [(-512, 1024), (0, 0), (512, SIZE), (1 << 80, 512), (0, 1 << 80)])
def test_nothing_is_looked_for_in_a_partition_that_is_not_inside_the_disk(start: int, size: int) -> None:
    def run(command: Sequence[str]) -> CommandResult:
        assert command == ["blkid", "-V"]
        return CommandResult(0, "", "")

    partition = {"number": 1, "start": start, "size": size, "seen": SEEN}
    assert view([partition]).compare(run, os.devnull, lambda: None) == Comparison()


@pytest.mark.parametrize(("table", "size", "counts"), [(True, 1, True), (True, 2, False), (False, 2, True)])
def test_what_the_whole_disk_showed_counts_on_one_of_another_size_where_there_are_no_partitions(
    table: bool, size: int, counts: bool
) -> None:
    raw = {"label": "dos", "partitions": [ENTRY]} if table else None
    with pytest.raises(ImagingError, match="does not describe") if counts else contextlib.nullcontext():
        view([], raw, size * SIZE, seen="isw_raid_member")
