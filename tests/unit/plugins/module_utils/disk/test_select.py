# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils import reasons
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import Disk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.select import Wanted, select_disk
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import (
    LIVE_MEDIUM,
    MOUNTED,
    NO_DISK,
    NO_SUCH_DISK,
    SEVERAL_DISKS,
    USB,
    Reason,
    Refusal,
)

NVME = Disk(
    path="/dev/nvme0n1",
    size=512 << 30,
    logical_sector_size=512,
    physical_sector_size=512,
    model="Fast One",
    serial="S1",
    wwn="eui.1",
    transport="nvme",
    rotational=False,
    removable=False,
    hotplug=False,
    read_only=False,
    kind="disk",
    by_id=("/dev/disk/by-id/nvme-Fast_One_S1",),
    holders=(),
    mount_points=(),
    swap=(),
    live_medium=False,
    source_refusals=(),
    target_refusals=(),
    not_default=(),
)
SECOND = replace(NVME, path="/dev/nvme1n1", serial="S2", by_id=())
STICK = replace(NVME, path="/dev/sda", transport="usb", not_default=(Reason(USB, "it is connected by USB"),), by_id=())
IS_LIVE = Refusal(LIVE_MEDIUM, "It is live.")
IS_MOUNTED = Refusal(MOUNTED, "It is mounted.", releasable=True)
IS_READ_ONLY = Refusal(reasons.READ_ONLY, "It is read-only.")
LIVE = replace(STICK, path="/dev/sdb", source_refusals=(IS_LIVE,), target_refusals=(IS_LIVE,))
READ_ONLY = replace(NVME, path="/dev/nvme2n1", target_refusals=(IS_READ_ONLY,))


@contextlib.contextmanager
def refused(code: str, words: str) -> Iterator[pytest.ExceptionInfo[ImagingError]]:
    """What is refused with a code."""
    with pytest.raises(ImagingError, match=words) as caught:
        yield caught
    assert caught.value.facts["codes"] == [code]


def test_the_only_disk_that_is_safe_is_chosen() -> None:
    assert select_disk([LIVE, STICK, NVME, READ_ONLY], None, "target") == NVME


def test_what_is_safe_depends_on_the_purpose() -> None:
    assert select_disk([READ_ONLY], None, "source") == READ_ONLY
    with pytest.raises(ImagingError, match="It is read-only"):
        select_disk([READ_ONLY], None, "target")


@pytest.mark.parametrize("requested", ["/dev/nvme0n1", "/dev/disk/by-id/nvme-Fast_One_S1"])
def test_a_disk_can_be_named_by_its_path_or_a_lasting_name(requested: str) -> None:
    assert select_disk([SECOND, NVME], requested, "target") == NVME


def test_a_named_disk_may_be_one_that_is_no_default() -> None:
    assert select_disk([NVME, STICK], "/dev/sda", "target") == STICK


def test_a_named_disk_with_something_in_the_way_is_refused() -> None:
    with refused(LIVE_MEDIUM, "/dev/sdb can't be restored: It is live"):
        select_disk([NVME, LIVE], "/dev/sdb", "target")


def test_several_candidates_are_listed() -> None:
    with refused(SEVERAL_DISKS, "Several disks could be captured") as refusal:
        select_disk([NVME, SECOND], None, "source")
    assert "/dev/nvme0n1  512.0 GiB  nvme       Fast One  S1      nothing" in str(refusal.value)
    assert "/dev/nvme1n1" in str(refusal.value)


def test_what_is_unknown_of_a_disk_is_a_dash_in_the_table() -> None:
    virtual = replace(NVME, path="/dev/vda", transport="", serial="")
    with pytest.raises(ImagingError) as caught:
        select_disk([NVME, virtual], None, "target")
    assert str(caught.value).splitlines()[-1].split() == [
        "/dev/vda",
        "512.0",
        "GiB",
        "-",
        "Fast",
        "One",
        "-",
        "nothing",
    ]


def test_when_only_a_usb_stick_is_seen_the_firmwares_raid_mode_is_explained() -> None:
    with refused(NO_DISK, "AHCI") as refusal:
        select_disk([STICK, LIVE], None, "target")
    assert "Only when named: it is connected by USB." in str(refusal.value)


