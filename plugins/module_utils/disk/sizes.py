# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large a file system or swap area says that it is, by its first bytes."""

from __future__ import annotations

import os
import struct
from typing import Callable

HEAD = 128 << 10
"""Bytes at the start of a partition that hold the superblock of each of the file systems below."""


def _ntfs_size(head: bytes) -> int:
    # Bytes per sector at 11, count of sectors at 40; the backup of the boot sector lies behind them (ntfs-3g: layout.h).
    return int(struct.unpack_from("<H", head, 11)[0] * (struct.unpack_from("<Q", head, 40)[0] + 1))


def _ext_size(head: bytes) -> int:
    # s_blocks_count at 4 and 0x150, s_log_block_size at 24 of the superblock at 1024 (kernel.org: ext4/super).
    low, exponent = struct.unpack_from("<I16xI", head, 1024 + 4)
    (high,) = struct.unpack_from("<I", head, 1024 + 0x150)
    (features,) = struct.unpack_from("<I", head, 1024 + 0x60)
    return int((low + ((high << 32) if features & 0x80 else 0)) * (1024 << min(exponent, 6)))


def _xfs_size(head: bytes) -> int:
    # sb_blocksize at 4, sb_dblocks at 8, big-endian (xfs_format.h).
    return int(struct.unpack_from(">I", head, 4)[0] * struct.unpack_from(">Q", head, 8)[0])


def _btrfs_size(head: bytes) -> int:
    # total_bytes at 0x70 of the superblock at 64 KiB (btrfs on-disk format).
    return int(struct.unpack_from("<Q", head, 0x10000 + 0x70)[0])


def _fat_size(head: bytes) -> int:
    # Bytes per sector at 11; count of sectors at 19 or, where that is 0, at 32 (Microsoft: FAT specification, section 3).
    sector, small, large = struct.unpack_from("<H6xH11xI", head, 11)
    return int(sector * (small or large))


def _exfat_size(head: bytes) -> int:
    # VolumeLength at 72, in sectors, whose size is two to the power of the byte at 108 (Microsoft: exFAT specification, section 3.1).
    return int(struct.unpack_from("<Q", head, 72)[0] << min(head[108], 12))


def _swap_size(head: bytes) -> int:
    # The mark ends the first page. Version at 1024 and number of the last page at 1028, in the byte order of whoever made it (Linux: linux/swap.h).
    for page in (4096, 8192, 16384, 32768, 65536):
        order = "<" if head[1024:1028] == b"\1\0\0\0" else ">"
        if head[page - 10 : page] == b"SWAPSPACE2":
            return int((struct.unpack_from(f"{order}I", head, 1028)[0] + 1) * page)
    return 0  # of the first version, whose header does not say it


SIZES: dict[str, Callable[[bytes], int]] = {
    "ext2": _ext_size,
    "ext3": _ext_size,
    "ext4": _ext_size,
    "vfat": _fat_size,
    "exfat": _exfat_size,
    "ntfs": _ntfs_size,
    "xfs": _xfs_size,
    "btrfs": _btrfs_size,
    "swap": _swap_size,
}
"""By blkid's names of file systems."""


def file_system_size(path: str, start: int, content: str) -> int | None:
    """Bytes of the file system that begins at ``start`` of a disk; None when nothing is known of its kind. Raises OSError."""
    if content not in SIZES:
        return None
    with open(path, "rb", buffering=0) as disk:
        return SIZES[content](os.pread(disk.fileno(), HEAD, start).ljust(HEAD, b"\0"))
