# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""btrfs. Source: btrfs on-disk format."""

from __future__ import annotations

import struct

from ..mounted_tree import mounted_tree
from ..systems import LINUX
from .base import DIRTY, Distrust, Files, FileSystem, Grower, Probe, while_mounted


def _distrust(probe: Probe) -> Distrust | None:
    """Check the log in the superblock at 64 KiB: magic at 0x40, log_root at 0x60."""
    superblock = probe.read(0x10000, 0x80)
    if superblock[0x40:0x48] != b"_BHRfS_M":
        return Distrust(DIRTY, "its superblock is damaged")
    return Distrust(DIRTY, "its log was not replayed") if any(superblock[0x60:0x68]) else None


def _size(head: bytes) -> int:
    # total_bytes at 0x70 of the superblock at 64 KiB.
    return int(struct.unpack_from("<Q", head, 0x10000 + 0x70)[0])


READ_ONLY = {"ro": "", "rescue": "nologreplay"}
"""Options of a mount that writes nothing; btrfs(5)."""

TOP = {"subvolid": "5"}
"""The option for the subvolume that contains all others. Without it, the default subvolume is mounted."""

# Without free_space: partclone's map of btrfs missed blocks in several versions.
BTRFS = FileSystem(
    names=("btrfs",),
    size=_size,
    check=_distrust,
    grower=Grower(("btrfs", "unshare"), ((while_mounted('btrfs filesystem resize max "$d"'), (0,)),)),
    files=Files(LINUX, lambda _run, node: mounted_tree("btrfs", node, READ_ONLY, TOP), only_clean=True),
    ways_out={"dirty": "start it once more and shut it down, or mount and unmount it"},
)
