# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import (
    PartitionTable,
    parse_partition_table,
    read_partition_table,
)
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError

SECTORS = 65536
SIZE = SECTORS * 512


def answer(label: str = "gpt", *partitions: dict[str, Any], **fields: Any) -> str:
    table = {"label": label, "device": "/dev/sda", "unit": "sectors", "sectorsize": 512, "partitions": list(partitions)}
    return json.dumps({"partitiontable": {**table, **fields}})


def entry(number: int, start: Any, size: Any, kind: str = "linux", **fields: Any) -> dict[str, Any]:
    return {"node": f"/dev/sda{number}", "start": start, "size": size, "type": kind, **fields}


def parse(text: str, disk: bytes = bytes(SIZE), sector_size: int = 512) -> PartitionTable:
    return parse_partition_table(
        text, "/dev/sda", len(disk), sector_size, lambda offset, length: disk[offset : offset + length]
    )


def gpt_header(backup: int, entries: int, count: int = 128, entry_size: int = 128) -> bytes:
    return struct.pack("<8s24xQ32xQII", b"EFI PART", backup, entries, count, entry_size)


def with_bytes(*places: Any) -> bytes:
    disk = bytearray(SIZE)
    for offset, content in places:
        disk[offset : offset + len(content)] = content
    return bytes(disk)


def test_partitions_come_in_disk_order_and_in_bytes() -> None:
    table = parse(answer("gpt", entry(2, 4096, 10, uuid="U", name="N"), entry(1, 2048, 8)))
    assert [(each.number, each.start, each.size) for each in table.partitions] == [
        (1, 2048 * 512, 8 * 512),
        (2, 4096 * 512, 10 * 512),
    ]
    assert (table.partitions[1].uuid, table.partitions[1].name) == ("U", "N")
    assert not table.faults


def test_sectors_of_4096_bytes_are_counted_as_such() -> None:
    assert parse(answer("gpt", entry(1, 256, 8), sectorsize=4096), sector_size=4096).partitions[0].start == 1 << 20


def test_the_sectors_of_an_old_sfdisk_that_does_not_say_them_are_the_disks() -> None:
    text = json.loads(answer("gpt", entry(1, 256, 8)))
    del text["partitiontable"]["sectorsize"]
    assert parse(json.dumps(text), sector_size=4096).partitions[0].start == 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"partitiontable": 1}',
        "[" * 100000,
        answer(partitions={"a": 1}),
        answer(partitions=[1]),
        answer(sectorsize=4096),
        answer(unit="cylinders"),
        answer("gpt", entry(1, -1, 8)),
        answer("gpt", entry(1, 2048, 0)),
        answer("gpt", entry(1, "2048", 8)),
        answer("gpt", entry(1, True, 8)),
        answer("gpt", entry(1, 2048.5, 8)),
        answer("gpt", entry(1, 1 << 60, 8)),
        answer("gpt", {"node": "/dev/sdb1", "start": 1, "size": 1}),
        answer("gpt", {"node": "/dev/sda0", "start": 1, "size": 1}),
        answer("gpt", {"start": 1, "size": 1}),
        answer("gpt", entry(1, 2048, 8, type=5)),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ImagingError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (answer("gpt", entry(1, 2048, SECTORS)), "beyond the end"),
        (answer("gpt", entry(1, 2048, 8), entry(1, 4096, 8)), "two partitions 1"),
        (answer("dos", entry(1, 2048, 8), entry(5, 4096, 8)), "outside of the extended"),
        (answer("dos", entry(1, 2048, 100, "5"), entry(5, 2100, 100)), "outside of the extended"),
        (answer("dos", entry(1, 1, 100, "ee")), "no valid GPT"),
    ],
)
def test_a_table_that_can_not_be_true_has_faults(text: str, fault: str) -> None:
    assert fault in " ".join(parse(text).faults)


def test_overlapping_partitions_are_no_fault() -> None:
    assert not parse(answer("gpt", entry(1, 2048, 100), entry(2, 2100, 100))).faults


@pytest.mark.parametrize("kind", ["5", "f", "0F", "85"])
def test_extended_and_logical_partitions_are_known(kind: str) -> None:
    table = parse(answer("dos", entry(1, 2048, 100, kind), entry(5, 2050, 10)))
    assert [table.is_extended(each) for each in table.partitions] == [True, False]
    assert [table.is_logical(each) for each in table.partitions] == [False, True]
    assert not table.faults


