# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that UEFI firmware can start: a real EFI system partition.

The firmware is a stand-in: the machines that run tests have no variables that may be written. It answers as efibootmgr does.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, RunCommand
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.fat import FatTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.firmware import boot_order
from ansible_collections.fleet.imaging.plugins.module_utils.disk.loaders import BootChoice
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.disk.uefi import Boot, make_bootable
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    START,
    attached,
    needs,
    part,
    partitioned,
    runner,
    single,
)
from ansible_collections.fleet.imaging.tests.integration.faults import wait_until
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import CAPTURE_ONE, playbook
from ansible_collections.fleet.imaging.tests.lab import efibootmgr_stand_in
from ansible_collections.fleet.imaging.tests.lab.lab import Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop

pytestmark = pytest.mark.skipif(not isolated(), reason="a partition's file system needs a loop device, and so root")

X64, IA32, AA64 = 0x8664, 0x014C, 0xAA64


def program(name: str, machine: int = X64) -> bytes:
    """A program for UEFI as far as it is looked at: the header of MZ, and that of PE with the machine."""
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I4sH", 0x40, b"PE\0\0", machine) + name.encode() * 1000


WINDOWS = {"EFI/Microsoft/Boot/bootmgfw.efi": program("windows"), "EFI/Microsoft/Boot/BCD": b"regf"}
DEBIAN = {
    "EFI/debian/shimx64.efi": program("shim"),
    "EFI/debian/grubx64.efi": program("grub"),
    "EFI/debian/mmx64.efi": program("mm"),
    "EFI/debian/grub.cfg": b"configuration",
}
DUAL = {**WINDOWS, **DEBIAN}
FALLBACK = "EFI/BOOT/BOOTX64.EFI"
BOOT_ORDER = "BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHIM, BOOTMGR = "/EFI/debian/shimx64.efi", "/EFI/Microsoft/Boot/bootmgfw.efi"


def esp_disk(tmp_path: Path, files: dict[str, bytes], kind: str = "uefi") -> Path:
    needs("mcopy", "mmd", "mtype")
    disk = single(tmp_path, 40 * MIB, ["mkfs.fat", "-F", "32"], kind=kind)
    fill(tmp_path, disk, START, files)
    return disk


def fill(tmp_path: Path, disk: Path, start: int, files: dict[str, bytes]) -> None:
    where = f"{disk}@@{start}"
    made = set()
    for path, content in files.items():
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder.lower() not in made:
                subprocess.run(["mmd", "-i", where, f"::{folder}"], check=True)
                made.add(folder.lower())
        (tmp_path / "file").write_bytes(content)
        subprocess.run(["mcopy", "-i", where, tmp_path / "file", f"::{path}"], check=True)


def disk_with_two(tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]) -> Path:
    """A disk with two EFI system partitions."""
    needs("mcopy", "mmd", "mdir")
    disk = tmp_path / "two"
    with open(disk, "wb") as file:
        file.truncate(83 * MIB)
    partitioned(disk, f"label: gpt\nstart=2048, size={40 * MIB // 512}, type=uefi\nsize={40 * MIB // 512}, type=uefi\n")
    for start, files in ((START, first), (START + 40 * MIB, second)):
        with attached(disk, *part(start, 40 * MIB)) as device:
            subprocess.run(["mkfs.fat", "-F", "32", device], check=True, capture_output=True)
        fill(tmp_path, disk, start, files)
    return disk


def content(disk: Path, path: str) -> bytes:
    return subprocess.run(["mtype", "-i", f"{disk}@@{START}", f"::{path}"], check=True, capture_output=True).stdout


def boot(
    disk: Path,
    write: bool = True,
    run: RunCommand = RUN,
    firmware: Path | None = None,
    choices: Sequence[BootChoice] = (),
) -> Boot:
    return make_bootable(run, str(disk), write, choices, firmware=str(firmware or "/nowhere"))


