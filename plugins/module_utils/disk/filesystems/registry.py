# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The known kinds of file systems, by blkid's names."""

from __future__ import annotations

import os
import struct

from ..command import RunCommand
from .base import DIRTY, HEAD, UNMAPPABLE, Distrust, FileSystem, Probe
from .btrfs import BTRFS
from .exfat import EXFAT
from .ext import EXT
from .fat import FAT
from .ntfs import NTFS
from .swap import SWAP
from .xfs import XFS

FILE_SYSTEMS = (NTFS, EXT, FAT, EXFAT, XFS, BTRFS, SWAP)

BY_NAME = {name: kind for kind in FILE_SYSTEMS for name in kind.names}

UNKNOWN = FileSystem(())
"""Stands for all other kinds."""


def file_system(name: str) -> FileSystem:
    """Return the kind with this name of blkid."""
    return BY_NAME.get(name, UNKNOWN)


def file_system_size(path: str, start: int, name: str) -> int | None:
    """Return the bytes of the file system or swap area at ``start`` of a disk; None when its kind is unknown. Raises OSError."""
    size = file_system(name).size
    if size is None:
        return None
    with open(path, "rb", buffering=0) as disk:
        return size(os.pread(disk.fileno(), HEAD, start).ljust(HEAD, b"\0"))


def distrust(run: RunCommand, name: str, node: str) -> Distrust | None:
    """Return why a file system's information about free space is not trusted; None when it is trusted.

    ``node`` is a block device of the file system alone. Raises OSError, and MissingTool when the check needs a program that is not installed.
    """
    check = file_system(name).check
    if check is None:
        return Distrust(UNMAPPABLE, f"a map of {name} is not trusted")
    with open(node, "rb", buffering=0) as device:
        try:
            return check(Probe(run, lambda offset, length: os.pread(device.fileno(), length, offset), node))
        except (struct.error, IndexError, OverflowError):  # OverflowError: an offset beyond what any file has
            return Distrust(DIRTY, f"its {name} is damaged: a structure that must be there is not")
