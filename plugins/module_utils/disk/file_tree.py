# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads single files of a file system that is not mounted, and never is: by ntfsls and ntfscat, debugfs, or mtools.

They open the file system for reading only, also one that is hibernated or dirty.
"""

from __future__ import annotations

import filecmp
import os
import re
from abc import ABC, abstractmethod

from ..errors import ImagingError
from ..private_files import scratch_folder
from .command import RunCommand

LISTED, NO_FOLDER, LISTED_ROOT = 0, 1, 3
"""Exit statuses of ntfsls, tried with ntfs-3g 2022.10.3: 3 of a root that it has listed, for which it is 0 of any other folder."""

LARGEST_SAVED = 1 << 29
"""Bytes of a file that are saved; the largest that are, hives of a registry, have some 100 MiB."""

LARGEST_FILE = 1 << 20
"""Characters of a file that are looked at: what is read here are texts of a few lines."""

MOST_LINKS = 40
"""Symbolic links that one path may lead through, as in the kernel (path_resolution(7))."""


class FileTree(ABC):
    """The files of one file system, by paths from its root."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """What is in a folder; nothing when there is none. Raises MissingTool."""

    @abstractmethod
    def content(self, path: str) -> bytes | None:
        """What is in a file, by its exact path; None when it can't be read. Raises MissingTool."""

    @abstractmethod
    def save(self, path: str, target: str) -> None:
        """Copy a file, by its exact path, into one of this machine; raises ImagingError, MissingTool."""

    @abstractmethod
    def head(self, path: str, length: int) -> bytes:
        """The first bytes of a file, by its exact path, however large it is; nothing when it can't be read. Raises MissingTool."""

    def link(self, path: str) -> str | None:
        """Where a symbolic link leads, in its own words; None when there is no link at that exact path. Raises MissingTool."""
        return None

    def roots(self) -> list[FileTree]:
        """Where in this file system a system may have its root: the root of its own, and those of subvolumes."""
        return [self]

    def find(self, path: str) -> str | None:
        """The exact path of something, whose names may differ in capital and small letters; None when it is not there.

        Symbolic links are followed, never out of this file system.
        """
        found, names, links = "", _steps(path), 0
        while names:
            name = names.pop(0)
            if name == "..":
                found = found.rpartition("/")[0]
                continue
            there = self.names(found or "/")
            # Both "Windows" and "windows" can be there; the exact name is preferred.
            match = [each for each in there if each == name] or [each for each in there if each.lower() == name.lower()]
            if not match:
                return None
            target = self.link(f"{found}/{match[0]}")
            if target is None:
                found += "/" + match[0]
                continue
            links += 1
            if links > MOST_LINKS:
                return None
            found, names = "" if target.startswith("/") else found, _steps(target) + names
        return found

    def read(self, path: str) -> bytes | None:
        """What is in a file, found as by :meth:`find`; None when it is not there or can't be read."""
        found = self.find(path)
        return None if found is None else self.content(found)


class NtfsTree(FileTree):
    """An NTFS on a block device, or in a regular file."""

    def __init__(self, run: RunCommand, node: str) -> None:
        self._run = run
        self._node = node
        self._names: dict[str, list[str]] = {}

    def names(self, folder: str) -> list[str]:
        """By ntfsls."""
        if folder not in self._names:
            result = self._run(["ntfsls", "--force", "--path", folder, self._node])
            if result.rc not in (LISTED, NO_FOLDER, LISTED_ROOT):
                raise ImagingError(f"its files can't be read: {result.complaint()}")
            names = [line for line in result.out.splitlines() if line not in ("", ".", "..")]
            self._names[folder] = [] if result.rc == NO_FOLDER else names
        return self._names[folder]

    def content(self, path: str) -> bytes | None:
        """By ntfscat."""
        result = self._run(["ntfscat", "--force", self._node, path])
        return None if result.rc else _bytes(result.out)

    def head(self, path: str, length: int) -> bytes:
        """By ntfscat, which is ended when there is enough."""
        script = 'ntfscat --force "$1" "$2" | head -c "$3"'
        return _bytes(self._run(["sh", "-c", script, "sh", self._node, path, str(length)]).out)

    def save(self, path: str, target: str) -> None:
        """By ntfscat, which can only write to its standard output."""
        script = f'set -e; ntfscat --force "$1" "$2" | head -c {LARGEST_SAVED} >"$3"'
        result = self._run(["sh", "-c", script, "sh", self._node, path, target])
        if result.rc:
            raise ImagingError(f"{path} can't be copied to {target}: {result.complaint()}")


LINK_MODE = "12"
"""What the mode of a symbolic link begins with, in octal digits (inode(7): S_IFLNK)."""


