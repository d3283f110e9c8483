# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Finds the operating systems on a disk by their files, and whether a Windows was generalized by sysprep.

Source: Microsoft, "Windows Setup States": the states, and that Windows/Setup/State/State.ini names the one that holds. That
sysprep makes Sysprep_succeeded.tag when it is through, and removes it when it begins, is what its log says. The registry is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .command import printable
from .file_tree import FileTree

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


def find_system(tree: FileTree) -> System | None:
    """The system whose files are in a file system, or None; raises MissingTool."""
    if tree.find("/Windows/System32/config") is not None:
        return _windows(tree)
    release = tree.read("/usr/lib/os-release") or tree.read("/etc/os-release")
    return _linux(tree, release) if release else None


def _windows(tree: FileTree) -> System:
    state = _image_state(tree.read("/Windows/Setup/State/State.ini"))
    tag = tree.find("/Windows/System32/Sysprep/Sysprep_succeeded.tag") is not None
    evidence = [
        f"State.ini says {state or 'nothing'}",
        "Sysprep_succeeded.tag is there" if tag else "there is no Sysprep_succeeded.tag",
    ]
    if state == READY and tag:
        return System("windows", "Windows", GENERALIZED, "", evidence)
    if state == READY:
        problem = "is marked as generalized, but sysprep did not say that it succeeded: it failed half-way, or the mark is of an earlier run"
    elif not state:
        problem = "does not say in which state it is" + (", though sysprep has succeeded some time" if tag else "")
    else:
        problem = f"is {STATES.get(state, 'in a state that is not known')}"
    return System("windows", "Windows", NOT_GENERALIZED, problem, evidence)


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
    return System("linux", printable(found[1]) if found else "Linux", UNKNOWN, "", evidence)