def guid(disk: Path, number: int = 1) -> str:
    table = read_partition_table(RUN, str(disk))
    assert table
    return next(each.uuid.lower() for each in table.partitions if each.number == number)


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (WINDOWS, BOOTMGR),
        (DUAL, SHIM),
        ({"EFI/arch/grubx64.efi": program("grub")}, "/EFI/arch/grubx64.efi"),
        ({"EFI/systemd/systemd-bootx64.efi": program("sd")}, "/EFI/systemd/systemd-bootx64.efi"),
    ],
)
def test_a_missing_fallback_is_made_once_from_the_loader_that_is_there(
    tmp_path: Path, files: dict[str, bytes], source: str
) -> None:
    disk = esp_disk(tmp_path, files)
    before = disk.read_bytes()
    planned = boot(disk, write=False)
    assert (planned.changed, planned.made_from, planned.fallback) == (True, source, "/EFI/BOOT/BOOTX64.EFI")
    assert disk.read_bytes() == before
    assert boot(disk) == planned
    assert content(disk, "EFI/BOOT/BOOTX64.EFI") == files[source.lstrip("/")]
    if files is DUAL:  # shim starts what lies beside it
        assert content(disk, "EFI/BOOT/grubx64.efi") == files["EFI/debian/grubx64.efi"]
        assert content(disk, "EFI/BOOT/mmx64.efi") == files["EFI/debian/mmx64.efi"]
    after = disk.read_bytes()
    assert not boot(disk).changed
    assert disk.read_bytes() == after
    (tmp_path / "esp").write_bytes(after[START : START + 40 * MIB])
    subprocess.run(["fsck.fat", "-n", tmp_path / "esp"], check=True, capture_output=True)


def test_a_fallback_that_is_there_is_left_alone_whatever_the_case_of_its_name(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, {**WINDOWS, "EFI/Boot/bootx64.efi": program("own")})
    before = disk.read_bytes()
    found = boot(disk)
    assert (found.changed, found.fallback.lower()) == (False, "/efi/boot/bootx64.efi")
    assert disk.read_bytes() == before


def test_a_partition_without_any_loader_is_a_warning(tmp_path: Path) -> None:
    found = boot(esp_disk(tmp_path, {"EFI/readme.txt": b"nothing"}))
    assert not found.changed
    assert "does not boot by UEFI" in found.warnings[0]


def test_a_full_partition_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, {"EFI/Microsoft/Boot/bootmgfw.efi": program("windows") + bytes(22 * MIB)})
    with pytest.raises(ImagingError, match=r"EFI/BOOT/BOOTX64\.EFI can't be copied"):
        boot(disk)


def test_a_disk_without_such_a_partition_is_left_alone(tmp_path: Path) -> None:
    assert boot(esp_disk(tmp_path, WINDOWS, kind="linux")) == Boot()


def test_a_disk_that_can_not_be_changed_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, WINDOWS)
    before = disk.read_bytes()
    with (
        attached(disk, "--read-only") as device,
        pytest.raises(ImagingError, match=r"needs the fallback loader .* can't be changed: .*read-only"),
    ):
        boot(Path(device))
    assert disk.read_bytes() == before


def test_an_esp_with_few_clusters_is_read_and_written_like_any_other(tmp_path: Path) -> None:
    """Many have 4096 bytes in a cluster, and so fewer clusters than the specification wants of a FAT32."""
    disk = single(tmp_path, 40 * MIB, ["mkfs.fat", "-F", "32", "-s", "8"], kind="uefi")
    loader = program("windows") + os.urandom(300_000)
    with attached(disk, *part(START, 40 * MIB)) as node:
        (tmp_path / "file").write_bytes(loader)
        FatTree(RUN, node).put(str(tmp_path / "file"), "/EFI/Microsoft/Boot/bootmgfw.efi")
    made = boot(disk)
    assert (made.made_from, made.fallback) == ("/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/BOOT/BOOTX64.EFI")
    again = boot(disk)
    assert (again.changed, again.fallback, again.warnings) == (False, "/EFI/BOOT/BOOTX64.EFI", [])
    with attached(disk, *part(START, 40 * MIB)) as node:
        assert FatTree(RUN, node).read("/efi/boot/bootx64.efi") == loader
        subprocess.run(["fsck.fat", "-n", node], check=True, capture_output=True)


@pytest.mark.parametrize(("machine", "name"), [(IA32, "BOOTIA32.EFI"), (X64, "BOOTX64.EFI"), (AA64, "BOOTAA64.EFI")])
def test_the_name_of_the_fallback_is_that_for_the_loaders_machine(tmp_path: Path, machine: int, name: str) -> None:
    """The loader of Windows has the same name for each machine, and this machine is one of them at most."""
    disk = esp_disk(tmp_path, {"EFI/Microsoft/Boot/bootmgfw.efi": program("windows", machine)})
    assert boot(disk).fallback == f"/EFI/BOOT/{name}"
    assert content(disk, f"EFI/BOOT/{name}") == program("windows", machine)


