# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.signatures import TAIL
from ansible_collections.fleet.imaging.plugins.module_utils.engine.goal import LEAVE, ZERO_UNUSED, Goal
from ansible_collections.fleet.imaging.plugins.module_utils.engine.resize import extent, patched_chunks
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Index, Row
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import USED, ZERO, pack_ranges, zeros_hash

from ..samples import CHUNK, STREAM, Used, geometry, noise

MIB = 1 << 20
SIZE = 4 * MIB + 8192
DATA = noise(SIZE, 11)


def image(used: Used, label: str = "dos", partitions: Any = (), **table: Any) -> tuple[ImageHeader, Index, bytes]:
    """Header, index and masked content of an image of a disk."""
    measures = geometry(SIZE)
    index = Index(measures)
    content = bytearray(SIZE)
    for chunk in range(measures.chunk_count):
        begin, length = measures.offset(chunk), measures.length(chunk)
        ranges = [(low - begin, high - begin) for low, high in used.within(begin, begin + length)]
        if not ranges:
            continue
        for low, high in ranges:
            content[begin + low : begin + high] = DATA[begin + low : begin + high]
        hashed = hashlib.sha256(content[begin : begin + length]).digest()
        index.append(Row(chunk, USED, pack_ranges(ranges, length), hashed, 0, 1))
    known = [{"number": n + 1, "start": start, "size": size} for n, (start, size) in enumerate(partitions)]
    raw = {"label": label, "partitions": [{"type": "83"}], **table}
    return ImageHeader(measures, STREAM, "", raw, {"partitions": known}), index, bytes(content)


def goal_content(used: Used, size: int, unused: str = LEAVE, **said: Any) -> tuple[Goal, bytes, list[tuple[int, int]]]:
    """The goal on a disk of that size, its content where it matters, and where that is."""
    header, index, content = image(used, **said)
    own = patched_chunks(header, index, size, lambda offset, length: content[offset : offset + length])
    goal = Goal(index, size, unused, own)
    disk, ranges = bytearray(size), []
    for row in goal.rows():
        known = goal.patched(row.chunk)
        begin, length = goal.geometry.offset(row.chunk), goal.geometry.length(row.chunk)
        data = known.content if known else content[begin : begin + length].ljust(length, b"\0")
        assert len(data) == length
        assert hashlib.sha256(data).digest() == row.content_hash
        disk[begin : begin + length] = data
        ranges += [(begin + low, begin + high) for low, high in goal.ranges(row)]
    assert len(goal) == len(list(goal.rows()))
    return goal, bytes(disk), ranges


USED_BELOW = Used((0, CHUNK), (CHUNK + 512, 2 * CHUNK), (SIZE - TAIL, SIZE))


def test_on_a_disk_of_the_same_size_nothing_differs() -> None:
    header, index, _content = image(USED_BELOW)
    assert patched_chunks(header, index, SIZE, lambda *_place: pytest.fail("nothing need be read")) == {}


@pytest.mark.parametrize("more", [512, 4096, CHUNK, MIB, 3 * MIB + 512])
def test_the_end_of_a_larger_disk_is_zeros_and_the_rest_is_the_images(more: int) -> None:
    goal, disk, ranges = goal_content(USED_BELOW, SIZE + more, partitions=[(CHUNK, CHUNK)])
    _header, _index, content = image(USED_BELOW)
    assert disk[:SIZE] == content
    assert not any(disk[SIZE:])
    assert ranges[-1][1] == SIZE + more
    covered = [place for place in ranges if place[1] > max(SIZE, SIZE + more - TAIL)]
    assert covered[0][0] <= max(SIZE, SIZE + more - TAIL)
    assert goal.geometry.disk_size == SIZE + more


@pytest.mark.parametrize("size", [SIZE - 512, SIZE - 4096, SIZE - MIB, 2 * MIB + 512, 2 * CHUNK])
def test_a_smaller_disk_has_all_but_the_end(size: int) -> None:
    _goal, disk, ranges = goal_content(USED_BELOW, size, partitions=[(CHUNK, CHUNK)])
    assert disk[: 2 * CHUNK] == image(USED_BELOW)[2][: 2 * CHUNK]
    assert not any(disk[2 * CHUNK :])  # what was at the image's end is nobody's there
    assert ranges[-1][1] == size


def test_with_unused_space_as_zeros_all_of_a_larger_disk_counts() -> None:
    goal, _disk, ranges = goal_content(USED_BELOW, SIZE + 2 * MIB, ZERO_UNUSED, partitions=[(CHUNK, CHUNK)])
    assert len(goal) == goal.geometry.chunk_count
    assert sum(end - start for start, end in ranges) == SIZE + 2 * MIB


