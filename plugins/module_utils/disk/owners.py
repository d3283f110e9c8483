# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owners of a partition's bytes other than its file system.

A file system knows which bytes it does not use itself. It does not know what lies below or beside it: the disk of a virtual machine that has
replaced it, a hash tree that covers every block, a snapshot that still needs freed blocks. Then nothing may be left out by its account of free
space.

| owner | how it is known | decision |
|---|---|---|
| a partition table inside the partition, with entries | blkid's PTTYPE, and the entries | whole |
| dm-verity, its hash tree in a partition of its own | blkid's type | every file system of the disk whole |
| dm-verity, its hash tree behind the file system | its superblock | whole |
| Android Verified Boot | its footer in the partition, its vbmeta in another one | whole; every file system of the disk whole |
| ChromeOS | the partition's type: its hash trees have no superblock | whole |
| dm-integrity with its tags elsewhere, dm-snapshot | blkid's type | every file system of the disk whole |
| RAID (md, firmware), LVM, bcache, dm-integrity, VDO, DRBD, Stratis, LUKS, BitLocker | blkid's type is theirs | whole, as all that is not mapped |
| LDM (dynamic disks), Storage Spaces | the partition's type | whole |
"""

from __future__ import annotations

from .filesystems import Content
from .gpt import MBR_ENTRIES, MBR_ENTRY, SMALLEST_SECTOR, Read

CHROMEOS = "it belongs to ChromeOS, which keeps hashes of every block"

NEVER_MAPPED = {
    "42": "it belongs to a Windows dynamic disk",
    "5808C8AA-7E8F-42E0-85D2-E904BE0B7DCF": "it belongs to a Windows dynamic disk",
    "AF9B60A0-1431-4F62-BC68-3311714A69AD": "it belongs to a Windows dynamic disk",
    "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D": "it belongs to Windows Storage Spaces",
    "FE3A2A5D-4F32-41A7-B725-ACCC3285A309": CHROMEOS,
    "3CB8E202-3B7E-47DD-8A3C-7FF2A13CFCEC": CHROMEOS,
    "2E0A753D-9E48-43B0-8337-B15192CB1B5E": CHROMEOS,
}
"""Types of partitions that do not hold a file system of their own, even when they seem to. Sources: Microsoft, PARTITION_INFORMATION_GPT;
ChromiumOS, "Disk Format" (kernel, root file system, reserved)."""

COVERING = {
    "DM_verity_hash": "a hash tree of dm-verity",
    "DM_integrity": "check sums of dm-integrity",
    "DM_snapshot_cow": "a snapshot of the device mapper",
}
"""What covers the blocks of another partition, used or not, by blkid's names."""

VBMETA = b"AVB0"
FOOTER = b"AVBf"
FOOTER_SIZE = 64
"""Android Verified Boot 2.0: what a vbmeta and the footer, a partition's last bytes, begin with (libavb: avb_vbmeta_image.h, avb_footer.h)."""

VERITY = b"verity\0\0"
"""What the superblock of a hash tree begins with (cryptsetup: "DMVerity", on-disk format)."""

SEARCHED = 1 << 20
"""Bytes behind a file system in which a hash tree may begin: it follows the last block, aligned to its own block size."""


def inner_table(content: Content, read: Read) -> str:
    """Why a partition counts as a disk of its own, such as a virtual machine's, or nothing. An empty table does not count: some file systems
    contain one.
    """
    if not content.partition_table:
        return ""
    if content.partition_table == "dos":
        boot_sector = read(0, SMALLEST_SECTOR).ljust(SMALLEST_SECTOR, b"\0")
        entries = (MBR_ENTRY.unpack_from(boot_sector, offset) for offset in MBR_ENTRIES)
        if not any(kind and count for kind, _start, count in entries):
            return ""
    return f"it holds a partition table ({content.partition_table}) of its own, beside what looks like {content.type or 'nothing known'}"


def covering(content: Content, read: Read) -> str:
    """In words, what this partition holds that covers the blocks of another one, or nothing."""
    if not content.type and read(0, len(VBMETA)) == VBMETA:
        return "hashes of Android Verified Boot"
    return COVERING.get(content.type, "")


def covered(read: Read, size: int, file_system_size: int | None) -> str:
    """Why every block of a file system matters, by what lies behind it in its own partition of ``size`` bytes, or nothing."""
    if read(size - FOOTER_SIZE, len(FOOTER)) == FOOTER:
        return "hashes of Android Verified Boot cover all of it"
    if file_system_size is not None and 0 < file_system_size < size:
        behind = read(file_system_size, min(SEARCHED, size - file_system_size))
        if any(behind.startswith(VERITY, place) for place in range(0, len(behind), SMALLEST_SECTOR)):
            return "a hash tree of dm-verity behind it covers all of it"
    return ""
