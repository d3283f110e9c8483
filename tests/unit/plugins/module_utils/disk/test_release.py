# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a disk is released, where LVM, RAID and crypt can't be had: here /sys and /proc are files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk import release
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.disk.holders import BlockDevices
from ansible_collections.fleet.imaging.plugins.module_utils.disk.release import (
    CannotRelease,
    inhibit_udisks,
    release_steps,
)

from .test_holders import device, machine

SYSTEM = (
    "20 1 0:5 / /proc rw - proc proc rw\n"
    "21 1 0:6 / /dev rw - devtmpfs udev rw\n"
    "22 1 0:7 / / rw - overlay overlay rw\n"
    "23 22 7:9 / /run/live/rootfs ro - squashfs /dev/loop9 ro\n"
)


class Machine(BlockDevices):
    """Names are given, not asked of device nodes that are not there."""

    def names_of(self, path: str) -> list[str]:
        return [path.rpartition("/")[2]]


def commands(root: Path, disk: str = "/dev/sda") -> list[str]:
    return [" ".join(step.command) for step in release_steps(Machine(str(root)), disk)]


def test_nothing_is_done_to_a_disk_in_nobodys_use(tmp_path: Path) -> None:
    assert commands(machine(tmp_path, SYSTEM)) == []


def test_the_last_mount_goes_first_whatever_it_is_mounted_from(tmp_path: Path) -> None:
    mounts = (
        "30 22 8:2 / /mnt rw - ext4 /dev/sda2 rw\n"
        "31 30 8:1 / /mnt/boot/efi rw - vfat /dev/sda1 rw\n"
        "32 30 8:2 /home /srv rw - ext4 /dev/sda2 rw\n"
        "33 22 8:3 / /media/live/My\\040Disk rw - ntfs /dev/sda3 rw\n"
        "34 30 0:5 / /mnt/proc rw - proc proc rw\n"
        "35 30 0:6 / /mnt/dev rw - devtmpfs udev rw\n"
    )
    assert commands(machine(tmp_path, SYSTEM + mounts)) == [
        "umount -- /media/live/My Disk",
        "umount -- /srv",
        "umount -- /mnt/boot/efi",
        "umount -- /mnt/dev",
        "umount -- /mnt/proc",
        "umount -- /mnt",
    ]


def test_what_is_mounted_inside_and_is_of_another_disk_is_not_touched(tmp_path: Path) -> None:
    root = machine(
        tmp_path, SYSTEM + "30 22 8:2 / /mnt rw - ext4 /dev/sda2 rw\n31 30 8:17 / /mnt/usb rw - vfat /dev/sdb1 rw\n"
    )
    device(root, "sdb", "8:16")
    device(root, "sdb1", "8:17", disk="sdb", partition="1")
    with pytest.raises(CannotRelease, match=r"/dev/sdb1 is mounted at /mnt/usb.*umount /mnt/usb"):
        commands(root)
    assert commands(root, "/dev/sdb") == ["umount -- /mnt/usb"]


def test_what_is_built_on_it_goes_from_the_top(tmp_path: Path) -> None:
    mounts = "30 22 253:2 / /mnt rw - ext4 /dev/mapper/my--group-a--root rw\n"
    root = machine(tmp_path, SYSTEM + mounts, swaps="/dev/dm-3 partition 1000 0 -2\n")
    device(root, "md127", "9:127", on="sda1", md_level="raid1")
    device(root, "dm-1", "253:1", on="md127", dm_name="luks-1", dm_uuid="CRYPT-LUKS2-1")
    device(root, "dm-2", "253:2", on="dm-1", dm_name="my--group-a--root", dm_uuid="LVM-a")
    device(root, "dm-3", "253:3", on="dm-1", dm_name="my--group-swap", dm_uuid="LVM-b")
    assert commands(root) == [
        "umount -- /mnt",
        "swapoff -- /dev/dm-3",
        "lvchange --activate n my-group/swap",
        "lvchange --activate n my-group/a-root",
        "cryptsetup close luks-1",
        "mdadm --stop /dev/md127",
    ]


def test_what_nobody_knows_how_to_take_down_is_left(tmp_path: Path) -> None:
    root = machine(tmp_path, SYSTEM)
    device(root, "dm-2", "253:2", on="sda3", dm_name="mpatha", dm_uuid="mpath-1")
    with pytest.raises(CannotRelease, match="multipath"):
        commands(root)


@pytest.mark.parametrize("where", ["/", "/run/live/medium", "/cdrom"])
def test_the_disk_that_the_machine_runs_from_is_left(tmp_path: Path, where: str) -> None:
    with pytest.raises(CannotRelease, match="runs from"):
        commands(machine(tmp_path, f"22 1 8:1 / {where} rw - ext4 /dev/sda1 rw\n"))


def test_udisks_is_told_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def run(command: object) -> CommandResult:
        said.append(" ".join(command))  # type: ignore[arg-type]
        return CommandResult(0, "", "")

    monkeypatch.setattr(release, "UDEV_CONTROL", str(tmp_path / "control"))
    monkeypatch.setattr(release, "UDISKS", str(tmp_path / "udisks2"))
    monkeypatch.setattr(release, "RULES", str(tmp_path / "rules.d"))
    inhibit_udisks(run, "/dev/nvme0n1")
    assert said == []
    (tmp_path / "control").touch()
    (tmp_path / "udisks2").mkdir()
    inhibit_udisks(run, "/dev/nvme0n1")
    inhibit_udisks(run, "/dev/sda")
    rule = (tmp_path / "rules.d/99-fleet-imaging-nvme0n1.rules").read_text()
    assert 'KERNEL=="nvme0n1|nvme0n1p[0-9]*"' in rule and 'ENV{UDISKS_IGNORE}="1"' in rule
    assert 'KERNEL=="sda|sda[0-9]*"' in (tmp_path / "rules.d/99-fleet-imaging-sda.rules").read_text()
    assert said[:2] == [
        "udevadm control --reload",
        "udevadm trigger --action=change --subsystem-match=block --sysname-match=nvme0n1*",
    ]
