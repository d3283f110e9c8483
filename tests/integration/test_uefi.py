# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that UEFI firmware can start: a real EFI system partition.

The firmware is a stand-in: the machines that run tests have no variables that may be written. It answers as efibootmgr does.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.disk.uefi import Boot, make_bootable
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    START,
    attached,
    needs,
    runner,
    single,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Plan

pytestmark = pytest.mark.skipif(not isolated(), reason="a partition's file system needs a loop device, and so root")

WINDOWS = {"EFI/Microsoft/Boot/bootmgfw.efi": b"MZ windows" * 1000, "EFI/Microsoft/Boot/BCD": b"regf"}
DEBIAN = {
    "EFI/debian/shimx64.efi": b"MZ shim",
    "EFI/debian/grubx64.efi": b"MZ grub" * 3000,
    "EFI/debian/mmx64.efi": b"MZ mm",
    "EFI/debian/grub.cfg": b"configuration",
}


def esp_disk(tmp_path: Path, files: dict[str, bytes], kind: str = "uefi") -> Path:
    needs("mcopy", "mmd", "mdir", "mtype")
    disk = single(tmp_path, 40 * MIB, ["mkfs.fat", "-F", "32"], kind=kind)
    where = f"{disk}@@{START}"
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
    return disk


def content(disk: Path, path: str) -> bytes:
    return subprocess.run(["mtype", "-i", f"{disk}@@{START}", f"::{path}"], check=True, capture_output=True).stdout


def boot(disk: Path, write: bool = True, run: object = RUN, firmware: Path | None = None) -> Boot:
    return make_bootable(run, str(disk), write, "x86_64", str(firmware or "/nowhere"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (WINDOWS, "/EFI/Microsoft/Boot/bootmgfw.efi"),
        ({**DEBIAN, **WINDOWS}, "/EFI/Microsoft/Boot/bootmgfw.efi"),
        (DEBIAN, "/EFI/debian/shimx64.efi"),
        ({"EFI/arch/grubx64.efi": b"MZ grub"}, "/EFI/arch/grubx64.efi"),
        ({"EFI/systemd/systemd-bootx64.efi": b"MZ sd"}, "/EFI/systemd/systemd-bootx64.efi"),
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
    if files is DEBIAN:  # shim starts what lies beside it
        assert content(disk, "EFI/BOOT/grubx64.efi") == files["EFI/debian/grubx64.efi"]
        assert content(disk, "EFI/BOOT/mmx64.efi") == files["EFI/debian/mmx64.efi"]
    after = disk.read_bytes()
    assert not boot(disk).changed
    assert disk.read_bytes() == after
    (tmp_path / "esp").write_bytes(after[START : START + 40 * MIB])
    subprocess.run(["fsck.fat", "-n", tmp_path / "esp"], check=True, capture_output=True)


def test_a_fallback_that_is_there_is_left_alone_whatever_the_case_of_its_name(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, {**WINDOWS, "EFI/Boot/bootx64.efi": b"MZ own"})
    before = disk.read_bytes()
    found = boot(disk)
    assert (found.changed, found.fallback.lower()) == (False, "/efi/boot/bootx64.efi")
    assert disk.read_bytes() == before


def test_a_partition_without_any_loader_is_a_warning(tmp_path: Path) -> None:
    found = boot(esp_disk(tmp_path, {"EFI/readme.txt": b"nothing"}))
    assert not found.changed
    assert "does not boot by UEFI" in found.warnings[0]


def test_a_full_partition_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, {"EFI/Microsoft/Boot/bootmgfw.efi": b"x" * 22 * MIB})
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


def test_without_mtools_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="mtools"):
        boot(esp_disk(tmp_path, WINDOWS), run=runner("mdir"))