def test_of_a_loader_that_is_no_program_no_fallback_is_made(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, {"EFI/Microsoft/Boot/bootmgfw.efi": b"MZ, and nothing that says for what"})
    before = disk.read_bytes()
    found = boot(disk)
    assert (found.changed, found.fallback) == (False, "")
    assert "not a UEFI program" in found.warnings[0]
    assert disk.read_bytes() == before


def test_a_partition_that_can_not_be_read_is_not_called_empty(tmp_path: Path) -> None:
    """A cluster of the loader is free in both allocation tables (Microsoft, FAT32 specification 1.03: places of the tables)."""
    disk = esp_disk(tmp_path, WINDOWS)
    with open(disk, "r+b") as file:
        file.seek(START)
        sector = file.read(512)
        (reserved,), (length,) = struct.unpack_from("<H", sector, 14), struct.unpack_from("<I", sector, 36)
        for table in (reserved, reserved + length):
            file.seek(START + table * 512 + 10 * 4)
            file.write(bytes(4))
    before = disk.read_bytes()
    found = boot(disk)
    assert (found.esp, found.changed) == (1, False)
    assert len(found.warnings) == 1
    assert "can't be read" in found.warnings[0] and "unknown" in found.warnings[0]
    assert disk.read_bytes() == before


def test_a_partition_without_a_file_system_is_said(tmp_path: Path) -> None:
    disk = single(tmp_path, 40 * MIB, ["mkfs.ext4", "-q", "-F"], kind="uefi")
    found = boot(disk)
    assert (found.esp, found.changed) == (1, False)
    assert "holds ext4, not a FAT" in found.warnings[0]


@pytest.mark.parametrize(
    ("first", "second", "esp"),
    [
        ({}, {**WINDOWS, FALLBACK: program("windows")}, 2),
        ({}, WINDOWS, 2),
        (WINDOWS, {**DEBIAN, FALLBACK: program("shim")}, 2),
        (WINDOWS, DEBIAN, 1),
        ({}, {}, 1),
    ],
)
def test_of_two_partitions_the_one_with_loaders_is_taken(
    tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes], esp: int
) -> None:
    disk = disk_with_two(tmp_path, first, second)
    assert boot(disk, write=False).esp == esp
    if first and second:
        chosen = [BootChoice(guid(disk, 2), SHIM), BootChoice(guid(disk, 1), BOOTMGR)]
        assert boot(disk, write=False, choices=chosen).esp == 2
        assert boot(disk, write=False, choices=chosen[1:]).esp == 1


# --- the firmware's list ---


class Firmware(efibootmgr_stand_in.Firmware):
    """The firmware's list, beside real programs: what runs efibootmgr, and counts what it changes."""

    def __init__(self, version: int, folder: Path) -> None:
        super().__init__(version)
        self.folder = folder
        (folder / "efivars").mkdir(parents=True)
        (folder / "efivars" / BOOT_ORDER).touch()
        self.forgets = False
        self.changes = 0

    def __call__(self, command: Sequence[str]) -> CommandResult:
        if command[0] != "efibootmgr":
            return RUN(command)
        changes = list(command[1:]) != ["-v"]
        self.changes += changes
        return CommandResult(0, "", "") if changes and self.forgets else CommandResult(*self.answer(command[1:]))


OTHER = "11111111-2222-3333-4444-555555555555"
FEDORA = {
    "EFI/fedora/BOOTX64.CSV": "shimx64.efi,Fedora,,This is the boot entry for Fedora\n".encode("utf-16-le"),
    "EFI/fedora/grubx64.efi": program("grub"),
    "EFI/fedora/mmx64.efi": program("mm"),
    "EFI/fedora/shim.efi": program("shim"),
    "EFI/fedora/shimx64.efi": program("shim"),
    "EFI/BOOT/fbx64.efi": program("fallback"),
    FALLBACK: program("shim"),
}
"""What the packages shim-x64 and grub2-efi-x64 of Fedora put there."""


@pytest.fixture(name="firmware", params=[17, 18])
def fixture_firmware(request: pytest.FixtureRequest, tmp_path: Path) -> Firmware:
    return Firmware(request.param, tmp_path / "efi")


