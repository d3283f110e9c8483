# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""XFS. Source: xfsprogs, libxfs/xfs_format.h, struct xfs_dsb."""

from __future__ import annotations

import struct

from ..mounted_tree import mounted_tree
from ..systems import LINUX
from .base import DIRTY, UNMAPPABLE, Checker, Distrust, Files, FileSystem, FreeSpace, Grower, Probe, while_mounted


def _distrust(probe: Probe) -> Distrust | None:
    """Check the superblock and, with xfs_logprint, the log."""
    superblock = probe.read(0, 512)
    magic, realtime_blocks, log_start = struct.unpack_from(">I12xQ24xQ", superblock)
    in_progress = superblock[126]
    (incompatible,) = struct.unpack_from(">I", superblock, 216)
    if magic != 0x58465342:
        return Distrust(DIRTY, "its superblock is damaged")
    if in_progress:
        return Distrust(DIRTY, "its creation was interrupted")
    if incompatible & 0x10:
        return Distrust(DIRTY, "it needs repair (xfs_repair)")
    if not log_start:
        return Distrust(DIRTY, "its log is on another device")
    if realtime_blocks:
        return Distrust(UNMAPPABLE, "it has a realtime section")
    result = probe.run(["xfs_logprint", "-t", probe.node])
    if result.rc == 0 and "state: <CLEAN>" in result.out:
        return None
    if "state: <DIRTY>" in result.out:
        return Distrust(DIRTY, "its log was not replayed")
    return Distrust(DIRTY, f"xfs_logprint does not call it clean: {result.complaint()}")


def _size(head: bytes) -> int:
    # sb_blocksize at 4, sb_dblocks at 8, big-endian (xfs_format.h).
    return int(struct.unpack_from(">I", head, 4)[0] * struct.unpack_from(">Q", head, 8)[0])


READ_ONLY = {"ro": "", "norecovery": "", "nouuid": ""}
"""Options of a mount that writes nothing; xfs(5)."""

XFS = FileSystem(
    names=("xfs",),
    size=_size,
    check=_distrust,
    # xfs_repair(8): 1 when it found something. It uses a little more than half of the memory that it is given.
    free_space=FreeSpace("partclone.xfs", Checker("xfs_repair", ["xfs_repair", "-n"], [1], "-m")),
    grower=Grower(("xfs_growfs", "unshare"), ((while_mounted('xfs_growfs "$d"'), (0,)),)),
    files=Files(LINUX, lambda _run, node: mounted_tree("xfs", node, READ_ONLY), only_clean=True),
    ways_out={
        "dirty": "start it once more and shut it down, or mount and unmount it, or have it repaired (xfs_repair)"
    },
)
