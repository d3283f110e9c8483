# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this collection can do with a kind of file system. Each kind is described in a file of its own beside this one."""

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
from .allocation_check import LACKING

HEAD = 128 << 10
"""Bytes at the start of a partition that hold the superblock of every kind that is known here."""

DIRTY = "dirty"
HIBERNATED = "hibernated"
UNMAPPABLE = "unmappable"
"""Kinds of distrust: not clean; an NTFS that a Windows has left open, as one that is hibernated does; merely one whose map can't be used."""


@dataclass(frozen=True)
class Probe:
    """What a check looks at. ``read`` reads at an offset of the partition; ``node`` is a block device of the partition alone."""

    run: RunCommand
    read: Read
    node: str


@dataclass(frozen=True)
class Distrust:
    """Why the account that a file system gives of its free space can't be believed: the kind, and a reason for people."""

    kind: str
    reason: str


def dirty_bits(value: int, meanings: Mapping[int, str]) -> Distrust | None:
    """That a file system is not clean, with the meanings of the bits that are set as one reason; None when none is set."""
    reason = " and ".join(meaning for bit, meaning in meanings.items() if value & bit)
    return Distrust(DIRTY, reason) if reason else None


@dataclass(frozen=True)
class Checker:
    """The program that proves a file system consistent, by exit status 0. Those in ``errors`` mean that it is not, others are failures.

    ``command`` is followed by the device, and must only read it. ``by_memory`` is the program's option for the MiB of memory that it may take.
    """

    name: str
    command: Sequence[str]
    errors: Sequence[int]
    by_memory: str = ""

    def arguments(self, node: str, memory: int) -> list[str]:
        """The whole command."""
        memory_option = [self.by_memory, str(memory >> 20)] if self.by_memory else []
        return [*self.command, *memory_option, node]

    def doubt(self, result: CommandResult) -> str:
        """Why the file system is not proven consistent, or nothing."""
        if result.rc == 0:
            return ""
        if result.rc in self.errors:
            return f"{self.name} found an inconsistency: {_said(result)}"
        return f"{self.name} failed: exit status {result.rc}, {_said(result)}"


def _said(result: CommandResult) -> str:
    """The first line that tells something, or the first one."""
    lines = [line for line in map(printable, (result.out + "\n" + result.err).splitlines()) if line]
    telling = [line for line in lines if any(word in line for word in TELLING)] or lines or ["it gave no reason"]
    return telling[0][:160].rstrip(".")


TELLING = ("rror", "ERROR", "ifferences", "wrong", "free", "not ", "can't")
"""What a line has in it that says what is wrong; other lines name the program's version or its next step."""


def own_checker(name: str, module: ModuleType) -> Checker:
    """The checker that is a module of this collection, which lies in a folder or in the zip file of an Ansible module."""
    folder = os.path.abspath(str(module.__file__))
    for dummy in module.__name__.split("."):
        folder = os.path.dirname(folder)
    launch = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from {module.__name__} import main; sys.exit(main())"
    return Checker(name, [sys.executable or "python3", "-I", "-c", launch, folder], [LACKING])


@dataclass(frozen=True)
class FreeSpace:
    """How it is known what of a file system is free: the program of partclone that makes a map of it, and what proves the map right."""

    map_program: str
    checker: Checker


@dataclass(frozen=True)
class Grower:
    """The programs that grow a file system, and the commands, each with its good exit statuses. The device follows each command."""

    programs: tuple[str, ...]
    commands: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]


def while_mounted(command: str) -> tuple[str, ...]:
    """A shell command on the file system, mounted as ``$d`` where nobody else sees it."""
    script = f'set -e; d=$(mktemp -d); trap "rmdir $d" EXIT; mount "$1" "$d"; {command}; umount "$d"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


@dataclass(frozen=True)
class Files:
    """How a system is found in the files of a file system: its kind (``systems.WINDOWS`` or ``LINUX``), and what opens the files.

    Those that only the kernel can read are opened when they are clean, and not otherwise (``only_clean``). ``second_look`` corrects a distrust by
    what is in the files.
    """

    system: str
    open: Callable[[RunCommand, str], ContextManager[FileTree]]
    only_clean: bool = False
    second_look: Callable[[Distrust, FileTree], Distrust] | None = None


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system, or several that are alike. What is None can't be done with it.

    ``names`` are blkid's. ``size`` says by the first ``HEAD`` bytes how many bytes it has, 0 when they do not say it.

    ``check`` says why its account of its free space can't be believed, or returns None when the file system is proven clean. partclone is no judge of
    that: it exits 0 on a hibernated NTFS and on an ext4 whose journal was not replayed. Without ``free_space`` it is captured whole all the same.

    ``ways_out`` says, by the names of ``findings.CONTENT_CHECKS``, what a person can do about a finding.
    """

    names: tuple[str, ...]
    size: Callable[[bytes], int] | None = None
    check: Callable[[Probe], Distrust | None] | None = None
    free_space: FreeSpace | None = None
    grower: Grower | None = None
    files: Files | None = None
    ways_out: Mapping[str, str] = field(default_factory=dict)
