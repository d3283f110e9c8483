# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lsblk of all ages and without udev says, and devices that no test machine has."""

from __future__ import annotations

import json
from typing import Any, Sequence

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, RunCommand
from ansible_collections.fleet.imaging.plugins.module_utils.disk.device_checks import reasons_against_default
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import Disk, list_disks
from ansible_collections.fleet.imaging.plugins.module_utils.disk.holders import BlockDevices
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import (
    EMMC_BOOT,
    HOTPLUG,
    NO_CAPACITY,
    OVER_NETWORK,
    READ_ONLY,
    REMOVABLE,
    USB,
    VIRTUAL,
    Reason,
)

NOTHING = CommandResult(2, "", "")


def lsblk(answer: Any, rc: int = 0) -> RunCommand:
    """A machine whose lsblk gives this answer and that has no other tool of use."""
    text = answer if isinstance(answer, str) else json.dumps({"blockdevices": answer})

    def run(command: Sequence[str]) -> CommandResult:
        return CommandResult(rc, text, "lsblk: it failed") if command[0] == "lsblk" else NOTHING

    return run


def disk_of(**row: Any) -> Disk:
    (disk,) = list_disks(lsblk([{"name": "zz9", "kname": "zz9", "type": "disk", "size": 1 << 30, **row}]))
    return disk


def test_every_field_of_a_new_lsblk_is_taken() -> None:
    disk = disk_of(
        **{"log-sec": 4096, "phy-sec": 4096, "model": "Fast One  ", "serial": "S1", "wwn": "eui.1", "tran": "nvme"},
        rota=True,
        rm=False,
        hotplug=True,
        ro=False,
    )
    assert (disk.path, disk.size, disk.kind) == ("/dev/zz9", 1 << 30, "disk")
    assert (disk.logical_sector_size, disk.physical_sector_size) == (4096, 4096)
    assert (disk.model, disk.serial, disk.wwn, disk.transport) == ("Fast One", "S1", "eui.1", "nvme")
    assert (disk.rotational, disk.removable, disk.hotplug, disk.read_only) == (True, False, True, False)
    assert not disk.target_refusals
    assert [reason.code for reason in disk.not_default] == [HOTPLUG]


def test_a_label_is_no_command_to_a_terminal() -> None:
    assert disk_of(model="Fast\x1b[2J\n One \udcff").model == "Fast\\x1b[2J\\x0a One \\udcff"


def test_an_old_lsblk_that_writes_everything_as_text_says_the_same() -> None:
    disk = disk_of(**{"size": "1073741824", "log-sec": "4096", "rota": "1", "rm": "1", "hotplug": "0", "ro": "1"})
    assert (disk.size, disk.logical_sector_size) == (1 << 30, 4096)
    assert (disk.rotational, disk.removable, disk.hotplug, disk.read_only) == (True, True, False, True)
    assert [refusal.code for refusal in disk.target_refusals] == [READ_ONLY]
    assert not disk.source_refusals


@pytest.mark.parametrize("odd", [None, [], {}, "what?", -5, 1.5, True])
def test_fields_that_are_missing_or_odd_do_no_harm(odd: Any) -> None:
    names = ("size", "log-sec", "phy-sec", "model", "serial", "wwn", "tran", "rota", "rm", "hotplug", "ro", "children")
    disk = disk_of(**dict.fromkeys(names, odd))
    assert disk.path == "/dev/zz9"
    assert disk.size >= 0
    assert disk.logical_sector_size > 0


def test_optical_drives_and_devices_without_a_name_are_left_out() -> None:
    assert list_disks(lsblk([{"kname": "sr0", "type": "rom"}, {"type": "disk"}, 5, None])) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"blockdevices": 3}', "[" * 100000])
def test_an_answer_that_makes_no_sense_is_an_error(text: str) -> None:
    with pytest.raises(ImagingError):
        list_disks(lsblk(text))


def test_a_failure_of_lsblk_is_an_error() -> None:
    with pytest.raises(ImagingError, match="it failed"):
        list_disks(lsblk([], rc=1))


def test_a_disk_of_no_size_is_refused() -> None:
    assert [refusal.code for refusal in disk_of(size=0).source_refusals] == [NO_CAPACITY]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (("sda", "/sys/devices/pci/usb1/block/sda", "usb", False, False), (USB, "it is connected by USB")),
        (("sda", "/sys/devices/pci/block/sda", "sata", True, False), (REMOVABLE, "its medium can be removed")),
        (
            ("mmcblk1", "/sys/devices/pci/block/mmcblk1", "", False, True),
            (HOTPLUG, "it can be unplugged while the machine runs"),
        ),
        (
            ("sda", "/sys/devices/x/session1/block/sda", "iscsi", False, False),
            (OVER_NETWORK, "it is reached over a network"),
        ),
        (("rbd0", "/sys/devices/rbd/block/rbd0", "", False, False), (OVER_NETWORK, "it is reached over a network")),
        (
            ("mmcblk0boot1", "/sys/devices/x/block/mmcblk0boot1", "mmc", False, False),
            (EMMC_BOOT, "it is a boot area of an eMMC"),
        ),
        (("zram0", "/sys/devices/virtual/block/zram0", "", False, False), (VIRTUAL, "it is a virtual device")),
    ],
)
def test_what_is_not_safe_by_default_has_a_reason(facts: Any, reason: tuple[str, str]) -> None:
    assert list(reasons_against_default(*facts)) == [Reason(*reason)]


@pytest.mark.parametrize(
    ("name", "folder", "transport"),
    [
        ("nvme0n1", "/sys/devices/pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0/nvme0n1", "nvme"),
        ("nvme0n1", "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "nvme"),
        ("sda", "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda", "sata"),
        ("mmcblk0", "/sys/devices/pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:0001/block/mmcblk0", "mmc"),
        ("vda", "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda", ""),
    ],
)
def test_internal_disks_are_safe_by_default(name: str, folder: str, transport: str) -> None:
    assert list(reasons_against_default(name, folder, transport, False, False)) == []


@pytest.mark.parametrize(("kind", "hotplug"), [("MMC", False), ("SD", True)])
def test_an_emmc_is_not_hot_pluggable_and_a_memory_card_is(
    kind: str, hotplug: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = {"device/type": kind}
    monkeypatch.setattr(BlockDevices, "attribute", lambda self, name, attribute: attributes.get(attribute, ""))
    assert disk_of(hotplug=True).hotplug is hotplug


def test_an_nvme_over_a_network_is_not_safe_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = {"device/transport": "tcp"}
    monkeypatch.setattr(BlockDevices, "attribute", lambda self, name, attribute: attributes.get(attribute, ""))
    assert [reason.code for reason in disk_of(tran="nvme").not_default] == [OVER_NETWORK]
