# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Finds the operating systems on a disk by their files, and whether a Windows was generalized by sysprep.

Source: Microsoft, "Windows Setup States": the states, and that Windows/Setup/State/State.ini and the registry name the one that holds. That
sysprep makes Sysprep_succeeded.tag when it is through, and removes it when it begins, is what its log says; that a Windows which waits for
its first start has SetupType 2 and starts windeploy is what administrators have found.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from ..errors import ImagingError
from .command import RunCommand, printable
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


def find_system(run: RunCommand, tree: FileTree) -> System | None:
    """The system whose files are in a file system, or None; raises MissingTool."""
    if tree.find("/Windows/System32/config") is not None:
        return _windows(run, tree)
    release = tree.read("/usr/lib/os-release") or tree.read("/etc/os-release")
    return _linux(tree, release) if release else None


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


def _linux(tree: FileTree, release: bytes) -> System:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', release.decode("utf-8", "replace"), re.MULTILINE)
    evidence = []
    machine_id = tree.read("/etc/machine-id")
    if machine_id and machine_id.strip() not in (b"", b"uninitialized"):
        evidence.append("it has a machine-id, which all copies will share: truncate /etc/machine-id")
    if any(re.fullmatch(r"ssh_host_\w+_key", name) for name in tree.names("/etc/ssh")):
        evidence.append("it has SSH host keys, which all copies will share: rm /etc/ssh/ssh_host_*")
    if "70-persistent-net.rules" in tree.names("/etc/udev/rules.d"):
        evidence.append(
            "it binds names of network interfaces to this machine's: rm /etc/udev/rules.d/70-persistent-net.rules"
        )
    if "instance" in tree.names("/var/lib/cloud"):
        evidence.append("it has state of cloud-init: cloud-init clean")
    name = printable(found[1]) if found else "Linux"
    host = printable((tree.read("/etc/hostname") or b"").decode("utf-8", "replace").split("\n")[0])
    return System("linux", name, UNKNOWN, "", evidence, architecture=_architecture(tree), computer_name=host)


MACHINES = {3: "x86", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}
"""The machines of ELF files (e_machine), by the names that Windows has for them too."""

PROGRAMS = ("/usr/bin/mount", "/bin/mount", "/usr/bin/env", "/bin/busybox")


def _architecture(tree: FileTree) -> str:
    """The machine that a system's programs are for, as the first of them that is there says (elf(5))."""
    for program in PROGRAMS:
        head = (tree.read(program) or b"")[:20]
        if len(head) == 20 and head[:4] == b"\x7fELF":
            (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:])
            return MACHINES.get(machine, f"machine {machine}")
    return ""
