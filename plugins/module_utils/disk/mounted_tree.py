# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads single files through the kernel, for file systems that no program can read unmounted.

The mount is detached: no folder contains it, other processes do not see it, and it ends with this process. It is read-only, no log is replayed, and
devices, programs and links on it are not followed. The kernel must know the file system, which must be proven clean.

Source: Linux, Documentation/filesystems/mount_api.rst and uapi/linux/mount.h, openat2.h; fsopen(2), fsmount(2), openat2(2). Needs Linux 5.6.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import stat
from typing import Any, Callable, Iterable, Iterator, Mapping

from ..errors import ImagingError
from .file_tree import MAX_FILE_SIZE, MAX_SAVED_SIZE, FileTree

FSOPEN, FSCONFIG, FSMOUNT, OPENAT2 = 430, 431, 432, 437
"""Numbers of system calls, equal on all machines that run Python today (asm-generic/unistd.h)."""

CLOSE_ON_EXEC = 1
SET_FLAG, SET_STRING, CREATE = 0, 1, 6
"""Commands of fsconfig."""

READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS = 1, 2, 4, 8
"""Attributes of a mount."""

IN_ROOT, NO_MAGIC_LINKS = 0x10, 0x02
"""Flags of openat2: the given folder is the root, also for links; links of /proc are not followed."""

REASONS = {
    errno.ENODEV: "it does not know this file system",
    errno.ENOSYS: "it is older than Linux 5.6",
    errno.EPERM: "only root may mount",
}

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

SUBVOLUME = 256
"""Inode number of the root of each subvolume (linux/btrfs_tree.h: BTRFS_FIRST_FREE_OBJECTID)."""

MAX_SUBVOLUMES = 64
"""Maximum number of subvolumes that are examined; a system has few."""

DEEPEST_SUBVOLUME = 2
"""Maximum depth of subvolumes: it includes /@/var and /@/swap, but not the snapshots below /@/.snapshots."""


@contextlib.contextmanager
def mounted_tree(
    kind: str, node: str, options: Mapping[str, str], top: Mapping[str, str] | None = None
) -> Iterator[MountedTree]:
    """Mount the file system on a block device; raises ImagingError when this kernel can't, or may not.

    ``kind`` is the kernel's name for it, ``options`` are those of a mount that writes nothing, and ``top`` are additional ones for the topmost
    subvolume.
    """
    open_top = functools.partial(_mount, kind, node, {**options, **top}) if top else None
    tree = MountedTree(_mount(kind, node, options), open_top)
    try:
        yield tree
    finally:
        tree.close()


class MountedTree(FileTree):
    """The files below a folder, which the kernel reads. ``root`` is its descriptor, and ``top`` opens the topmost folder of a btrfs."""

    def __init__(self, root: int, top: Callable[[], int] | None = None) -> None:
        self._root = root
        self._top = top
        self._below: list[MountedTree] = []

    def close(self) -> None:
        for tree in self._below:
            tree.close()
        os.close(self._root)

    def roots(self) -> list[FileTree]:
        """Return this root and, on btrfs, those of the topmost subvolume and of those below: many systems have theirs in @, @rootfs or root."""
        if self._top is not None:
            top, self._top = self._top, None
            known = {os.fstat(self._root).st_dev}
            level = [self, *self._keep([top()], known)]
            for _depth in range(DEEPEST_SUBVOLUME):
                level = [below for tree in level for below in self._keep(tree._subvolumes(), known)]
        return [self, *self._below]

    def _keep(self, descriptors: Iterable[int], known: set[int]) -> list[MountedTree]:
        """Keep these descriptors, except those whose device number is in ``known``: each subvolume has its own."""
        kept = []
        for descriptor in descriptors:
            device = os.fstat(descriptor).st_dev
            if device in known or len(known) > MAX_SUBVOLUMES:
                os.close(descriptor)
                continue
            known.add(device)
            kept.append(MountedTree(descriptor))
            self._below.append(kept[-1])
        return kept

    def _subvolumes(self) -> Iterator[int]:
        """Yield descriptors of the subvolumes in its root."""
        for name in sorted(self.names("/")):
            descriptor = self._open(name, os.O_PATH | os.O_NOFOLLOW)
            if descriptor is not None and os.fstat(descriptor).st_ino == SUBVOLUME:
                yield descriptor
            elif descriptor is not None:
                os.close(descriptor)

    def _open(self, path: str, flags: int) -> int | None:
        how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, IN_ROOT | NO_MAGIC_LINKS)
        try:
            return _call(OPENAT2, ctypes.c_int(self._root), os.fsencode(path), how, ctypes.c_size_t(ctypes.sizeof(how)))
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise ImagingError(f"its {path} can't be read: {error.strerror}") from error

    def names(self, folder: str) -> list[str]:
        descriptor = self._open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            return []
        try:
            return os.listdir(descriptor)
        except OSError as error:
            raise ImagingError(f"its {folder} can't be read: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def find(self, path: str) -> str | None:
        # The kernel does not ignore the case of letters, unlike the other trees.
        descriptor = self._open(path, os.O_PATH)
        if descriptor is None:
            return None
        os.close(descriptor)
        return path

    def link(self, path: str) -> str | None:
        descriptor = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        if descriptor is None:
            return None
        try:
            return os.readlink("", dir_fd=descriptor) if stat.S_ISLNK(os.fstat(descriptor).st_mode) else None
        finally:
            os.close(descriptor)

    def content(self, path: str, length: int = MAX_FILE_SIZE) -> bytes | None:
        descriptor = self._file(path)
        return None if descriptor is None else _read(descriptor, length, path)

    def save(self, path: str, target: str) -> None:
        descriptor = self._file(path)
        if descriptor is None:
            raise ImagingError(f"{path} can't be copied to {target}: it is not there")
        with open(target, "wb") as copy:
            copy.write(_read(descriptor, MAX_SAVED_SIZE, path))

    def _file(self, path: str) -> int | None:
        """Return a descriptor of a regular file; None when there is none. Does not wait for pipes."""
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        if descriptor is not None and not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor


def _read(descriptor: int, length: int, path: str) -> bytes:
    """Return the first bytes of a file, and close it."""
    try:
        with open(descriptor, "rb") as file:
            return file.read(length)
    except OSError as error:
        raise ImagingError(f"its {path} can't be read: {error.strerror}") from error


def _mount(kind: str, node: str, options: Mapping[str, str]) -> int:
    """Return a descriptor of the root of a detached mount; raises ImagingError."""
    try:
        context = _call(FSOPEN, kind.encode(), ctypes.c_uint(CLOSE_ON_EXEC))
        try:
            _configure(context, SET_STRING, "source", node)
            for name, value in options.items():
                _configure(context, SET_STRING if value else SET_FLAG, name, value)
            _configure(context, CREATE, "", "")
            attributes = READ_ONLY | NO_SUID | NO_DEVICES | NO_PROGRAMS
            return _call(FSMOUNT, ctypes.c_int(context), ctypes.c_uint(CLOSE_ON_EXEC), ctypes.c_uint(attributes))
        finally:
            os.close(context)
    except OSError as error:
        reason = REASONS.get(error.errno or 0, str(error.strerror))
        raise ImagingError(f"this machine's kernel can't mount it read-only ({reason})") from error


def _configure(context: int, command: int, name: str, value: str) -> None:
    texts = (os.fsencode(text) if text else None for text in (name, value))
    _call(FSCONFIG, ctypes.c_int(context), ctypes.c_uint(command), *texts, ctypes.c_int(0))


def _call(number: int, *arguments: Any) -> int:
    """Run a system call for which Python has no function; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