def test_headers_and_arrays_lie_where_the_headers_say() -> None:
    disk = with_bytes((512, gpt_header(30000, 40)), (30000 * 512, gpt_header(1, 20000, 8, 256)))
    assert sorted(parse(answer("gpt"), disk).metadata_ranges) == [
        (512, 1024),
        (40 * 512, 72 * 512),
        (20000 * 512, 20004 * 512),
        (30000 * 512, 30001 * 512),
    ]


def test_a_backup_in_the_last_sector_is_found_without_a_primary() -> None:
    disk = with_bytes((SIZE - 512, gpt_header(1, SECTORS - 33)))
    assert set(parse(answer("gpt"), disk).metadata_ranges) == {(SIZE - 512, SIZE), (SIZE - 33 * 512, SIZE - 512)}


@pytest.mark.parametrize(
    "header",
    [
        gpt_header(SECTORS - 1, 1 << 62),
        gpt_header(SECTORS - 1, 2, 0xFFFFFFFF, 0xFFFFFFFF),
        gpt_header(SECTORS - 1, SECTORS - 2),
        gpt_header(1 << 63, 2, 0),
    ],
)
def test_absurd_places_in_a_header_lead_nowhere(header: bytes) -> None:
    assert parse(answer("gpt"), with_bytes((512, header))).metadata_ranges == ((512, 1024),)


def test_the_backup_of_a_gpt_is_told_from_the_main_one() -> None:
    disk = with_bytes((512, gpt_header(30000, 40)), (30000 * 512, gpt_header(1, 20000, 8, 256)))
    assert parse(answer("gpt"), disk).backup_ranges == ((30000 * 512, 30001 * 512), (20000 * 512, 20004 * 512))


def boot_record(*entries: tuple[int, int, int]) -> bytes:
    return bytes(446) + b"".join(struct.pack("<4xB3xII", *each) for each in entries).ljust(64, b"\0") + b"\x55\xaa"


def test_boot_records_lie_where_the_one_before_says() -> None:
    disk = with_bytes(
        (2048 * 512, boot_record((0x83, 8, 8), (5, 1000, 100))),
        (3048 * 512, boot_record((0x83, 8, 8), (0x0F, 500, 100))),
        (2548 * 512, boot_record((0x83, 8, 8))),
    )
    table = parse(answer("dos", entry(1, 2048, 4096, "f"), entry(5, 2056, 1500)), disk)
    assert table.metadata_ranges == tuple((place * 512, place * 512 + 512) for place in (2048, 3048, 2548))


@pytest.mark.parametrize(
    "link", [(5, 0, 100), (5, 1000, 0), (0x83, 1000, 100), (5, 0xFFFFFFFF, 100), (5, SECTORS - 2048, 1), (5, 1, 1)]
)
def test_a_chain_of_boot_records_that_leads_nowhere_ends(link: tuple[int, int, int]) -> None:
    disk = with_bytes((2048 * 512, boot_record((0x83, 8, 8), link)))
    assert parse(answer("dos", entry(1, 2048, 4096, "5")), disk).metadata_ranges == ((2048 * 512, 2049 * 512),)


def test_what_a_hybrid_mbr_claims_is_known_and_clipped_to_the_disk() -> None:
    slots = [
        struct.pack("<4xB3xII", *slot)
        for slot in ((0xEE, 1, 2047), (0x07, 2048, 100), (0x83, 60000, 1 << 31), (0, 0, 0))
    ]
    disk = with_bytes((446, b"".join(slots)), (510, b"\x55\xaa"))
    assert parse(answer("gpt"), disk).hybrid_ranges == ((2048 * 512, 2148 * 512), (60000 * 512, SIZE))
    assert parse(answer("dos"), disk).hybrid_ranges == ()


def test_no_table_is_not_a_failure_of_sfdisk() -> None:
    blank = CommandResult(1, "", "sfdisk: /dev/null: does not contain a recognized partition table\n")
    assert read_partition_table(lambda command: blank, "/dev/null") is None


def test_a_failure_of_sfdisk_is_not_an_empty_disk() -> None:
    with pytest.raises(ImagingError, match="cannot open"):
        read_partition_table(lambda command: CommandResult(1, "", "sfdisk: cannot open /dev/sda\n"), "/dev/null")


def test_a_missing_sfdisk_is_not_an_empty_disk() -> None:
    def run(command: Any) -> CommandResult:
        raise MissingTool(command[0])

    with pytest.raises(MissingTool, match="package fdisk on Debian"):
        read_partition_table(run, "/dev/null")
