# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a disk can hold an image, and whether it is the one that the image was captured from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.image_fit import ImageFacts, reasons_against
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import (
    REFERENCE,
    SECTOR_SIZE,
    TOO_SMALL,
    Reason,
    messages,
)

IMAGE = ImageFacts("win11", 1000 * 512, "the end of partition 2", 512, "S1", "eui.1", "ref", "/dev/sda")


def against(
    image: ImageFacts = IMAGE,
    size: int = 1 << 30,
    serial: str = "",
    wwn: str = "",
    erase: bool = True,
    host: str = "lab-01",
) -> list[Reason]:
    return list(reasons_against(image, "/dev/sda", size, 512, serial, wwn, host, erase))


@pytest.mark.parametrize(
    ("serial", "wwn", "same"),
    [
        ("S1", "eui.1", True),
        ("S1", "eui.2", False),
        ("S1", "", True),
        ("S2", "eui.1", True),
        ("S2", "eui.2", False),
        ("", "eui.1", True),
        ("", "", False),
    ],
)
def test_a_world_wide_name_decides_where_both_have_one_and_else_the_serial_number(
    serial: str, wwn: str, same: bool
) -> None:
    said = against(serial=serial, wwn=wwn)
    assert bool(said) is same
    assert not same or (said[0].code == REFERENCE and "captured from" in said[0].message)
    assert against(serial=serial, wwn=wwn, erase=False) == []


def test_without_either_it_is_the_same_path_of_the_same_host() -> None:
    nameless = replace(IMAGE, source_serial="", source_wwn="")
    assert "host and device, ref /dev/sda" in against(nameless, host="ref")[0].message
    assert against(nameless) == []
    assert against(nameless, host="ref", serial="S9") == []
    assert against(replace(nameless, source_host=""), host="") == []


def test_all_reasons_are_said_with_the_way_out() -> None:
    found = against(replace(IMAGE, logical_sector_size=4096), size=999 * 512, serial="S1", wwn="eui.1")
    assert [reason.code for reason in found] == [TOO_SMALL, SECTOR_SIZE, REFERENCE]
    said = messages(found)
    for words in ("512 bytes too few, because of the end of partition 2", "sectors of 512 bytes", "Check which laptop"):
        assert words in said


def test_facts_that_are_missing_are_refused() -> None:
    with pytest.raises(ImagingError, match="minimum_size"):
        ImageFacts.of({"name": "a"})
    assert ImageFacts.of({**vars(IMAGE), "created": "now"}) == IMAGE
