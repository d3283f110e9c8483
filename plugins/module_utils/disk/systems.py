# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Finds a Windows by its files, and whether it was generalized by sysprep.

Source: Microsoft, "Windows Setup States": the states, and that Windows/Setup/State/State.ini and the registry name the one that holds. That
sysprep makes Sysprep_succeeded.tag when it is through, and removes it when it begins, is what its log says; that a Windows which waits for
its first start has SetupType 2 and starts windeploy is what administrators have found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterator

from ..printable import printable
from .file_tree import FileTree
from .windows_registry import CONFIG, MAX_VALUE_SIZE, Registry, read_registry

WINDOWS, LINUX = "windows", "linux"
"""Kinds of systems."""

GENERALIZED = "generalized"
NOT_GENERALIZED = "not generalized"
UNKNOWN = "unknown"

READY = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
STATES = {
    READY: "generalized, and ready for its first start",
    "IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT": "generalized for audit mode, in which it would start next",
    "IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE": "specialized for this machine: sysprep was run without /generalize, or its first start has begun",
    "IMAGE_STATE_SPECIALIZE_RESEAL_TO_AUDIT": "specialized for this machine: sysprep was run without /generalize, or its start into audit mode began",
    "IMAGE_STATE_UNDEPLOYABLE": "in a state that can't be deployed: sysprep or setup was interrupted, or it is in audit mode",
    "IMAGE_STATE_COMPLETE": "set up for this machine: sysprep was not run, or it was started since",
}

SYSPREP = "run sysprep /generalize /oobe /shutdown on it, and do not start it from its disk again"
KNOW_STATE = f"start it from its disk, and if it starts, {SYSPREP}; if not, have the disk checked (chkdsk /f) or set the reference up anew"


@dataclass(frozen=True)
class Shared:
    """Something that must be unique to each machine, and the shell command that clears it, for chroot in that system."""

    what: str
    clear: str


@dataclass(frozen=True)
class System:
    """An operating system or a part of one: its kind, its name, and its generalization with the evidence."""

    kind: str
    name: str
    generalization: str = UNKNOWN
    problem: str = ""
    """Why it is not fit to be captured."""
    evidence: list[str] = field(default_factory=list)
    edition: str = ""
    build: str = ""
    architecture: str = ""
    computer_name: str = ""
    unread: str = ""
    """Why the registry, or a part of it, was not read; empty if it was."""
    notes: list[str] = field(default_factory=list)
    """Unusual facts of a Windows that do not affect its state."""
    shared: list[Shared] = field(default_factory=list)
    """Identities of a Linux that its copies would share."""
    apart: list[str] = field(default_factory=list)
    """Folders of a Linux that were not examined, because they are separate file systems."""
    partition: int = 0
    """The number of its partition, as in ``Finding``."""


def find_windows(tree: FileTree) -> System | None:
    """The Windows whose files are in a file system, or None; raises ImagingError, MissingTool.

    The first that is found counts, and \\Windows is looked into first.
    """
    found = _folders(tree)
    return _windows(tree, found[0], found[1:]) if found else None


WINDOWS_FOLDER = "Windows"
"""The usual folder of a Windows."""

FIRST_START = "2"
"""SetupType of a Windows whose next start continues its setup by CmdLine."""

DEPLOY = "windeploy"

BOOT_EXECUTE = "autocheck autochk *"
"""The usual first program of a Windows: a check of marked disks (Microsoft, "autochk"). It has arguments when a check was requested."""

ANSWERS = ("Panther/Unattend/unattend.xml", "Panther/unattend.xml")
"""The answer files that Windows Setup has kept, in the order in which it looks for one (Microsoft, "Windows Setup Automation Overview")."""

RANDOM_NAME = "*"
"""A ComputerName that makes Windows invent one."""


