# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing files into an NTFS that lies in a file, through libntfs-3g: no mount, no FUSE, no privileges.

The functions are those of ntfs-3g's headers volume.h, dir.h, inode.h and attrib.h; its inodes are handles to us.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import stat
from pathlib import Path, PurePosixPath
from types import TracebackType

from .tools import LabError

AT_DATA = 0x80
Handle = ctypes.c_void_p
PROTOTYPES: dict[str, tuple[type | None, list[type]]] = {
    "ntfs_mount": (Handle, [ctypes.c_char_p, ctypes.c_ulong]),
    "ntfs_umount": (ctypes.c_int, [Handle, ctypes.c_int]),
    "ntfs_pathname_to_inode": (Handle, [Handle, Handle, ctypes.c_char_p]),
    "ntfs_create": (Handle, [Handle, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint8, ctypes.c_uint32]),
    "ntfs_delete": (ctypes.c_int, [Handle, ctypes.c_char_p, Handle, Handle, ctypes.c_char_p, ctypes.c_uint8]),
    "ntfs_inode_close": (ctypes.c_int, [Handle]),
    "ntfs_attr_open": (Handle, [Handle, ctypes.c_uint32, Handle, ctypes.c_uint32]),
    "ntfs_attr_pwrite": (ctypes.c_int64, [Handle, ctypes.c_int64, ctypes.c_int64, ctypes.c_char_p]),
    "ntfs_attr_close": (None, [Handle]),
}


def load_library() -> ctypes.CDLL:
    """Return libntfs-3g; raise LabError when it is missing."""
    name = ctypes.util.find_library("ntfs-3g")
    if name is None:
        raise LabError("libntfs-3g not found; install it with: apt-get install ntfs-3g")
    library = ctypes.CDLL(name, use_errno=True)
    for function, (result, arguments) in PROTOTYPES.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    return library


class NtfsVolume:
    """An NTFS in a file, open for writing in a with statement. Paths are relative to its root."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._library = load_library()
        self._unnamed = ctypes.addressof(ctypes.c_uint16.in_dll(self._library, "AT_UNNAMED"))
        self._folders = {PurePosixPath(".")}

    def __enter__(self) -> NtfsVolume:
        self._volume = self._checked(self._library.ntfs_mount(os.fsencode(self._image), 0), "opened")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._library.ntfs_umount(self._volume, 0) and error is None:
            raise self._error("closed")

    def write(self, path: str, content: bytes) -> None:
        """Make a file with this content, and the folders that it needs."""
        inode = self._create(PurePosixPath(path), stat.S_IFREG)
        if content:
            data = self._checked(self._library.ntfs_attr_open(inode, AT_DATA, self._unnamed, 0), path)
            if self._library.ntfs_attr_pwrite(data, 0, len(content), content) != len(content):
                raise self._error(path)
            self._library.ntfs_attr_close(data)
        self._close(inode, path)

    def remove(self, path: str) -> None:
        """Remove a file; its clusters keep their content."""
        parent, name = os.path.split(path)
        # In this order: the library must not open an inode a second time on the way to another.
        inode = self._open(path)
        folder = self._open(parent)
        # It closes both.
        if self._library.ntfs_delete(self._volume, path.encode(), inode, folder, name.encode("utf-16-le"), len(name)):
            raise self._error(path)

    def _create(self, path: PurePosixPath, kind: int) -> int:
        if path.parent not in self._folders:
            there = self._library.ntfs_pathname_to_inode(self._volume, None, str(path.parent).encode())
            self._close(there or self._create(path.parent, stat.S_IFDIR), str(path.parent))
            self._folders.add(path.parent)
        folder = self._open("" if path.parent == PurePosixPath(".") else str(path.parent))
        name = path.name.encode("utf-16-le")
        inode = self._checked(self._library.ntfs_create(folder, 0, name, len(name) // 2, kind), str(path))
        self._close(folder, str(path.parent))
        return inode

    def _open(self, path: str) -> int:
        return self._checked(self._library.ntfs_pathname_to_inode(self._volume, None, path.encode()), path)

    def _close(self, inode: int, path: str) -> None:
        if self._library.ntfs_inode_close(inode):
            raise self._error(path)

    def _checked(self, handle: int | None, what: str) -> int:
        if not handle:
            raise self._error(what)
        return handle

    def _error(self, what: str) -> LabError:
        return LabError(f"{self._image}: NTFS: {what}: {os.strerror(ctypes.get_errno())}")
