# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds out which kind of firmware can start a disk, from its partition table and its first sector.

Windows starts from a GPT only by UEFI; its boot code in an MBR starts the active partition. Sources: Microsoft, "UEFI/GPT-based hard drive
partitions" and "BIOS/MBR-based hard drive partitions"; GRUB manual, "BIOS installation".
"""

from __future__ import annotations

import os
from typing import Callable, Sequence

from .partition_table import Partition, PartitionTable, is_esp
from .systems import UNKNOWN, WINDOWS, System

BOOT_CODE = 440
"""Bytes of boot code at the start of an MBR."""

OWN_WAY = (b"GRUB", b"LILO")
"""Texts in boot code that can start a system without an active partition."""

BOOT_TYPES = ("21686148-6449-6E6F-744E-656564454649", "9E1A2D38-C612-4316-AA26-8B49521E5A8B", "41")
"""Types of partitions that hold boot code for a BIOS or for Open Firmware (PReP)."""


def boot_mode(
    path: str, table: PartitionTable | None, systems: Sequence[System], has_loader: Callable[[Partition], bool]
) -> tuple[str, str]:
    """Return UEFI, BIOS or unknown, and a sentence that says why the systems will not start, empty when that is not certain. Raises OSError.

    ``has_loader`` returns whether an EFI system partition has a program for the firmware to start, or whether that is unknown.
    """
    if table is None or not table.partitions:
        return UNKNOWN, ""
    with open(path, "rb", buffering=0) as disk:
        code = os.pread(disk.fileno(), BOOT_CODE, 0)
    mode = "BIOS" if any(code) or any(each.type.upper() in BOOT_TYPES for each in table.partitions) else UNKNOWN
    names = " and ".join(f"{each.name or each.kind} in partition {each.partition}" for each in systems)
    esps = [partition for partition in table.partitions if is_esp(partition.type)]
    if esps and systems and not any(code) and not any(map(has_loader, esps)):
        return "UEFI", (
            "The EFI system partition (ESP) has no loader that UEFI firmware would start, and there is no boot code for a BIOS: copies will not "
            f"start {names}. Install the boot loader there (in Windows with bcdboot) before the capture."
        )
    if esps:
        return "UEFI", ""
    windows = any(system.kind == WINDOWS for system in systems)
    active = any(entry.get("bootable") for entry in table.raw.get("partitions", ()))
    if table.label == "gpt" and windows:
        return mode, (
            "This GPT disk has no EFI system partition (ESP), and Windows needs one to start from a GPT: "
            f"copies will not start {names}. If there is a partition for it, give it the type of an EFI system partition."
        )
    if table.label == "dos" and systems and not active and not any(name in code for name in OWN_WAY):
        return mode, (
            "No partition of this MBR disk is marked as active (bootable), nor is there an EFI system partition: "
            f"copies will not start {names}. Mark the one that holds the boot loader (sfdisk --activate DISK NUMBER)."
        )
    if systems and mode == UNKNOWN:
        return (
            mode,
            f"This disk has neither an EFI system partition (ESP) nor boot code for a BIOS: copies will not start {names}.",
        )
    return mode, ""
