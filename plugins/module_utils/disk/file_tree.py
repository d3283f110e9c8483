# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The common interface for reading single files of a file system. Each kind of file system that can be read has its own tree.

A tree opens the file system for reading only, even if it is hibernated or dirty. A missing file and an unreadable one are different answers; only the
programs' standard error distinguishes them, not their exit statuses (docs/programs.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..errors import ImagingError

MAX_SAVED_SIZE = 1 << 29
"""Maximum bytes of a file that is saved; large registry hives have some 100 MiB."""

MAX_FILE_SIZE = 1 << 20
"""Maximum bytes of a file that is read: the files of interest are short texts."""

MAX_LINKS = 40
"""Maximum number of symbolic links in one path, as in the kernel (path_resolution(7))."""


class Unreadable(ImagingError):
    """A file system, or a part of it, can't be read, so it is unknown whether the file exists."""


class NoFile(ImagingError):
    """There is no file of that name."""


class FileTree(ABC):
    """The files of one file system, by paths from its root. All methods raise Unreadable and MissingTool."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, by its exact path; none when there is no such folder."""

    @abstractmethod
    def content(self, path: str, length: int = MAX_FILE_SIZE) -> bytes | None:
        """Return the first bytes of a file, by its exact path; None when there is no such file."""

    @abstractmethod
    def save(self, path: str, target: str) -> None:
        """Copy a file, by its exact path, to a file of this machine; raises NoFile when there is none."""

    def head(self, path: str, length: int) -> bytes:
        """Return the first bytes of a file, by its exact path, however large it is; nothing when there is no such file."""
        return self.content(path, length) or b""

    def link(self, path: str) -> str | None:
        """Return the target of a symbolic link, unresolved; None when there is no link at that exact path."""
        return None

    def roots(self) -> list[FileTree]:
        """Return the places where a system may have its root: the root of the file system, and those of subvolumes."""
        return [self]

    def find(self, path: str) -> str | None:
        """Return the exact path of a name, ignoring the case of letters; None when it does not exist. Links are followed within this file system."""
        found, names, links = "", steps(path), 0
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
            if links > MAX_LINKS:
                return None
            found, names = "" if target.startswith("/") else found, steps(target) + names
        return found

    def read(self, path: str) -> bytes | None:
        """Return the content of a file that :meth:`find` finds; None when it does not exist."""
        found = self.find(path)
        return None if found is None else self.content(found)


def steps(path: str) -> list[str]:
    """Return the names in a path."""
    return [name for name in path.split("/") if name not in ("", ".")]


def as_bytes(text: str) -> bytes:
    """Return the output of a program as bytes; its decoding was lossless."""
    return text[:MAX_FILE_SIZE].encode("utf-8", "surrogateescape")