def test_the_firmware_gets_one_entry_and_keeps_it(tmp_path: Path, firmware: Firmware) -> None:
    disk = esp_disk(tmp_path, WINDOWS)
    planned = boot(disk, write=False, run=firmware, firmware=firmware.folder)
    assert planned.entry_made and len(firmware.entries) == 1
    made = boot(disk, run=firmware, firmware=firmware.folder)
    assert (made.entry_made, made.entry, firmware.order) == (True, "0001", ["0001", "0000"])
    assert firmware.entries["0001"][0] == "Windows Boot Manager"
    assert firmware.entries["0001"][2] == "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"
    again = boot(disk, run=firmware, firmware=firmware.folder)
    assert (again.changed, again.entry) == (False, "0001")
    firmware.entries["0007"] = firmware.entries["0001"]
    firmware.entries["0008"] = ("Another disk", OTHER, firmware.entries["0001"][2])
    cleared = boot(disk, run=firmware, firmware=firmware.folder)
    assert (cleared.removed, cleared.changed) == (["0007"], True)
    assert sorted(firmware.entries) == ["0000", "0001", "0008"]


@pytest.mark.parametrize(
    ("order", "inactive", "after"),
    [
        (["0001", "0000", "0002"], {"0001"}, ["0001", "0000", "0002"]),
        (["0000", "0002"], set(), ["0001", "0000", "0002"]),
        (["0000", "0001", "0002"], set(), ["0001", "0000", "0002"]),
        (["0002", "0009", "0000", "0002", "0001"], {"0001", "0002"}, ["0001", "0002", "0000"]),
        ([], {"0001"}, ["0001"]),
    ],
    ids=["inactive", "not in the order", "behind the network", "all of it", "no order at all"],
)
def test_an_entry_that_the_firmware_does_not_start_first_is_no_entry(
    tmp_path: Path, firmware: Firmware, order: list[str], inactive: set[str], after: list[str]
) -> None:
    disk = esp_disk(tmp_path, {**WINDOWS, FALLBACK: program("windows")})
    firmware.add("0001", "Windows Boot Manager", guid(disk), BOOTMGR)
    firmware.add("0002", "Another disk", OTHER, BOOTMGR)
    firmware.order, firmware.inactive = list(order), set(inactive)
    entries = dict(firmware.entries)
    planned = boot(disk, write=False, run=firmware, firmware=firmware.folder)
    assert (planned.entry, planned.entry_put_first, firmware.order) == ("0001", True, order)
    done = boot(disk, run=firmware, firmware=firmware.folder)
    assert (done.entry, done.entry_made, done.entry_put_first, done.changed) == ("0001", False, True, True)
    assert (firmware.order, firmware.entries, firmware.inactive) == (after, entries, inactive - {"0001"})
    changes = firmware.changes
    assert not boot(disk, run=firmware, firmware=firmware.folder).changed
    assert firmware.changes == changes


def test_of_several_that_are_the_same_the_one_that_is_tried_first_is_kept(tmp_path: Path) -> None:
    firmware = Firmware(17, tmp_path / "efi")
    disk = esp_disk(tmp_path, {**WINDOWS, FALLBACK: program("windows")})
    for number in ("0001", "0002", "0003", "0004"):
        firmware.add(number, "Windows Boot Manager", guid(disk), BOOTMGR)
    firmware.order, firmware.inactive = ["0002", "0000", "0003", "0004"], {"0002"}
    done = boot(disk, run=firmware, firmware=firmware.folder)
    assert (done.entry, sorted(done.removed)) == ("0003", ["0001", "0002", "0004"])
    assert firmware.order == ["0003", "0000"]


@pytest.mark.parametrize(
    ("fallback", "choices", "first"),
    [
        (None, [], SHIM),
        ("windows", [], BOOTMGR),
        ("shim", [], SHIM),
        ("another one", [], SHIM),
        ("windows", [SHIM, BOOTMGR], SHIM),
        ("shim", [BOOTMGR, SHIM], BOOTMGR),
        ("windows", ["/EFI/gone/shimx64.efi", SHIM], SHIM),
    ],
)
def test_with_two_systems_what_the_reference_started_comes_first(
    tmp_path: Path, fallback: str | None, choices: list[str], first: str
) -> None:
    """The firmware has an entry for the loader of Windows, as Windows makes it, before the other one."""
    firmware = Firmware(18, tmp_path / "efi")
    files = {FALLBACK: program(fallback)} if fallback else {}
    disk = esp_disk(tmp_path, {**DUAL, **files})
    firmware.add("0001", "Windows Boot Manager", guid(disk), BOOTMGR)
    firmware.add("0002", "debian", guid(disk), SHIM)
    firmware.order = ["0001", "0002", "0000"]
    done = boot(
        disk,
        run=firmware,
        firmware=firmware.folder,
        choices=[BootChoice(guid(disk), path) for path in choices],
    )
    assert done.entry == ("0001" if first == BOOTMGR else "0002")
    assert firmware.order[0] == done.entry and sorted(firmware.order) == ["0000", "0001", "0002"]
    assert content(disk, FALLBACK) == program(fallback or "shim")