def _folders(tree: FileTree) -> list[str]:
    """Return the paths of folders that contain a Windows."""
    names = sorted(tree.names("/"), key=lambda name: (name.lower() != WINDOWS_FOLDER.lower(), name))
    return [f"/{name}" for name in names if tree.find(f"/{name}/{CONFIG}") is not None]


def _windows(tree: FileTree, folder: str, others: list[str]) -> System:
    state = _image_state(tree.read(f"{folder}/Setup/State/State.ini"))
    tag = tree.find(f"{folder}/System32/Sysprep/Sysprep_succeeded.tag") is not None
    registry = read_registry(tree, folder)
    names = {"ImageState": registry.image_state, "SetupType": registry.setup_type, "CmdLine": registry.command}
    said = [f"{name} {value or 'nothing'}" for name, value in names.items() if value is not None]
    evidence = [
        f"State.ini says {state or 'nothing'}",
        "Sysprep_succeeded.tag is there" if tag else "there is no Sysprep_succeeded.tag",
        *([f"the registry says {', '.join(said)}"] if said else []),
        *([registry.unread] if registry.unread else []),
    ]
    problem = _problem(state, tag, registry)
    sure = UNKNOWN if registry.unread else GENERALIZED
    return System(
        kind=WINDOWS,
        name=registry.name,
        generalization=NOT_GENERALIZED if problem else sure,
        problem=problem,
        evidence=evidence,
        edition=registry.edition,
        build=registry.build,
        architecture=registry.architecture,
        computer_name=registry.computer_name,
        unread=registry.unread,
        notes=list(_notes(tree, folder, others, registry)),
    )


def _notes(tree: FileTree, folder: str, others: list[str], registry: Registry) -> Iterator[str]:
    if folder.lower() != f"/{WINDOWS_FOLDER}".lower():
        yield f"it lies in {printable(folder)}, not in /{WINDOWS_FOLDER}"
    if others:
        yield f"another Windows, in {printable(', '.join(others))}, was not examined"
    if registry.boot_execute not in ("", BOOT_EXECUTE):
        yield f"the next start of every copy first runs a check of a disk or another program (BootExecute: {registry.boot_execute})"
    for answers in ANSWERS:
        name = _computer_name(tree.read(f"{folder}/{answers}"))
        if name and name != RANDOM_NAME:
            yield f"its cached answer file {answers} has the ComputerName {name}, which all copies will get"
            return


def _computer_name(content: bytes | None) -> str:
    """Return the ComputerName in an answer file (Microsoft, "ComputerName" of Microsoft-Windows-Shell-Setup); empty when there is none."""
    text = (content or b"").replace(b"\0", b"").decode("utf-8", "replace")
    found = re.search(r"<ComputerName>\s*([^<]*?)\s*</ComputerName>", text)
    return printable(found[1])[:MAX_VALUE_SIZE] if found else ""


def _problem(state: str, tag: bool, registry: Registry) -> str:
    """Return why a Windows is not ready for its first start on another machine; empty when it is."""
    known = registry.image_state
    if known is not None and known != state and READY in (state, known):
        return "contradicts itself: its State.ini and its registry do not agree. Sysprep failed half-way, or something was changed since"
    if not state:
        return "does not say in which state it is" + (", though sysprep has succeeded some time" if tag else "")
    if state != READY:
        return f"is {STATES.get(state, 'in a state that is not known')}"
    if not tag:
        return "is marked as generalized, but sysprep did not say that it succeeded: it failed half-way, or the mark is of an earlier run"
    if registry.command is not None and not (registry.setup_type == FIRST_START and DEPLOY in registry.command.lower()):
        return "is marked as generalized, but its registry does not have it go through its first start: it contradicts itself"
    return ""


def _image_state(content: bytes | None) -> str:
    """Return the state in a State.ini, which is in UTF-16 or in a single-byte encoding."""
    if not content:
        return ""
    text = content.replace(b"\0", b"").decode("ascii", "replace")
    found = re.search(r"^\s*ImageState\s*=\s*(\w+)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return found[1].upper() if found else ""