class ExtTree(FileTree):
    """An ext2, ext3 or ext4 on a block device, or in a regular file."""

    def __init__(self, run: RunCommand, node: str) -> None:
        self._run = run
        self._node = node
        self._modes: dict[str, dict[str, str]] = {}

    def _ask(self, request: str, path: str) -> str:
        # debugfs has quotes, and no way to write one inside of them.
        if re.search(r'["\n]', path):
            return ""
        return self._run(["debugfs", "-c", "-R", f'{request} "{path}"', self._node]).out

    def _list(self, folder: str) -> dict[str, str]:
        """The modes, in octal digits, of what is in a folder. By debugfs: /inode/mode/user/group/name/size/ on each line."""
        if folder not in self._modes:
            rows = (line.split("/") for line in self._ask("ls -p", folder).splitlines())
            there = (row for row in rows if len(row) > 6 and row[5] not in ("", ".", "..") and row[1] != "0")
            self._modes[folder] = {row[5]: row[2] for row in there}
        return self._modes[folder]

    def names(self, folder: str) -> list[str]:
        """By debugfs."""
        return list(self._list(folder))

    def link(self, path: str) -> str | None:
        """By debugfs, which shows the target of a short link with its inode, and that of a longer one as a file's content."""
        folder, _slash, name = path.rpartition("/")
        if not self._list(folder or "/").get(name, "").startswith(LINK_MODE):
            return None
        short = re.search(r'^Fast link dest: "(.*)"$', self._ask("stat", path), re.MULTILINE)
        return short[1] if short else self._ask("cat", path)

    def head(self, path: str, length: int) -> bytes:
        """By debugfs, which is ended when there is enough."""
        if re.search(r'["\n]', path):
            return b""
        script = 'debugfs -c -R "$1" "$2" | head -c "$3"'
        return _bytes(self._run(["sh", "-c", script, "sh", f'cat "{path}"', self._node, str(length)]).out)

    def content(self, path: str) -> bytes | None:
        """By debugfs, which gives nothing for a link."""
        said = self._ask("cat", path)
        return _bytes(said) if said else None

    def save(self, path: str, target: str) -> None:
        """By debugfs, which says nothing by its exit status."""
        if re.search(r'["\n]', path + target):
            raise ImagingError(f"{path} has a name that debugfs can't be asked for")
        said = self._run(["debugfs", "-c", "-R", f'dump "{path}" "{target}"', self._node])
        if not os.path.exists(target):
            raise ImagingError(f"{path} can't be copied to {target}: {said.complaint()}")


class FatTree(FileTree):
    """A FAT on a block device, or in a regular file; its names mean the same in capital and small letters."""

    def __init__(self, run: RunCommand, node: str) -> None:
        self._run = run
        self._node = node

    def names(self, folder: str) -> list[str]:
        """By mdir, which ends folders with a slash."""
        result = self._run(["mdir", "-b", "-i", self._node, f"::{folder.rstrip('/')}/"])
        rows = (line.rstrip("/").rpartition("/")[2] for line in result.out.splitlines() if line.startswith("::"))
        return [] if result.rc else [name for name in rows if name]

    def content(self, path: str) -> bytes | None:
        """By mtype."""
        result = self._run(["mtype", "-i", self._node, f"::{path}"])
        return None if result.rc else _bytes(result.out)

    def head(self, path: str, length: int) -> bytes:
        """By mtype; there are no large files on an EFI system partition."""
        return (self.content(path) or b"")[:length]

    def save(self, path: str, target: str) -> None:
        """By mcopy."""
        self._copy(f"::{path}", target, path)

    def put(self, source: str, path: str) -> None:
        """Copy a file of this machine into this file system, in folders that are made, and see that it is there."""
        folder = ""
        for name in path.strip("/").split("/")[:-1]:
            if self.find(f"{folder}/{name}") is None:
                result = self._run(["mmd", "-i", self._node, f"::{folder}/{name}"])
                if result.rc:
                    raise ImagingError(f"{folder}/{name} can't be made: {result.complaint()}")
            folder += f"/{name}"
        self._copy(source, f"::{path}", path)
        with scratch_folder() as scratch:
            copy = os.path.join(scratch, "copy")
            self.save(path, copy)
            if not filecmp.cmp(source, copy, shallow=False):
                raise ImagingError(f"{path} was written, and reads back differently")

    def _copy(self, source: str, target: str, path: str) -> None:
        result = self._run(["mcopy", "-n", "-o", "-i", self._node, source, target])
        if result.rc:
            raise ImagingError(f"{path} can't be copied: {result.complaint()}")


def _steps(path: str) -> list[str]:
    """The names that a path leads through."""
    return [name for name in path.split("/") if name not in ("", ".")]


def _bytes(text: str) -> bytes:
    """What a program wrote; it was decoded so that nothing of it is lost."""
    return text[:LARGEST_FILE].encode("utf-8", "surrogateescape")
