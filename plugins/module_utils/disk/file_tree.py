# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads single files of a file system: what all kinds have in common. Each kind that can be read has a tree of its own.

A tree opens the file system for reading only, even if it is hibernated or dirty. A missing file and one that can't be read are different answers;
the programs' standard error tells them apart, since their exit statuses do not (docs/programs.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..errors import ImagingError

MAX_SAVED_SIZE = 1 << 29
"""Bytes of a file that are saved; the largest that are, hives of a registry, have some 100 MiB."""

MAX_FILE_SIZE = 1 << 20
"""Characters of a file that are looked at: what is read here are texts of a few lines."""

MAX_LINKS = 40
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
    def content(self, path: str, length: int = MAX_FILE_SIZE) -> bytes | None:
        """Return the first bytes of a file, by its exact path; None when there is no such file."""

    @abstractmethod
    def save(self, path: str, target: str) -> None:
        """Copy a file, by its exact path, into one of this machine; raises NoFile when there is none."""

    def head(self, path: str, length: int) -> bytes:
        """Return the first bytes of a file, by its exact path, however large it is; nothing when there is no such file."""
        return self.content(path, length) or b""

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
        """What is in a file, found as by :meth:`find`; None when it is not there."""
        found = self.find(path)
        return None if found is None else self.content(found)


def steps(path: str) -> list[str]:
    """The names that a path leads through."""
    return [name for name in path.split("/") if name not in ("", ".")]


def as_bytes(text: str) -> bytes:
    """What a program wrote; it was decoded so that nothing of it is lost."""
    return text[:MAX_FILE_SIZE].encode("utf-8", "surrogateescape")