@pytest.mark.parametrize(
    ("label", "partitions", "used", "least", "words"),
    [
        ("dos", [(CHUNK, 2 * CHUNK)], USED_BELOW, 3 * CHUNK, "partition 1"),
        ("gpt", [(CHUNK, 2 * CHUNK)], USED_BELOW, 3 * CHUNK + 33 * 512, "partition 1"),
        ("dos", [(CHUNK, CHUNK)], Used((0, 5 * CHUNK)), 5 * CHUNK, "outside of partitions"),
        ("dos", [(CHUNK, SIZE - CHUNK)], Used((0, CHUNK)), SIZE, "partition 1"),
        ("gpt", [(CHUNK, SIZE - CHUNK)], Used((0, CHUNK)), SIZE, "partition 1"),
        ("", [], Used((0, CHUNK)), SIZE, "no partition table"),
    ],
)
def test_the_least_disk_ends_where_the_content_does(
    label: str, partitions: Any, used: Used, least: int, words: str
) -> None:
    header, index, _content = image(used, label, partitions)
    reach = extent(header, index)
    assert reach.least == least
    assert words in reach.last


def test_zeros_need_no_room() -> None:
    header, index, _content = image(Used((0, CHUNK)), "dos", [(0, CHUNK)])
    index.append(Row(9, USED | ZERO, b"", zeros_hash(CHUNK), 0, 1))
    assert extent(header, index).least == CHUNK


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_an_empty_table_does_not_say_where_the_content_ends(label: str) -> None:
    header, index, _content = image(USED_BELOW, label)
    header.partition_table["partitions"] = []  # type: ignore[index]
    assert extent(header, index).least == SIZE


def test_a_dynamic_disk_is_bound_to_its_size() -> None:
    header, index, content = image(USED_BELOW, "dos", [(CHUNK, CHUNK)], partitions_=None)
    header.partition_table["partitions"][0]["type"] = "42"  # type: ignore[index]
    with pytest.raises(ImagingError, match="dynamic disk"):
        patched_chunks(header, index, SIZE + MIB, lambda offset, length: content[offset : offset + length])


def test_the_backup_of_a_gpt_needs_no_room_where_it_was() -> None:
    used = Used((0, CHUNK), (9 * CHUNK, 9 * CHUNK + 1024))
    header, index, _content = image(used, "gpt", [(512, 1024)])
    assert extent(header, index).least == 9 * CHUNK + 1024 + 33 * 512
    header.source["backup_gpt"] = [[9 * CHUNK, 9 * CHUNK + 1024]]  # type: ignore[index]
    assert extent(header, index).least == CHUNK + 33 * 512


@pytest.mark.parametrize(
    "noted",
    [
        "x",
        [1],
        [[1]],
        [["a", "b"]],
        [[True, False]],
        [[0, 9 * CHUNK + 1024]],  # from before the partition's end: no backup lies there
        [[9 * CHUNK + 1024, 9 * CHUNK]],
        [[9 * CHUNK, 1 << 62]],
    ],
)
def test_a_place_of_the_backup_that_can_not_be_counts_for_nothing(noted: Any) -> None:
    header, index, _content = image(Used((0, CHUNK), (9 * CHUNK, 9 * CHUNK + 1024)), "gpt", [(512, 1024)])
    header.source["backup_gpt"] = noted  # type: ignore[index]
    assert extent(header, index).least == 9 * CHUNK + 1024 + 33 * 512


@pytest.mark.parametrize(("length", "sectors"), [("256", 65), (256, 65), ("12x", 33), (True, 33), (-1, 33), ("", 33)])
def test_the_count_of_entries_is_text_in_the_answer_of_sfdisk(length: Any, sectors: int) -> None:
    header, index, _content = image(Used((0, CHUNK)), "gpt", [(CHUNK, CHUNK)], **{"table-length": length})
    assert extent(header, index).least == 2 * CHUNK + sectors * 512


def test_of_what_ends_at_the_same_place_the_partition_is_named() -> None:
    header, index, _content = image(Used((0, 2 * CHUNK)), "dos", [(CHUNK, CHUNK)])
    assert "partition 1" in extent(header, index).last


def sound_gpt() -> bytes:
    """The start of a disk with a GPT of one partition, and without an MBR."""
    entries = struct.pack("<16s16sQQ", b"type", b"guid", 100, 200).ljust(128 * 128, b"\0")
    fields = [92, 0, 0, 1, SIZE // 512 - 1, 34, SIZE // 512 - 34, b"disk", 2, 128, 128, zlib.crc32(entries)]
    header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, *fields)
    fields[1] = zlib.crc32(header)
    return bytes(512) + struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, *fields).ljust(512, b"\0") + entries


def test_a_gpt_that_the_mbr_does_not_speak_of_is_bound_to_its_size() -> None:
    header, index, _content = image(USED_BELOW, "dos", [(CHUNK, CHUNK)])
    disk = sound_gpt().ljust(SIZE, b"\0")
    with pytest.raises(ImagingError, match="an MBR and a GPT that say different things"):
        patched_chunks(header, index, SIZE + MIB, lambda offset, length: bytes(disk[offset : offset + length]))