class Firmware:
    """Its list of entries, through what efibootmgr prints: as version 17 does, or as 18."""

    def __init__(self, version: int, folder: Path) -> None:
        self.version = version
        self.folder = folder
        folder.mkdir()
        self.entries: dict[str, tuple[str, str, str]] = {"0000": ("Network", "", "")}
        self.forgets = False

    def __call__(self, command: Sequence[str]) -> CommandResult:
        if command[0] != "efibootmgr":
            return RUN(command)
        options = list(command[1:])
        if options == ["-v"]:
            return CommandResult(0, self.listing(), "")
        if "-B" in options:
            del self.entries[options[options.index("-b") + 1]]
        elif "-c" in options and not self.forgets:
            value = {name: options[options.index(name) + 1] for name in ("-d", "-p", "-L", "-l")}
            table = read_partition_table(RUN, value["-d"])
            assert table
            (esp,) = (each for each in table.partitions if each.number == int(value["-p"]))
            self.entries[f"{len(self.entries):04X}"] = (value["-L"], esp.uuid, value["-l"])
        return CommandResult(0, "", "")

    def listing(self) -> str:
        rows = ["BootCurrent: 0000", "Timeout: 0 seconds", "BootOrder: 0000"]
        for number, (label, guid, path) in self.entries.items():
            place = "PciRoot(0x0)/Pci(0x1c,0x0)/MAC(001122334455,0)"
            if guid:
                file = f"File({path})WINDOWS........." if self.version < 18 else f"{path}57494e444f575300"
                place = f"HD(1,GPT,{guid.lower()},0x800,0x14000)/{file}"
            rows.append(f"Boot{number}* {label}\t{place}")
        return "\n".join([*rows, ""])


@pytest.mark.parametrize("version", [17, 18])
def test_the_firmware_gets_one_entry_and_keeps_it(tmp_path: Path, version: int) -> None:
    disk = esp_disk(tmp_path, WINDOWS)
    firmware = Firmware(version, tmp_path / "efi")
    planned = boot(disk, write=False, run=firmware, firmware=firmware.folder)
    assert planned.entry_made and len(firmware.entries) == 1
    made = boot(disk, run=firmware, firmware=firmware.folder)
    assert (made.entry_made, made.entry) == (True, "0001")
    assert firmware.entries["0001"][0] == "Windows Boot Manager"
    assert firmware.entries["0001"][2] == "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"
    again = boot(disk, run=firmware, firmware=firmware.folder)
    assert (again.changed, again.entry) == (False, "0001")
    firmware.entries["0007"] = firmware.entries["0001"]
    firmware.entries["0008"] = ("Another disk", "11111111-2222-3333-4444-555555555555", firmware.entries["0001"][2])
    cleared = boot(disk, run=firmware, firmware=firmware.folder)
    assert (cleared.removed, cleared.changed) == (["0007"], True)
    assert sorted(firmware.entries) == ["0000", "0001", "0008"]


def test_a_firmware_that_forgets_is_found_out(tmp_path: Path) -> None:
    disk = esp_disk(tmp_path, DEBIAN)
    firmware = Firmware(17, tmp_path / "efi")
    firmware.forgets = True
    with pytest.raises(ImagingError, match="0 entries"):
        boot(disk, run=firmware, firmware=firmware.folder)


# --- the playbook ---

STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >>%s
"""


def test_a_laptop_goes_down_only_after_its_disk_is_verified(plan: Plan, store: Path) -> None:
    """The program that ends a machine is a stand-in, in the laptops' own mount namespaces: nobody wants the real one here."""
    with running_lab(plan) as lab:
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
        assert playbook(lab, "capture", "-e", f"imaging_store={store}").status == 0
        wrong = playbook(lab, "restore", *where, "-e", "imaging_finish=restart")
        assert "expected none, reboot or poweroff" in " ".join(wrong.failures().values())
        time.sleep(7)
        assert not said.exists()
        checked = playbook(lab, "restore", *where, "-e", "imaging_finish=poweroff", "--check")
        assert not checked.of("shell")
        outcome = playbook(lab, "restore", *where, "-e", "imaging_finish=poweroff")
        assert outcome.status == 0, outcome.stdout
        assert "Pull the USB sticks before they are switched on" in outcome.stdout
        assert not said.exists()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (
            not said.exists() or len(said.read_text().splitlines()) < len(lab.targets)
        ):
            time.sleep(0.2)
        assert [line.split()[0] for line in said.read_text().splitlines()] == ["poweroff"] * len(lab.targets)
        for boot_result in outcome.of("uefi_boot"):
            assert (boot_result.result["changed"], boot_result.result["esp"]) == (False, 1)
