# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads single values of the registry of a Windows that does not run, by hivexget (hivex).

What Windows keeps in its logs of a hive and has not written into it is not seen; a Windows that was shut down has nothing there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from ..errors import ImagingError
from ..printable import printable
from ..private_files import scratch_folder
from .command import RunCommand
from .file_tree import FileTree

HIVES = "/Windows/System32/config"
LARGEST_VALUE = 200
"""Characters of a value that are kept: those that are looked at are names and short commands."""

FIRST_WINDOWS_11 = 22000
"""The build number from which on Windows is 11, though its ProductName says 10 (Microsoft, "Windows 11 release information")."""


class NoRegistry(ImagingError):
    """The registry, or a part of it, can't be read."""


@dataclass(frozen=True)
class Registry:
    """What the registry says; nothing where it says nothing.

    Sources: Microsoft, "Windows Setup States" (ImageState); what sysprep leaves in SetupType and CmdLine is as observed, not documented.
    """

    product: str = ""
    edition: str = ""
    build: str = ""
    version: str = ""
    image_state: str = ""
    setup_type: str = ""
    command: str = ""
    computer_name: str = ""
    architecture: str = ""

    @property
    def name(self) -> str:
        """The product with its version, such as "Windows 11 Pro 23H2"."""
        product = self.product or "Windows"
        if self.build.isdigit() and int(self.build) >= FIRST_WINDOWS_11:
            product = product.replace("Windows 10", "Windows 11")
        return " ".join((product, self.version)).strip()


def read_registry(run: RunCommand, tree: FileTree) -> Registry:
    """The registry of the Windows in a file system; raises NoRegistry, MissingTool."""
    found = {}
    with scratch_folder() as folder:
        software = _Hive(run, tree, "SOFTWARE", folder)
        current = r"\Microsoft\Windows NT\CurrentVersion"
        found["product"] = software.value(current, "ProductName")
        found["edition"] = software.value(current, "EditionID")
        found["build"] = software.value(current, "CurrentBuild")
        found["version"] = software.value(current, "DisplayVersion") or software.value(current, "ReleaseId")
        found["image_state"] = software.value(r"\Microsoft\Windows\CurrentVersion\Setup\State", "ImageState").upper()
        system = _Hive(run, tree, "SYSTEM", folder)
        found["setup_type"] = system.value(r"\Setup", "SetupType")
        found["command"] = system.value(r"\Setup", "CmdLine")
        number = system.value(r"\Select", "Current")
        control = rf"\ControlSet{int(number):03d}\Control" if number.isdigit() else r"\ControlSet001\Control"
        found["computer_name"] = system.value(rf"{control}\ComputerName\ComputerName", "ComputerName")
        found["architecture"] = system.value(
            rf"{control}\Session Manager\Environment", "PROCESSOR_ARCHITECTURE"
        ).lower()
    return Registry(**{each.name: found[each.name] for each in fields(Registry)})


class _Hive:
    """A file of the registry, copied to where hivexget can read it."""

    def __init__(self, run: RunCommand, tree: FileTree, name: str, folder: str) -> None:
        self._run = run
        self._path = os.path.join(folder, name)
        place = tree.find(f"{HIVES}/{name}")
        if place is None:
            raise NoRegistry(f"there is no {name} in {HIVES}")
        tree.save(place, self._path)
        result = run(["hivexget", self._path, "\\"])
        if result.rc:
            raise NoRegistry(f"{place} can't be read ({result.complaint()})")

    def value(self, key: str, name: str) -> str:
        """A value as text, nothing when it is not there."""
        result = self._run(["hivexget", self._path, key, name])
        return "" if result.rc else printable(result.out[:LARGEST_VALUE])