def test_an_esp_as_fedora_makes_it_needs_no_more_than_an_entry(tmp_path: Path, firmware: Firmware) -> None:
    disk = esp_disk(tmp_path, FEDORA)
    before = disk.read_bytes()
    done = boot(disk, run=firmware, firmware=firmware.folder)
    assert (done.made_from, done.entry, done.warnings) == ("", "0001", [])
    assert firmware.entries["0001"] == ("fedora", guid(disk), "\\EFI\\fedora\\shimx64.efi")
    assert disk.read_bytes() == before


def test_a_firmware_that_forgets_is_found_out(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, DEBIAN)
    firmware = Firmware(17, tmp_path / "efi")
    firmware.forgets = True
    with pytest.raises(ImagingError, match="0 entries"):
        boot(disk, run=firmware, firmware=firmware.folder)
    firmware.add("0001", "debian", guid(disk), SHIM)
    firmware.inactive = {"0001"}
    with pytest.raises(ImagingError, match=r"1 entries, not active"):
        boot(disk, run=firmware, firmware=firmware.folder)


def test_what_can_not_be_seen_of_the_firmware_is_said_with_the_way_out(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, WINDOWS)
    folder = tmp_path / "efi"
    (folder / "efivars").mkdir(parents=True)
    unseen = boot(disk, firmware=folder)
    assert unseen.made_from and "mount -t efivarfs" in unseen.warnings[0]
    (folder / "efivars" / "BootOrder").touch()
    missing = boot(disk, run=runner("efibootmgr"), firmware=folder)
    assert (
        "efibootmgr is not installed" in missing.warnings[0]
        and "it starts /EFI/BOOT/BOOTX64.EFI" in missing.warnings[0]
    )
    with (
        pytest.raises(ImagingError, match=r"can't list the firmware's entries: exit status 2, EFI variables"),
    ):
        boot(disk, run=broken("efibootmgr"), firmware=folder)
    subprocess.run(["mount", "-t", "tmpfs", "none", folder / "efivars"], check=True)
    try:
        (folder / "efivars" / "BootOrder").touch()
        subprocess.run(["mount", "-o", "remount,ro", folder / "efivars"], check=True)
        assert "remount,rw" in boot(disk, firmware=folder).warnings[0]
    finally:
        subprocess.run(["umount", folder / "efivars"], check=True)


def broken(program: str) -> RunCommand:
    def run(command: Sequence[str]) -> CommandResult:
        if command[0] == program:
            return CommandResult(2, "", "EFI variables are not supported on this system.")
        return RUN(command)

    return run


def test_what_a_reference_starts_is_noted_in_its_order(tmp_path: Path, firmware: Firmware) -> None:
    disk = esp_disk(tmp_path, DUAL)
    table = read_partition_table(RUN, str(disk))
    assert table
    firmware.add("0001", "Windows Boot Manager", guid(disk), BOOTMGR)
    firmware.add("0002", "debian", guid(disk), SHIM)
    firmware.add("0003", "Another disk", OTHER, SHIM)
    firmware.add("0004", "not active", guid(disk), "/EFI/debian/grubx64.efi")
    firmware.order, firmware.inactive = ["0003", "0002", "0000", "0004", "0001"], {"0004"}
    ours = [BootChoice(guid(disk), SHIM), BootChoice(guid(disk), BOOTMGR)]
    assert boot_order(firmware, table, str(firmware.folder)) == ours
    assert boot_order(firmware, table, str(tmp_path / "none")) is None
    assert boot_order(broken("efibootmgr"), table, str(firmware.folder)) is None
    assert boot_order(runner("efibootmgr"), table, str(firmware.folder)) is None


# --- the playbooks ---


