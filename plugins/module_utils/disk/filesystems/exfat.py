# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exFAT. Source: Microsoft, exFAT file system specification 1.00, section 3.1.13 (VolumeFlags)."""

from __future__ import annotations

import struct

from . import exfat_allocation
from .base import DIRTY, UNMAPPABLE, Distrust, FileSystem, FreeSpace, Probe, dirty_bits, own_checker
from .fat import MAKE_CLEAN


def _distrust(probe: Probe) -> Distrust | None:
    boot = probe.read(0, 512)
    (flags,) = struct.unpack_from("<H", boot, 106)
    if boot[3:11] != b"EXFAT   ":
        return Distrust(DIRTY, "its boot sector is damaged")
    if boot[110] != 1:
        return Distrust(UNMAPPABLE, "it has more than one allocation table")
    return dirty_bits(
        flags,
        {
            0x01: "its second allocation table is in use",
            0x02: "it was not unmounted cleanly",
            0x04: "it has recorded disk errors",
        },
    )


def _size(head: bytes) -> int:
    # VolumeLength at 72, in sectors, whose size is two to the power of the byte at 108 (Microsoft: exFAT specification, section 3.1).
    return int(struct.unpack_from("<Q", head, 72)[0] << min(head[108], 12))


EXFAT = FileSystem(
    names=("exfat",),
    size=_size,
    check=_distrust,
    free_space=FreeSpace("partclone.exfat", own_checker("a check of its directories", exfat_allocation)),
    ways_out={"dirty": MAKE_CLEAN},
)
