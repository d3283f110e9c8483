# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot loaders on an EFI system partition: for which kind of machine they are, and which of them comes first.

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
"""What UEFI calls a machine in the names of loaders, by the number that a PE header has for it."""

SUFFIX = "|".join(MACHINES.values())
FALLBACK = re.compile(rf"boot({SUFFIX})\.efi", re.I)
INSTALLED = [re.compile(rf"{kind}({SUFFIX})\.efi", re.I) for kind in ("shim", "grub", "systemd-boot")]
"""The loaders of Linux distributions, the best first: shim starts the GRUB beside it, also with Secure Boot."""

FALLBACK_FOLDER = "/EFI/BOOT"
WINDOWS = "/EFI/Microsoft/Boot/bootmgfw.efi"

PE_OFFSET = 0x3C
"""Where an MZ header has the offset of the PE header."""

MAX_CHOICES = 16
PARTITION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}-[0-9a-f]{2}")
"""What tells a partition from others (the kernel's PARTUUID): its GUID, or the MBR's signature and the partition's number."""

LOADER = re.compile(r"(?=.{1,255}$)(/\w[\w .+-]*){2,}\.efi", re.I | re.A)
"""The path of a loader as far as it is taken from outside; a wildcard of mtools is none."""


@dataclass(frozen=True)
class BootChoice:
    """A loader that a machine starts: the partition it lies on (see :data:`PARTITION`), and its path there, with slashes."""

    partition: str
    loader: str

    def to_json(self) -> dict[str, str]:
        """The form in which an image's header and results of modules have it."""
        return {"partition": self.partition, "loader": self.loader}


def boot_choices(value: Any) -> tuple[BootChoice, ...]:
    """Read a list of choices in the form of :meth:`BootChoice.to_json`, trusting none of it; what is not well-formed is left out."""
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
    """A loader on a partition. ``machine`` is what it is for by its PE header, in UEFI's word, and empty when it has no such header."""

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
        """The fallback loader for the machine that a loader is for; any, when that is not known."""
        machine = loader.machine if loader else ""
        for fallback in self.fallbacks:
            if not machine or fallback_name(machine) == os.path.basename(fallback.path).upper():
                return fallback
        return None


def fallback_name(machine: str) -> str:
    """The name of the fallback loader for a machine."""
    return f"boot{machine}.efi".upper()


def read_loaders(tree: FileTree, chosen: Sequence[str] = ()) -> Loaders:
    """Read the loaders of an EFI system partition; ``chosen`` are paths of others to look for. Raises ImagingError, MissingTool."""
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
    """The machine that a program in the PE format is for, in UEFI's word; nothing when it is none, or for another machine."""
    if program[:2] != b"MZ" or len(program) < PE_OFFSET + 4:
        return ""
    (offset,) = struct.unpack_from("<I", program, PE_OFFSET)
    header = program[offset : offset + 6]
    if len(header) < 6 or header[:4] != b"PE\0\0":
        return ""
    return MACHINES.get(struct.unpack_from("<H", header, 4)[0], "")
