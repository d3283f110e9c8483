# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of file systems that are known, by blkid's names."""

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
"""What all others are, of which nothing is known."""


def file_system(name: str) -> FileSystem:
    """The kind that blkid calls so."""
    return BY_NAME.get(name, UNKNOWN)


def file_system_size(path: str, start: int, name: str) -> int | None:
    """Bytes of the file system or swap area that begins at ``start`` of a disk; None when nothing is known of its kind. Raises OSError."""
    size = file_system(name).size
    if size is None:
        return None
    with open(path, "rb", buffering=0) as disk:
        return size(os.pread(disk.fileno(), HEAD, start).ljust(HEAD, b"\0"))


def distrust(run: RunCommand, name: str, node: str) -> Distrust | None:
    """Why the account that a file system gives of its free space can't be believed, or None when it can.

    It is alone on the block device ``node``. Raises OSError, and MissingTool when its check needs a program that is not installed.
    """
    check = file_system(name).check
    if check is None:
        return Distrust(UNMAPPABLE, f"a map of {name} is not trusted")
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return check(Probe(run, lambda offset, length: os.pread(descriptor, length, offset), node))
    except (struct.error, IndexError, OverflowError):  # OverflowError: an offset beyond what any file has
        return Distrust(DIRTY, f"its {name} is damaged: a structure that must be there is not")
    finally:
        os.close(descriptor)
