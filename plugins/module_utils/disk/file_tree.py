# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads single files of a file system without mounting it: with ntfsls and ntfscat, debugfs, or this package's own reader of FAT.

They open the file system for reading only, even if it is hibernated or dirty. A missing file and one that can't be read are different answers;
the programs' standard error tells them apart, since their exit statuses do not (docs/programs.md).
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
from abc import ABC, abstractmethod
from typing import Iterator, TypeVar

from ..errors import ImagingError
from ..printable import printable
from ..private_files import scratch_folder
from .command import CommandResult, RunCommand
from .fat import BadFat, Entry, Fat, WritableFat

AnyFat = TypeVar("AnyFat", bound=Fat)

LARGEST_SAVED = 1 << 29
"""Bytes of a file that are saved; the largest that are, hives of a registry, have some 100 MiB."""

LARGEST_FILE = 1 << 20
"""Characters of a file that are looked at: what is read here are texts of a few lines."""

MOST_LINKS = 40
"""Symbolic links that one path may lead through, as in the kernel (path_resolution(7))."""


class Unreadable(ImagingError):
    """A file system, or something in it, can't be read, so it is not known whether what was looked for is there."""


class NoFile(ImagingError):
    """There is no file of that name, or it is something else."""


class FileTree(ABC):
    """The files of one file system, by paths from its root. Everything raises Unreadable and MissingTool."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """What is in a folder, by its exact path; nothing when there is no such folder."""

    @abstractmethod
    def content(self, path: str) -> bytes | None:
        """What is in a file, by its exact path; None when there is no such file."""

    @abstractmethod
    def save(self, path: str, target: str) -> None:
        """Copy a file, by its exact path, into one of this machine; raises NoFile when there is none."""

    @abstractmethod
    def head(self, path: str, length: int) -> bytes:
        """The first bytes of a file, by its exact path, however large it is; nothing when there is no such file."""

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
        """What is in a file, found as by :meth:`find`; None when it is not there."""
        found = self.find(path)
        return None if found is None else self.content(found)


NTFS_IS_DIRTY = ("WARNING: Dirty volume mount was forced", "Cannot represent filename")
"""Messages of ntfsls and ntfscat that are no failure: the file system is dirty; a name that is not valid text was left out."""

NTFS_NOTHING_THERE = re.compile(r"Couldn't open inode: No such file|Cannot find attribute type 0x80")
"""What ntfscat says of what is not there, and of a folder."""


class NtfsTree(FileTree):
    """An NTFS on a block device, or in a regular file."""

    def __init__(self, run: RunCommand, node: str) -> None:
        self._run = run
        self._node = node
        self._names: dict[str, list[str]] = {}

    def names(self, folder: str) -> list[str]:
        """By ntfsls, which ends with 3 when there is no such folder and when it is damaged, and with 0 when a part of it is."""
        if folder not in self._names:
            result = self._run(["ntfsls", "--force", "--path", folder, self._node])
            names = [line for line in result.out.splitlines() if line not in ("", ".", "..")]
            parent, _slash, name = folder.rpartition("/")
            lost = result.rc and not result.out and name in self._names.get(parent or "/", ())
            if _ntfs_failure(result) or lost or (result.rc and folder == "/" and not names):
                raise Unreadable(f"its files can't be read: {folder}: {result.complaint()}")
            self._names[folder] = names
        return self._names[folder]

    def content(self, path: str) -> bytes | None:
        """By ntfscat."""
        return self._checked(self._run(["ntfscat", "--force", self._node, path]), path)

    @staticmethod
    def _checked(result: CommandResult, path: str) -> bytes | None:
        """What ntfscat gave; None when there is no such file."""
        if NTFS_NOTHING_THERE.search(result.err):
            return None
        if result.rc or _ntfs_failure(result):
            raise Unreadable(f"its {path} can't be read: {result.complaint()}")
        return _bytes(result.out)

    def head(self, path: str, length: int) -> bytes:
        """By ntfscat, which is ended when there is enough."""
        script = 'ntfscat --force "$1" "$2" | head -c "$3"'
        result = self._run(["sh", "-c", script, "sh", self._node, path, str(length)])
        found = _bytes(result.out)
        return found if len(found) == length else self._checked(result, path) or b""

    def save(self, path: str, target: str) -> None:
        """By ntfscat, which can only write to its standard output."""
        script = f'ntfscat --force "$1" "$2" | head -c {LARGEST_SAVED} >"$3"'
        if self._checked(self._run(["sh", "-c", script, "sh", self._node, path, target]), path) is None:
            raise NoFile(f"there is no file {path}")


def _ntfs_failure(result: CommandResult) -> bool:
    """Whether ntfsls or ntfscat complains of more than what is no failure."""
    return any(line.strip() and not line.strip().startswith(NTFS_IS_DIRTY) for line in result.err.splitlines())


DEBUGFS = re.compile(r"debugfs \d")
EXT_NOTHING_THERE = re.compile(r": (File not found by ext2_lookup|Ext2 inode is not a directory)\s*$")
"""What debugfs says of what is not there."""

LINK_MODE = "12"
"""What the mode of a symbolic link begins with, in octal digits (inode(7): S_IFLNK)."""


class ExtTree(FileTree):
    """An ext2, ext3 or ext4 on a block device, or in a regular file."""

    def __init__(self, run: RunCommand, node: str) -> None:
        self._run = run
        self._node = node
        self._modes: dict[str, dict[str, str]] = {}

    def _ask(self, request: str, path: str, target: str = "") -> str | None:
        """What debugfs answers; None when there is nothing at that path, or it is no folder where one was asked for."""
        # debugfs has quotes, and no way to write one inside of them.
        if re.search(r'["\n]', path + target):
            raise Unreadable(f"its {printable(path)} can't be read: debugfs can't be asked for such a name")
        copy = f' "{target}"' if target else ""
        return self._checked(self._run(["debugfs", "-c", "-R", f'{request} "{path}"{copy}', self._node]), path)

    @staticmethod
    def _checked(result: CommandResult, path: str) -> str | None:
        """The answer of debugfs, whose exit status says nothing; the first line on standard error is its version."""
        complaint = " ".join(line for line in result.err.splitlines() if line.strip() and not DEBUGFS.match(line))
        if EXT_NOTHING_THERE.search(complaint):
            return None
        if result.rc or complaint:
            raise Unreadable(f"its {path} can't be read: {complaint or result.complaint()}")
        return result.out

    def _list(self, folder: str) -> dict[str, str]:
        """The modes, in octal digits, of what is in a folder. By debugfs: /inode/mode/user/group/name/size/ on each line."""
        if folder not in self._modes:
            rows = (line.split("/") for line in (self._ask("ls -p", folder) or "").splitlines())
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
        short = re.search(r'^Fast link dest: "(.*)"$', self._ask("stat", path) or "", re.MULTILINE)
        return short[1] if short else self._ask("cat", path)

    def head(self, path: str, length: int) -> bytes:
        """By debugfs, which is ended when there is enough."""
        if re.search(r'["\n]', path):
            raise Unreadable(f"its {printable(path)} can't be read: debugfs can't be asked for such a name")
        script = 'debugfs -c -R "$1" "$2" | head -c "$3"'
        result = self._run(["sh", "-c", script, "sh", f'cat "{path}"', self._node, str(length)])
        found = _bytes(result.out)
        return found if len(found) == length else _bytes(self._checked(result, path) or "")

    def content(self, path: str) -> bytes | None:
        """By debugfs."""
        said = self._ask("cat", path)
        return None if said is None else _bytes(said)

    def save(self, path: str, target: str) -> None:
        """By debugfs."""
        if self._ask("dump", path, target) is None:
            raise NoFile(f"there is no file {path}")
        if not os.path.exists(target):
            raise Unreadable(f"{path} can't be copied to {target}")


class FatTree(FileTree):
    """A FAT on a block device, or in a regular file; its names mean the same in capital and small letters. It needs no program."""

    def __init__(self, _run: RunCommand, node: str) -> None:
        self._node = node

    @contextlib.contextmanager
    def _open(self, kind: type[AnyFat], flags: int = os.O_RDONLY) -> Iterator[AnyFat]:
        descriptor = -1
        try:
            descriptor = os.open(self._node, flags | os.O_CLOEXEC)
            yield kind(descriptor)
        except (BadFat, OSError) as error:
            raise Unreadable(f"its files can't be read: {getattr(error, 'strerror', None) or error}") from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    @staticmethod
    def _entry(fat: Fat, path: str) -> Entry | None:
        """What is at a path; None of the root, and when there is nothing."""
        entry, folder = None, Fat.ROOT
        for name in _steps(path):
            if entry is not None and not (entry.folder and entry.cluster):
                return None
            folder = entry.cluster if entry is not None else folder
            entry = next((each for each in fat.entries(folder) if each.name.lower() == name.lower()), None)
            if entry is None:
                return None
        return entry

    def names(self, folder: str) -> list[str]:
        """By this package's own reader."""
        with self._open(Fat) as fat:
            entry = self._entry(fat, folder)
            if entry is None:
                return [] if _steps(folder) else [each.name for each in fat.entries()]
            return [each.name for each in fat.entries(entry.cluster)] if entry.folder and entry.cluster else []

    def _pieces(self, path: str) -> Iterator[bytes]:
        with self._open(Fat) as fat:
            entry = self._entry(fat, path)
            if entry is None or entry.folder:
                raise NoFile(f"there is no file {path}")
            yield from fat.content(entry)

    def _head(self, path: str, length: int) -> bytes | None:
        found = b""
        try:
            for piece in self._pieces(path):
                found += piece
                if len(found) >= length:
                    break
        except NoFile:
            return None
        return found[:length]

    def content(self, path: str) -> bytes | None:
        """By this package's own reader."""
        return self._head(path, LARGEST_FILE)

    def head(self, path: str, length: int) -> bytes:
        """By this package's own reader."""
        return self._head(path, length) or b""

    def save(self, path: str, target: str) -> None:
        """By this package's own reader."""
        with open(target, "wb") as copy:
            for piece in self._pieces(path):
                copy.write(piece)

    def put(self, source: str, path: str) -> None:
        """Copy a file of this machine into this file system, in folders that are made, and see that it is there."""
        with open(source, "rb") as file:
            content = file.read()
        *folders, name = _steps(path)
        try:
            with self._open(WritableFat, os.O_RDWR) as fat:
                folder = Fat.ROOT
                for step in folders:
                    there = [entry for entry in fat.entries(folder) if entry.name.lower() == step.lower()]
                    if there and not (there[0].folder and there[0].cluster):
                        raise BadFat(f"{step} is a file, where a folder was expected")
                    folder = there[0].cluster if there else fat.make_folder(folder, step)
                fat.write(folder, name, content)
        except Unreadable as error:
            raise Unreadable(f"{path} can't be copied: {error.__cause__ or error}") from error.__cause__
        with scratch_folder() as scratch:
            copy = os.path.join(scratch, "copy")
            self.save(path, copy)
            if not filecmp.cmp(source, copy, shallow=False):
                raise ImagingError(f"{path} was written, and reads back differently")


def _steps(path: str) -> list[str]:
    """The names that a path leads through."""
    return [name for name in path.split("/") if name not in ("", ".")]


def _bytes(text: str) -> bytes:
    """What a program wrote; it was decoded so that nothing of it is lost."""
    return text[:LARGEST_FILE].encode("utf-8", "surrogateescape")
