# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owners of a partition's bytes other than its file system.

A file system does not know what lies below or beside it: a virtual machine's disk that has replaced it, a hash tree that covers every block, a
snapshot that still needs freed blocks. Then its information about free space is not used. docs/disk-states.md lists all owners.
"""

from __future__ import annotations

import struct

from .blkid import Content
from .gpt import MIN_SECTOR_SIZE, Read, names_partitions

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
"""Types of partitions that do not hold a file system of their own, even when they seem to. Sources: Microsoft, PARTITION_INFORMATION_GPT; ChromiumOS,
"Disk Format" (kernel, root file system, reserved)."""

SWAP_TYPES = (
    "82",
    "83",
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
)
"""Types of partitions that may contain a swap area: its own, and those for any data of Linux and Windows (Discoverable Partitions Specification;
libfdisk, pt-mbr-partnames.h). No check proves that a swap area is still one, and only its header is captured."""

COVERING = {
    "DM_verity_hash": "a hash tree of dm-verity",
    "DM_integrity": "check sums of dm-integrity",
    "DM_snapshot_cow": "a snapshot of the device mapper",
}
"""Contents that cover the blocks of another partition, used or not, by blkid's names."""

COVERING_SUPERBLOCKS = {
    (32, struct.pack("<Q", 0o6142003)): "a cache of the device mapper",
    (32, struct.pack("<Q", 0x8AF27F64)): "a clone of the device mapper",
    (32, struct.pack("<Q", 27022010)): "thin volumes of the device mapper",
    (0, struct.pack("<II", 0x23489321, 1)): "a write cache of the device mapper",
    (0, struct.pack("<II", 0x23489321, 2)): "a write cache of the device mapper",
}
"""More of them, which blkid does not know: the offset of the magic in the superblock, and the magic (Linux, drivers/md: dm-cache-metadata.c,
dm-clone-metadata.c, dm-thin-metadata.c, dm-writecache.c)."""

SUPERBLOCK = 64
"""Bytes that contain all of these."""

VBMETA = b"AVB0"
FOOTER = b"AVBf"
FOOTER_SIZE = 64
"""Android Verified Boot 2.0: what a vbmeta and the footer, a partition's last bytes, begin with (libavb: avb_vbmeta_image.h, avb_footer.h)."""

VERITY = b"verity\0\0"
"""The first bytes of the superblock of a hash tree (cryptsetup: "DMVerity", on-disk format)."""

SHADOW_COPIES = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")
"""What the header of Windows' shadow copies begins with, and each block of their catalog (libvshadow: "Volume Shadow Snapshot (VSS) format")."""

SHADOW_HEADER = 0x1E00
"""Offset of that header in a volume."""

CATALOG_AT, NEXT_AT = 48, 40
"""Where in the header lies the place of the first block of the catalog, and in a block that of the next one; 0 is none."""

CATALOG_BLOCK, CATALOG_ENTRY = 0x4000, 128
"""Bytes. The head of a block is as long as an entry."""

CATALOG_BLOCKS = 64
"""More blocks than a catalog has: a volume has at most 512 shadow copies, with two entries each."""

SHADOW_COPY = (2, 3)
"""Types of the entries of a shadow copy."""

SEARCHED = 1 << 20
"""Bytes behind a file system in which a hash tree may begin: it follows the last block, aligned to its own block size."""


def inner_table(content: Content, read: Read) -> str:
    """Return why a partition counts as a separate disk, such as that of a virtual machine; empty otherwise. An empty table does not count: some file
    systems contain one."""
    kind = content.partition_table
    if not kind or (kind == "dos" and not names_partitions(read(0, MIN_SECTOR_SIZE))):
        return ""
    return f"it holds a partition table ({kind}) of its own, beside what looks like {content.type or 'nothing known'}"


def other_than_swap(kind: str) -> str:
    """Return why a partition of this type is not a swap area despite its signature; empty otherwise."""
    if kind.upper() in SWAP_TYPES:
        return ""
    return f"it has the mark of a swap area, and its type, {kind}, is that of something else"


def covering(content: Content, read: Read) -> str:
    """Return a description of what in this partition covers the blocks of another one; empty when there is nothing."""
    if content.type:
        return COVERING.get(content.type, "")
    superblock = read(0, SUPERBLOCK)
    if superblock.startswith(VBMETA):
        return "hashes of Android Verified Boot"
    return next((what for (at, magic), what in COVERING_SUPERBLOCKS.items() if superblock.startswith(magic, at)), "")


def covered(read: Read, size: int, file_system_size: int | None) -> str:
    """Return why every block of a file system in a partition of ``size`` bytes matters; empty otherwise."""
    if read(size - FOOTER_SIZE, len(FOOTER)) == FOOTER:
        return "hashes of Android Verified Boot cover all of it"
    if file_system_size is not None and 0 < file_system_size < size:
        behind = read(file_system_size, min(SEARCHED, size - file_system_size))
        if any(behind.startswith(VERITY, place) for place in range(0, len(behind), MIN_SECTOR_SIZE)):
            return "a hash tree of dm-verity behind it covers all of it"
    if _has_shadow_copies(read, size):
        return "it has shadow copies, which need blocks that were freed since (to remove them: vssadmin delete shadows /all)"
    return ""


def _has_shadow_copies(read: Read, size: int) -> bool:
    """Return whether a volume of ``size`` bytes has shadow copies, or an unreadable catalog of them."""
    header = read(SHADOW_HEADER, CATALOG_ENTRY)
    if not header.startswith(SHADOW_COPIES):
        return False
    (place,) = struct.unpack_from("<Q", header, CATALOG_AT)
    for _block in range(CATALOG_BLOCKS):
        if not place:
            return False
        block = read(place, CATALOG_BLOCK) if place + CATALOG_BLOCK <= size else b""
        if not block.startswith(SHADOW_COPIES):
            return True
        entries = range(CATALOG_ENTRY, len(block) - 8, CATALOG_ENTRY)
        if any(struct.unpack_from("<Q", block, at)[0] in SHADOW_COPY for at in entries):
            return True
        (place,) = struct.unpack_from("<Q", block, NEXT_AT)
    return True
