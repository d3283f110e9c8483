# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swap areas, which are not file systems: only the header is captured. Source: Linux, linux/swap.h."""

from __future__ import annotations

import struct

from .base import FileSystem


def _size(head: bytes) -> int:
    # The signature ends the first page. Version at 1024, number of the last page at 1028, in the byte order of the machine that made it.
    for page in (4096, 8192, 16384, 32768, 65536):
        order = "<" if head[1024:1028] == b"\1\0\0\0" else ">"
        if head[page - 10 : page] == b"SWAPSPACE2":
            return int((struct.unpack_from(f"{order}I", head, 1028)[0] + 1) * page)
    return 0  # the header of the first version has no size


SWAP = FileSystem(names=("swap",), size=_size)