def test_the_firmware_is_not_blamed_when_an_internal_disk_is_there() -> None:
    with pytest.raises(ImagingError) as refusal:
        select_disk([STICK, READ_ONLY], None, "target")
    assert "AHCI" not in str(refusal.value)


def test_no_disk_at_all_is_said() -> None:
    with refused(NO_DISK, "has no disks"):
        select_disk([], None, "target")


def test_a_disk_that_is_not_there_is_refused_with_those_that_are() -> None:
    with refused(NO_SUCH_DISK, "There is no disk /dev/sdz") as refusal:
        select_disk([NVME], "/dev/sdz", "target")
    assert "/dev/nvme0n1" in str(refusal.value)


def test_what_can_be_released_is_in_nobodys_way_when_it_will_be() -> None:
    busy = replace(NVME, source_refusals=(IS_MOUNTED,), target_refusals=(IS_MOUNTED,))
    assert select_disk([busy], None, "target", release=True) == busy
    assert select_disk([busy], "/dev/nvme0n1", "target", release=True) == busy
    with pytest.raises(ImagingError, match="It is mounted"):
        select_disk([busy], None, "target")
    both = replace(busy, target_refusals=(IS_MOUNTED, IS_READ_ONLY))
    with refused(reasons.READ_ONLY, r"restored: It is read-only\.$"):
        select_disk([both], "/dev/nvme0n1", "target", release=True)


def test_what_can_be_released_is_told_by_its_flag_and_not_by_its_words() -> None:
    held = replace(IS_MOUNTED, releasable=False)
    both = replace(NVME, target_refusals=(IS_MOUNTED, held))
    with refused(MOUNTED, "It is mounted"):
        select_disk([both], "/dev/nvme0n1", "target", release=True)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(serial="s2"),
        Wanted(wwn="EUI.2"),
        Wanted(model="fast tw?"),
        Wanted(model="*TWO", transport="nvme"),
        Wanted(min_size=600 << 30, max_size=700 << 30),
    ],
)
def test_a_disk_can_be_described(wanted: Wanted) -> None:
    second = replace(SECOND, wwn="eui.2", model="Fast Two", size=640 << 30)
    assert select_disk([NVME, second, STICK, LIVE], None, "target", wanted=wanted) == second


def test_a_description_that_fits_several_disks_or_none_is_refused_with_the_reasons() -> None:
    with refused(SEVERAL_DISKS, "Several disks match the description in imaging_disk"):
        select_disk([NVME, SECOND], None, "target", wanted=Wanted(model="fast*"))
    with refused(NO_DISK, "description in imaging_disk") as refusal:
        select_disk([NVME, READ_ONLY], None, "target", wanted=Wanted(serial="S1", min_size=1 << 40))
    assert f"It has {512 << 30} bytes, less than {1 << 40}." in str(refusal.value)
    with pytest.raises(ImagingError, match="Its serial is S1, not other"):
        select_disk([NVME], None, "target", wanted=Wanted(serial="other"))


def test_a_description_that_fits_two_disks_is_refused_although_one_is_in_use() -> None:
    busy = replace(SECOND, model="Fast Two", target_refusals=(IS_MOUNTED,))
    for release in (False, True):
        with refused(SEVERAL_DISKS, r"\(/dev/nvme0n1, /dev/nvme1n1\): add to the description"):
            select_disk([NVME, busy], None, "target", release, Wanted(model="fast*"))
    assert select_disk([NVME, LIVE], None, "target", wanted=Wanted(min_size=1)) == NVME


def test_a_stick_is_described_only_by_what_is_its_own() -> None:
    for vague in (Wanted(model="Fast*"), Wanted(min_size=1)):
        assert select_disk([NVME, STICK], None, "target", wanted=vague) == NVME
    assert select_disk([NVME, STICK], None, "target", wanted=Wanted(transport="usb")) == STICK
    stick = replace(STICK, serial="S9")
    assert select_disk([NVME, stick], None, "target", wanted=Wanted(serial="S9")) == stick
    with pytest.raises(ImagingError, match="It is live"):
        select_disk([replace(LIVE, serial="S8")], None, "target", wanted=Wanted(serial="S8"))
