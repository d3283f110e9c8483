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

from ..errors import ImagingError
from .command import RunCommand
from .file_tree import FileTree
from .registry import Registry, read_registry

GENERALIZED = "generalized"
NOT_GENERALIZED = "not generalized"
UNKNOWN = "unknown"

READY = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
STATES = {
    READY: "generalized, and ready for its first start",
    "IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT": "generalized for audit mode, in which it would start next",
    "IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE": "in the middle of its first start: it is this machine's by now",
    "IMAGE_STATE_SPECIALIZE_RESEAL_TO_AUDIT": "in the middle of its first start into audit mode: it is this machine's by now",
    "IMAGE_STATE_UNDEPLOYABLE": "in a state that can't be deployed: sysprep or setup was interrupted, or it is in audit mode",
    "IMAGE_STATE_COMPLETE": "set up for this machine: sysprep was not run, or it was started since",
}

SYSPREP = "run sysprep /generalize /oobe /shutdown on it, and do not start it from its disk again"


@dataclass(frozen=True)
class Shared:
    """Something that must differ from machine to machine, and the command of a shell that clears it, run by chroot in that system."""

    what: str
    clear: str


@dataclass(frozen=True)
class System:
    """An operating system: "windows" or "linux", its name, and what is known of its generalization, with the evidence."""

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
    """Why the registry was not read, if it was not."""
    shared: list[Shared] = field(default_factory=list)
    """What makes a Linux one among others, and what its copies would have in common."""
    apart: list[str] = field(default_factory=list)
    """Folders of a Linux that were not looked into, because they are file systems of their own."""
    partition: int = 0
    """Where it is, as in ``Finding``."""


def find_windows(run: RunCommand, tree: FileTree) -> System | None:
    """The Windows whose files are in a file system, or None; raises MissingTool."""
    return None if tree.find("/Windows/System32/config") is None else _windows(run, tree)


FIRST_START = "2"
"""SetupType of a Windows whose next start goes on with its setup, by CmdLine."""

DEPLOY = "windeploy"


def _windows(run: RunCommand, tree: FileTree) -> System:
    state = _image_state(tree.read("/Windows/Setup/State/State.ini"))
    tag = tree.find("/Windows/System32/Sysprep/Sysprep_succeeded.tag") is not None
    evidence = [
        f"State.ini says {state or 'nothing'}",
        "Sysprep_succeeded.tag is there" if tag else "there is no Sysprep_succeeded.tag",
    ]
    registry, unread = Registry(), ""
    try:
        registry = read_registry(run, tree)
        evidence.append(
            f"the registry says ImageState {registry.image_state or 'nothing'}, SetupType {registry.setup_type or 'nothing'}, "
            f"CmdLine {registry.command or 'nothing'}"
        )
    except (ImagingError, OSError) as error:
        unread = str(error).rstrip(".")
        evidence.append(f"the registry was not read: {unread}")
    problem = _problem(state, tag, None if unread else registry)
    return System(
        "windows",
        registry.name,
        NOT_GENERALIZED if problem else GENERALIZED,
        problem,
        evidence,
        registry.edition,
        registry.build,
        registry.architecture,
        registry.computer_name,
        unread,
    )


def _problem(state: str, tag: bool, registry: Registry | None) -> str:
    """What speaks against a Windows being ready for its first start on another machine; nothing when all signs agree that it is."""
    if registry is not None and registry.image_state != state and READY in (state, registry.image_state):
        return "contradicts itself: its State.ini and its registry do not agree, so that sysprep failed half-way, or something was changed since"
    if not state:
        return "does not say in which state it is" + (", though sysprep has succeeded some time" if tag else "")
    if state != READY:
        return f"is {STATES.get(state, 'in a state that is not known')}"
    if not tag:
        return "is marked as generalized, but sysprep did not say that it succeeded: it failed half-way, or the mark is of an earlier run"
    if registry is not None and not (registry.setup_type == FIRST_START and DEPLOY in registry.command.lower()):
        return "is marked as generalized, but its registry does not have it go through its first start: it contradicts itself"
    return ""


def _image_state(content: bytes | None) -> str:
    """The state in a State.ini, which is in UTF-16 or in one byte a character."""
    if not content:
        return ""
    text = content.replace(b"\0", b"").decode("ascii", "replace")
    found = re.search(r"^\s*ImageState\s*=\s*(\w+)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return found[1].upper() if found else ""
