# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees to it that UEFI firmware finds something to start on a disk: the fallback loader, and an entry in the firmware's own list.

Sources: UEFI specification 2.10, section 3.5.1.1 (names of the fallback loader); efibootmgr(8).
"""

from __future__ import annotations

import os
import platform
import re
import tempfile
from dataclasses import dataclass, field

from ..errors import ImagingError
from .command import RunCommand
from .devices import describe
from .file_tree import FatTree
from .filesystems import detect
from .partition_node import partition_node
from .partition_table import Partition, is_esp, read_partition_table

FIRMWARE = "/sys/firmware/efi"
"""There when this system was started by UEFI."""

SUFFIXES = {"x86_64": "x64", "aarch64": "aa64", "i686": "ia32", "riscv64": "riscv64"}
"""What loaders have in their names for a machine, by the names of uname."""

FALLBACK_FOLDER = "/EFI/BOOT"
WINDOWS = "/EFI/Microsoft/Boot/bootmgfw.efi"

ENTRY = re.compile(
    r"^Boot([0-9A-F]{4})\*? (.*?)\tHD\(\d+,GPT,([0-9a-f-]{36}),[^)]*\)/(?:File\()?(\\[^)\n]*?\.efi)", re.M | re.I
)
"""A line of ``efibootmgr -v``, as versions up to 17 and from 18 on have it: number, label, GUID of the partition, path on it."""


@dataclass
class Boot:
    """What was found and done. ``fallback`` is the loader that firmware starts when it knows no better, ``entry`` the number of its own entry."""

    esp: int | None = None
    fallback: str = ""
    made_from: str = ""
    entry: str = ""
    entry_made: bool = False
    removed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was, or would be, changed."""
        return bool(self.made_from or self.entry_made or self.removed)


def make_bootable(run: RunCommand, device: str, write: bool, machine: str = "", firmware: str = FIRMWARE) -> Boot:
    """Look at a disk's EFI system partition and have it start; raises ImagingError when what was done is not there afterwards.

    A disk without such a partition is left alone. What is missing on this machine to look at it is a warning.
    """
    boot = Boot()
    disk = describe(run, device)
    suffix = SUFFIXES.get(machine or platform.machine(), "")
    esp = _find_esp(run, disk.path)
    if esp is None:
        return boot
    boot.esp = esp.number
    free = not disk.target_refusals
    with partition_node(run, disk.path, esp, writable=write and free) as node:
        tree = FatTree(run, node)
        loader = _loader(tree, suffix)
        _fallback(tree, suffix, loader, write and free, boot)
        if write and boot.made_from:
            if not free:
                raise ImagingError(
                    f"{disk.path} needs the fallback loader {boot.fallback}, and can't be changed: {' '.join(disk.target_refusals)}"
                )
            _flush(node)
    if os.path.isdir(firmware):
        _entry(run, disk.path, esp, _paths(loader, boot), write, boot)
    return boot


def _find_esp(run: RunCommand, path: str) -> Partition | None:
    """The first EFI system partition of a disk with a FAT in it."""
    table = read_partition_table(run, path)
    for partition in table.partitions if table else ():
        if is_esp(partition.type) and detect(run, path, partition.start, partition.size).type == "vfat":
            return partition
    return None


def _flush(node: str) -> None:
    """Bring what was written to the medium: the next thing may be that somebody switches the machine off."""
    with open(node, "rb+", buffering=0) as device:
        os.fsync(device.fileno())


def _paths(loader: str, boot: Boot) -> list[str]:
    """What an entry may start, the best first, as firmware writes it."""
    return [path.replace("/", "\\") for path in (loader, boot.fallback) if path]


def _loader(tree: FatTree, suffix: str) -> str:
    """The loader of an installed system: that of Windows, shim, or another one; nothing when there is none."""
    windows = tree.find(WINDOWS)
    if windows:
        return windows
    folders = [name for name in tree.names("/EFI") if name.lower() not in ("boot", "microsoft")]
    for name in (f"shim{suffix}.efi", f"grub{suffix}.efi", f"systemd-boot{suffix}.efi"):
        for folder in folders:
            found = tree.find(f"/EFI/{folder}/{name}")
            if found:
                return found
    return ""


def _fallback(tree: FatTree, suffix: str, loader: str, write: bool, boot: Boot) -> None:
    name = f"boot{suffix}.efi".upper()
    there = tree.find(f"{FALLBACK_FOLDER}/{name}") if suffix else None
    if there or not suffix:
        boot.fallback = there or ""
        return
    if not loader:
        boot.warnings.append(
            f"Partition {boot.esp} has no loader that UEFI firmware would start: the disk does not boot by UEFI. "
            "Install the boot loader on the reference and capture again."
        )
        return
    boot.fallback, boot.made_from = f"{FALLBACK_FOLDER}/{name}", loader
    if not write:
        return
    folder, _slash, file = loader.rpartition("/")
    copies = {}
    if file.lower().startswith("shim"):  # it starts what lies beside it
        copies = {f"{folder}/{each}": each for each in tree.names(folder) if each.lower().endswith(".efi")}
    copies[loader] = name
    with tempfile.TemporaryDirectory(prefix="fleet.imaging-") as scratch:
        for source, target in copies.items():
            local = os.path.join(scratch, "loader")
            tree.save(source, local)
            tree.put(local, f"{FALLBACK_FOLDER}/{target}")


def _entry(run: RunCommand, disk: str, esp: Partition, paths: list[str], write: bool, boot: Boot) -> None:
    def ours() -> list[str]:
        result = run(["efibootmgr", "-v"])
        if result.rc:
            raise ImagingError(f"efibootmgr can't list the firmware's entries: {result.complaint()}.")
        wanted = [path.lower() for path in paths]
        return [
            number
            for number, _label, guid, path in ENTRY.findall(result.out)
            if guid.lower() == esp.uuid.lower() and path.lower() in wanted
        ]

    if not paths or not esp.uuid:
        return
    found = ours()
    if found:
        boot.entry, boot.removed = found[0], found[1:]
        for number in boot.removed if write else ():
            run(["efibootmgr", "-q", "-b", number, "-B"])
    else:
        boot.entry_made = True
        if write:
            label = "Windows Boot Manager" if "microsoft" in paths[0].lower() else paths[0].split("\\")[2]
            create = ["efibootmgr", "-q", "-c", "-d", disk, "-p", str(esp.number), "-L", label, "-l", paths[0]]
            result = run(create)
            if result.rc:
                raise ImagingError(f"efibootmgr can't make an entry for {disk}: {result.complaint()}.")
    if write and boot.changed:
        left = ours()
        if len(left) != 1:
            raise ImagingError(
                f"After efibootmgr the firmware lists {len(left)} entries for partition {esp.number} of {disk} where 1 was expected: some "
                "firmware does not keep them. The fallback loader starts the disk all the same, when it is chosen in the firmware's menu."
            )
        boot.entry = left[0]