def give_firmware(laptop: Laptop, firmware: efibootmgr_stand_in.Firmware) -> Path:
    """Have a laptop be started by UEFI, in its own mount namespace; returns the file that holds its firmware's list."""
    saved, program = laptop.folder / "firmware.json", "/usr/local/sbin/efibootmgr"
    firmware.save(saved)
    for folder in ("/sys/firmware", "/usr/local/sbin"):
        laptop.run(["mount", "-t", "tmpfs", "none", folder])
    laptop.run(["mkdir", "-p", "/sys/firmware/efi/efivars"])
    laptop.run(["touch", f"/sys/firmware/efi/efivars/{BOOT_ORDER}"])
    text = f'#!/bin/sh\nexec {sys.executable} {efibootmgr_stand_in.__file__} {saved} "$@"\n'
    laptop.run(["sh", "-c", f"cat >{program} && chmod 755 {program}"], stdin=text)
    return saved


def test_copies_start_what_the_reference_starts(store: Path, tmp_path: Path) -> None:
    """The reference starts a Linux, by its firmware alone: the fallback loader on its disk is that of Windows."""
    disk = esp_disk(tmp_path, {**DUAL, FALLBACK: program("windows")})
    size = disk.stat().st_size
    own = ("-e", f"imaging_store={store}", "-e", "imaging_image=dual", "-e", "imaging_confirm_erase=true")
    with running_lab(Plan(1, size, size, isolated(), reference_image=disk)) as lab:
        reference, target = efibootmgr_stand_in.Firmware(17), efibootmgr_stand_in.Firmware(18)
        for firmware in (reference, target):
            firmware.add("0001", "Windows Boot Manager", guid(disk), BOOTMGR)
        reference.add("0002", "debian", guid(disk), SHIM)
        reference.order, target.order = ["0002", "0000", "0001"], ["0001", "0000"]
        give_firmware(lab.reference, reference)
        saved = give_firmware(lab.targets[0], target)
        captured = playbook(lab, "capture", *own)
        assert captured.status == 0, captured.stdout
        choices = [BootChoice(guid(disk), path).to_json() for path in (SHIM, BOOTMGR)]
        assert FolderStore(str(store)).open("dual").header.source["boot_order"] == choices
        for made in (True, False):
            restored = playbook(lab, "restore", *own)
            assert restored.status == 0, restored.stdout
            (told,) = restored.of("uefi_boot")
            assert (told.result["changed"], told.result["entry"], told.result["entry_made"]) == (made, "0002", made)
            after = efibootmgr_stand_in.Firmware.load(saved)
            assert after.order == ["0002", "0001", "0000"]
            assert list(after.entries["0002"]) == ["debian", guid(disk), SHIM.replace("/", "\\")]


STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >>%s
"""


def test_a_laptop_goes_down_only_after_its_disk_is_verified(tiny_plan: Plan, store: Path) -> None:
    """The program that ends a machine is a stand-in, in the laptops' own mount namespaces: nobody wants the real one here."""
    with running_lab(tiny_plan) as lab:
        said = lab.reference.lab / "went-down"
        stand_in = lab.reference.lab / "stand-in"
        stand_in.write_text(STAND_IN % said)
        stand_in.chmod(0o755)
        for laptop in lab.laptops:
            for name in ("reboot", "poweroff", "halt", "shutdown", "systemctl"):
                for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
                    path = os.path.realpath(f"{folder}/{name}")
                    if os.path.exists(path):
                        laptop.run(["mount", "--bind", stand_in, path])
                        laptop.run(["cmp", stand_in, f"{folder}/{name}"])
        if not os.path.exists("/sbin/reboot"):
            pytest.skip("there is no program here that ends a machine, over which a stand-in could be put")
        where = ("-e", f"imaging_store={store}", "-e", "imaging_confirm_erase=true")
        one = ("-l", "reference", "-e", f"imaging_store={store}", "-e", "imaging_image=one")
        assert playbook(lab, CAPTURE_ONE, *one).status == 0
        wrong = playbook(lab, "restore", *where, "-e", "imaging_finish=restart")
        assert "expected none, reboot or poweroff" in " ".join(wrong.failures().values())
        checked = playbook(lab, "restore", *where, "-e", "imaging_finish=poweroff", "--check")
        assert not checked.of("raw")
        outcome = playbook(lab, "restore", *where, "-e", "imaging_finish=poweroff")
        assert outcome.status == 0, outcome.stdout
        assert "Pull the USB sticks before they are switched on" in outcome.stdout
        assert not said.exists()
        wait_until(lambda: said.exists() and len(said.read_text().splitlines()) >= len(lab.targets), "all go down", 20)
        assert [line.split()[0] for line in said.read_text().splitlines()] == ["poweroff"] * len(lab.targets)
        for boot_result in outcome.of("uefi_boot"):
            assert (boot_result.result["changed"], boot_result.result["esp"]) == (False, 1)
