# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LVM, RAID, crypt and multipath can't be had on every kernel: here /sys and /proc are files."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.fleet.imaging.plugins.module_utils.disk.device_checks import in_the_way
from ansible_collections.fleet.imaging.plugins.module_utils.disk.holders import BlockDevices
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import LIVE_MEDIUM, SWAP, Refusal, messages


def machine(root: Path, mounts: str = "", swaps: str = "") -> Path:
    """A machine with one disk of three partitions, that has nothing in use."""
    (root / "proc/self").mkdir(parents=True)
    (root / "sys/class/block").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "proc/swaps").write_text("Filename Type Size Used Priority\n" + swaps)
    device(root, "sda", "8:0")
    for number in (1, 2, 3):
        device(root, f"sda{number}", f"8:{number}", disk="sda", partition=str(number))
    return root


def device(root: Path, name: str, dev: str, disk: str = "", on: str = "", **attributes: str) -> None:
    """A block device: a partition of ``disk``, or one that is built ``on`` another."""
    folder = root / "sys/devices/block" / disk / name
    folder.mkdir(parents=True)
    (root / "sys/class/block" / name).symlink_to(folder)
    for folder_name in ("holders", "slaves"):
        (folder / folder_name).mkdir()
    for attribute, value in {"dev": dev, **attributes}.items():
        file = folder / attribute.replace("_", "/")
        file.parent.mkdir(exist_ok=True)
        file.write_text(value + "\n")
    if on:
        (folder / "slaves" / on).mkdir()
        (root / "sys/class/block" / on / "holders" / name).mkdir()


def test_a_disk_in_nobodys_use_has_nothing_in_the_way(tmp_path: Path) -> None:
    devices = BlockDevices(str(machine(tmp_path)))
    assert list(in_the_way(devices.of_device("sda"))) == []
    assert devices.parent("sda2") == "sda"
    assert devices.parent("sda") == ""


def test_a_mounted_partition_is_seen_by_its_number_and_its_source_and_spaces_are_unescaped(tmp_path: Path) -> None:
    machine(
        tmp_path,
        "29 1 8:2 / /mnt/a\\040b rw - ext4 /dev/sda2 rw\n"
        "30 1 0:40 /@home /home rw shared:1 master:2 - btrfs /dev/sda3 rw\n"
        "31 1 0:5 / /proc rw - proc proc rw\n32 1 9:9\n",
    )
    use = BlockDevices(str(tmp_path)).of_device("sda")
    assert use.mount_points == ("/mnt/a b", "/home")
    assert "umount /mnt/a b /home" in next(in_the_way(use)).message
    assert BlockDevices(str(tmp_path)).of_device("sda2").mount_points == ("/mnt/a b",)


def test_active_swap_is_seen(tmp_path: Path) -> None:
    machine(tmp_path, swaps="/dev/sda3 partition 1000 0 -2\n/swap\\040file file 1000 0 -3\n")
    assert list(in_the_way(BlockDevices(str(tmp_path)).of_device("sda"))) == [
        Refusal(SWAP, "It holds active swap: switch it off (swapoff /dev/sda3).")
    ]


def test_each_kind_of_holder_comes_with_what_takes_it_down(tmp_path: Path) -> None:
    machine(tmp_path)
    device(tmp_path, "dm-0", "253:0", on="sda1", dm_name="my--group-root", dm_uuid="LVM-abc")
    device(tmp_path, "md127", "9:127", on="sda2", md_level="raid1")
    device(tmp_path, "dm-1", "253:1", on="sda3", dm_name="luks-1", dm_uuid="CRYPT-LUKS2-1")
    device(tmp_path, "dm-2", "253:2", on="sda3", dm_name="mpatha", dm_uuid="mpath-1")
    device(tmp_path, "bcache0", "252:0", on="sda3")
    sentences = messages(in_the_way(BlockDevices(str(tmp_path)).of_device("sda")))
    for words in (
        "/dev/dm-0 (LVM my--group-root) is built on it: take it down first (vgchange --activate n my-group).",
        "/dev/md127 (RAID) is built on it: take it down first (mdadm --stop /dev/md127).",
        "/dev/dm-1 (crypt luks-1) is built on it: take it down first (cryptsetup close luks-1).",
        "/dev/dm-2 (multipath mpatha) is built on it: take it down first (use /dev/mapper/mpatha instead).",
        "/dev/bcache0 (another device) is built on it",
    ):
        assert words in sentences


def test_what_lies_on_top_of_a_holder_counts_and_is_named_first(tmp_path: Path) -> None:
    machine(tmp_path, "29 1 253:1 / /mnt rw - ext4 /dev/mapper/g-root rw\n")
    device(tmp_path, "dm-0", "253:0", on="sda1", dm_name="luks-1", dm_uuid="CRYPT-LUKS2-1")
    device(tmp_path, "dm-1", "253:1", on="dm-0", dm_name="g-root", dm_uuid="LVM-abc")
    use = BlockDevices(str(tmp_path)).of_device("sda")
    assert use.mount_points == ("/mnt",)
    assert [holder.kind for holder in use.holders] == ["LVM", "crypt"]


def test_the_disk_that_a_live_system_runs_from_is_known_by_its_mount_points(tmp_path: Path) -> None:
    for number, path in enumerate(("/", "/run/live/medium", "/run/initramfs/live", "/cdrom", "/run/archiso/bootmnt")):
        root = machine(tmp_path / str(number), f"29 1 8:1 / {path} ro - iso9660 /dev/sda1 ro\n")
        use = BlockDevices(str(root)).of_device("sda")
        assert use.live_medium
        assert next(in_the_way(use)).code == LIVE_MEDIUM


def test_another_mounted_disk_is_no_live_medium(tmp_path: Path) -> None:
    machine(tmp_path, "29 1 8:1 / /media/stick rw - vfat /dev/sda1 rw\n")
    assert not BlockDevices(str(tmp_path)).of_device("sda").live_medium
