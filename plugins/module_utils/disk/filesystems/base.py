# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations on a kind of file system. Each kind is described in a file beside this one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Callable, ContextManager, Mapping, Sequence

from ...printable import printable
from ..command import CommandResult, RunCommand
from ..file_tree import FileTree
from ..gpt import Read
from .allocation_check import LACKING, report

HEAD = 128 << 10
"""Bytes at the start of a partition that contain the superblock of every known kind."""

DIRTY = "dirty"
HIBERNATED = "hibernated"
UNMAPPABLE = "unmappable"
"""Kinds of distrust: the file system is not clean; a Windows has left an NTFS open, for example by hibernation; only its map can't be used."""


@dataclass(frozen=True)
class Probe:
    """The input of a check. ``read`` reads at an offset of the partition; ``node`` is a block device of the partition alone."""

    run: RunCommand
    read: Read
    node: str


@dataclass(frozen=True)
class Distrust:
    """The reason why a file system's information about free space is not trusted: its kind, and a text."""

    kind: str
    reason: str


def dirty_bits(value: int, meanings: Mapping[int, str]) -> Distrust | None:
    """Return the distrust for the bits that are set, with their meanings as one reason; None when none is set."""
    reason = " and ".join(meaning for bit, meaning in meanings.items() if value & bit)
    return Distrust(DIRTY, reason) if reason else None


@dataclass(frozen=True)
class Checker:
    """A program that proves a file system consistent by exit status 0. Those in ``errors`` mean that it is not; others are failures.

    The device follows ``command``, which must only read it. ``by_memory`` is the program's option for its maximum memory in MiB.
    """

    name: str
    command: Sequence[str]
    errors: Sequence[int]
    by_memory: str = ""

    def arguments(self, node: str, memory: int) -> list[str]:
        """Return the complete command."""
        memory_option = [self.by_memory, str(memory >> 20)] if self.by_memory else []
        return [*self.command, *memory_option, node]

    def doubt(self, result: CommandResult) -> str:
        """Return why the file system is not proven consistent; empty when it is."""
        if result.rc == 0:
            return ""
        if result.rc in self.errors:
            return f"{self.name} found an inconsistency: {_said(result)}"
        return f"{self.name} failed: exit status {result.rc}, {_said(result)}"


def _said(result: CommandResult) -> str:
    """Return the first informative line of the output, or its first line."""
    lines = [line for line in map(printable, (result.out + "\n" + result.err).splitlines()) if line]
    telling = [line for line in lines if any(word in line for word in TELLING)] or lines or ["it gave no reason"]
    return telling[0][:160].rstrip(".")


TELLING = ("rror", "ERROR", "ifferences", "wrong", "free", "not ", "can't")
"""Parts of informative lines; other lines name the program's version or its next step."""


def own_checker(name: str, module: ModuleType) -> Checker:
    """Return the checker that is a module of this collection, which lies in a folder or in the zip file of an Ansible module."""
    folder = os.path.abspath(str(module.__file__))
    for dummy in module.__name__.split("."):
        folder = os.path.dirname(folder)
    names = f"from {module.__name__} import Allocation; from {report.__module__} import report"
    launch = f"import sys; sys.path.insert(0, sys.argv.pop(1)); {names}; sys.exit(report(Allocation))"
    return Checker(name, [sys.executable or "python3", "-I", "-c", launch, folder], [LACKING])


@dataclass(frozen=True)
class FreeSpace:
    """How free space is determined: by the map of a program of partclone, and a checker that proves the map right."""

    map_program: str
    checker: Checker


@dataclass(frozen=True)
class Grower:
    """The programs that grow a file system, and the commands with their good exit statuses. The device follows each command."""

    programs: tuple[str, ...]
    commands: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]


def while_mounted(command: str) -> tuple[str, ...]:
    """Return a shell command that works on the mounted file system, as ``$d``, invisibly to other processes."""
    script = f'set -e; d=$(mktemp -d); trap "rmdir $d" EXIT; mount "$1" "$d"; {command}; umount "$d"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


@dataclass(frozen=True)
class Files:
    """How a system is found in the files of a file system: its kind (``systems.WINDOWS`` or ``LINUX``), and the function that opens the files.

    File systems that only the kernel can read are opened only if they are clean (``only_clean``). ``second_look`` corrects a distrust from the files.
    """

    system: str
    open: Callable[[RunCommand, str], ContextManager[FileTree]]
    only_clean: bool = False
    second_look: Callable[[Distrust, FileTree], Distrust] | None = None


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system, or several similar ones. An operation that is None is not supported.

    ``names`` are blkid's. ``size`` returns the size in bytes from the first ``HEAD`` bytes, 0 when they do not contain it.

    ``check`` returns why the information about free space is not trusted, or None when the file system is proven clean. partclone can't decide that:
    it exits 0 on a hibernated NTFS and on an ext4 whose journal was not replayed. Without ``free_space``, the file system is captured whole.

    ``ways_out`` are the ways out of findings, by the names of ``findings.CONTENT_CHECKS``.
    """

    names: tuple[str, ...]
    size: Callable[[bytes], int] | None = None
    check: Callable[[Probe], Distrust | None] | None = None
    free_space: FreeSpace | None = None
    grower: Grower | None = None
    files: Files | None = None
    ways_out: Mapping[str, str] = field(default_factory=dict)
