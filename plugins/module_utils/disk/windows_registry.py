# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads facts of an offline Windows from its registry."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Callable, Iterator

from ..errors import ImagingError
from ..printable import printable
from ..private_files import scratch_folder
from .command import MissingTool
from .file_tree import FileTree
from .hive import BadHive, Hive

CONFIG = "System32/config"
"""The folder of the hives in the Windows folder."""

LOGS = (".LOG1", ".LOG2", ".LOG")
"""The endings of a hive's logs; up to Windows XP there is one log, since then there are two."""

MAX_LOG_SIZE = 1 << 27
"""Maximum bytes of a log that are read; those of Windows have some ten MiB."""

MAX_VALUE_SIZE = 200
"""Maximum characters of a value; the values of interest are names and short commands."""

FIRST_WINDOWS_11 = 22000
"""The first build number of Windows 11, whose ProductName says 10 (Microsoft, "Windows 11 release information")."""


@dataclass(frozen=True)
class Registry:
    """The facts; unknown ones are empty. The state is None when it was not read, and ``unread`` says why.

    Sources: Microsoft, "Windows Setup States" (ImageState); SetupType and CmdLine after sysprep are as observed, not documented.
    """

    product: str = ""
    edition: str = ""
    build: str = ""
    version: str = ""
    image_state: str | None = None
    setup_type: str | None = None
    command: str | None = None
    computer_name: str = ""
    architecture: str = ""
    boot_execute: str = ""
    """The programs that the session manager runs first, such as a check of a disk."""

    unread: str = ""

    @property
    def name(self) -> str:
        """The product with its version, such as "Windows 11 Pro 23H2"."""
        product = self.product or "Windows"
        if self.build.isdecimal() and int(self.build) >= FIRST_WINDOWS_11:
            product = product.replace("Windows 10", "Windows 11")
        return " ".join((product, self.version)).strip()


def read_registry(tree: FileTree, windows: str) -> Registry:
    """Read the registry of the Windows in a folder of a file system, as far as possible; raises MissingTool."""
    registry, unread = Registry(), []
    for hive, read in (("SOFTWARE", _software), ("SYSTEM", _system)):
        try:
            registry = _with_hive(tree, f"{windows}/{CONFIG}/{hive}", read, registry)
        except MissingTool:
            raise
        except BadHive as error:
            unread.append(f"the hive {hive} can't be read: {error}")
        except (ImagingError, OSError) as error:
            unread.append(f"the hive {hive} was not read: {str(error).rstrip('.')}")
    return replace(registry, unread="; ".join(unread))


def _with_hive(tree: FileTree, path: str, read: Callable[[Hive, Registry], Registry], registry: Registry) -> Registry:
    """Return the registry with the facts of a hive, which is copied, because its logs may be written into it."""
    place = tree.find(path)
    if place is None:
        raise BadHive(f"there is no {path}")
    with scratch_folder() as folder:
        copy = os.path.join(folder, "hive")
        tree.save(place, copy)
        with open(copy, "r+b") as file:
            return read(Hive(file, _logs(tree, path, folder)), registry)


def _logs(tree: FileTree, path: str, folder: str) -> Iterator[bytes]:
    """Yield the logs of a hive, which are read only when they are needed."""
    for ending in LOGS:
        found = tree.find(path + ending)
        if found is not None:
            copy = os.path.join(folder, "log")
            tree.save(found, copy)
            with open(copy, "rb") as file:
                yield file.read(MAX_LOG_SIZE)


def _value(hive: Hive, key: str, name: str) -> str:
    return printable(hive.value(key, name).replace("\n", ", ")[:MAX_VALUE_SIZE])


def _software(hive: Hive, registry: Registry) -> Registry:
    current = r"Microsoft\Windows NT\CurrentVersion"
    return replace(
        registry,
        product=_value(hive, current, "ProductName"),
        edition=_value(hive, current, "EditionID"),
        build=_value(hive, current, "CurrentBuild"),
        version=_value(hive, current, "DisplayVersion") or _value(hive, current, "ReleaseId"),
        image_state=_value(hive, r"Microsoft\Windows\CurrentVersion\Setup\State", "ImageState").upper(),
    )


def _system(hive: Hive, registry: Registry) -> Registry:
    number = _value(hive, "Select", "Current")
    control = rf"ControlSet{int(number):03d}\Control" if number.isdecimal() else r"ControlSet001\Control"
    manager = rf"{control}\Session Manager"
    return replace(
        registry,
        setup_type=_value(hive, "Setup", "SetupType"),
        command=_value(hive, "Setup", "CmdLine"),
        computer_name=_value(hive, rf"{control}\ComputerName\ComputerName", "ComputerName"),
        architecture=_value(hive, rf"{manager}\Environment", "PROCESSOR_ARCHITECTURE").lower(),
        boot_execute=_value(hive, manager, "BootExecute"),
    )
