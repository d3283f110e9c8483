# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the boot loaders on an EFI system partition, their machine types, and the one to start.

Sources: UEFI specification 2.10, section 3.5.1.1 (table 3.2: names of the fallback loader); Microsoft, PE format (machine types).
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from dataclasses import dataclass
from typing import Any, Iterator, Sequence

from ..private_files import scratch_folder
from .file_tree import FileTree

MACHINES = {
    0x014C: "ia32",
    0x01C2: "arm",
    0x5064: "riscv64",
    0x6264: "loongarch64",
    0x8664: "x64",
    0xAA64: "aa64",
}
"""UEFI's names of machine types in the names of loaders, by the number in the PE header."""

SUFFIX = "|".join(MACHINES.values())
FALLBACK = re.compile(rf"boot({SUFFIX})\.efi", re.I)
INSTALLED = [re.compile(rf"{kind}({SUFFIX})\.efi", re.I) for kind in ("shim", "grub", "systemd-boot")]
"""The loaders of Linux distributions, in order of preference: shim starts the GRUB beside it, also with Secure Boot."""

FALLBACK_FOLDER = "/EFI/BOOT"
WINDOWS = "/EFI/Microsoft/Boot/bootmgfw.efi"

PE_OFFSET = 0x3C
"""Offset of the field in an MZ header that contains the offset of the PE header."""

MAX_CHOICES = 16
PARTITION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}-[0-9a-f]{2}")
"""The id of a partition (the kernel's PARTUUID): its GUID, or the MBR's signature and the partition's number."""

LOADER = re.compile(r"(?=.{1,255}$)(/\w[\w .+-]*){2,}\.efi", re.I | re.A)
"""The valid paths of loaders from untrusted input."""


@dataclass(frozen=True)
class BootChoice:
    """A loader that a machine starts: the id of its partition (:data:`PARTITION`), and its path there, with slashes."""

    partition: str
    loader: str

    def to_json(self) -> dict[str, str]:
        """Return the form in an image's header and in results of modules."""
        return {"partition": self.partition, "loader": self.loader}


def boot_choices(value: Any) -> tuple[BootChoice, ...]:
    """Read an untrusted list in the form of :meth:`BootChoice.to_json`; invalid entries are left out."""
    choices = []
    for each in value[:MAX_CHOICES] if isinstance(value, (list, tuple)) else ():
        entry = each if isinstance(each, dict) else {}
        partition, loader = entry.get("partition"), entry.get("loader")
        if (
            isinstance(partition, str)
            and isinstance(loader, str)
            and PARTITION.fullmatch(partition)
            and LOADER.fullmatch(loader)
        ):
            choices.append(BootChoice(partition, loader))
    return tuple(choices)


@dataclass(frozen=True)
class Loader:
    """A loader on a partition. ``machine`` is UEFI's name of its machine type, empty when it has no PE header."""

    path: str
    machine: str
    digest: bytes


@dataclass(frozen=True)
class Loaders:
    """The loaders on one partition: those that a machine is known to have chosen, those of installed systems, and the fallback loaders."""

    chosen: tuple[Loader, ...]
    installed: tuple[Loader, ...]
    fallbacks: tuple[Loader, ...]

    def first(self) -> Loader | None:
        """The loader that comes first.

        This is the rule, also where several systems are on the disk:

        1. what the firmware of the reference was set to start, as the image notes it, and of several of these the first that is there;
        2. the loader that the fallback loader is a copy of: the reference started that if its firmware had no entry;
        3. shim, GRUB and systemd-boot before the loader of Windows, because they can start that, and it can't start them;
        4. a fallback loader, when there is nothing else.
        """
        copies = {fallback.digest for fallback in self.fallbacks}
        copied = [loader for loader in self.installed if loader.digest in copies]
        for candidates in (self.chosen, copied, self.installed, self.fallbacks):
            if candidates:
                return candidates[0]
        return None

    def fallback_for(self, loader: Loader | None) -> Loader | None:
        """Return the fallback loader for the machine type of a loader; any one when the type is unknown."""
        machine = loader.machine if loader else ""
        for fallback in self.fallbacks:
            if not machine or fallback_name(machine) == os.path.basename(fallback.path).upper():
                return fallback
        return None


def fallback_name(machine: str) -> str:
    """Return the name of the fallback loader for a machine type."""
    return f"boot{machine}.efi".upper()


def read_loaders(tree: FileTree, chosen: Sequence[str] = ()) -> Loaders:
    """Read the loaders of an EFI system partition; ``chosen`` are paths of additional ones. Raises ImagingError, MissingTool."""
    with scratch_folder() as folder:
        scratch = os.path.join(folder, "loader")

        def read(paths: Iterator[str]) -> tuple[Loader, ...]:
            return tuple(_read(tree, path, scratch) for path in paths)

        return Loaders(
            read(found for found in map(tree.find, chosen) if found),
            read(_installed(tree)),
            read(_fallbacks(tree)),
        )


def _installed(tree: FileTree) -> Iterator[str]:
    top = tree.find("/EFI")
    folders = [f"{top}/{name}" for name in tree.names(top) if name.lower() not in ("boot", "microsoft")] if top else []
    files = [(folder, name) for folder in folders for name in tree.names(folder)]
    for kind in INSTALLED:
        yield from (f"{folder}/{name}" for folder, name in files if kind.fullmatch(name))
    windows = tree.find(WINDOWS)
    if windows:
        yield windows


def _fallbacks(tree: FileTree) -> Iterator[str]:
    folder = tree.find(FALLBACK_FOLDER)
    for name in tree.names(folder) if folder else ():
        if FALLBACK.fullmatch(name):
            yield f"{folder}/{name}"


def _read(tree: FileTree, path: str, scratch: str) -> Loader:
    tree.save(path, scratch)
    with open(scratch, "rb") as file:
        content = file.read()
    os.unlink(scratch)
    return Loader(path, machine_of(content), hashlib.sha256(content).digest())


def machine_of(program: bytes) -> str:
    """Return UEFI's name of the machine type of a program in the PE format; empty for other files and unknown types."""
    if program[:2] != b"MZ" or len(program) < PE_OFFSET + 4:
        return ""
    (offset,) = struct.unpack_from("<I", program, PE_OFFSET)
    header = program[offset : offset + 6]
    if len(header) < 6 or header[:4] != b"PE\0\0":
        return ""
    return MACHINES.get(struct.unpack_from("<H", header, 4)[0], "")
