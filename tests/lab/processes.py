# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's processes: how they are marked, found and ended.

No process id is kept: every process of a lab carries a mark in its environment, which sshd hands on to its sessions, so
that whatever was started over SSH is found too, also when its parent has gone. sshd itself writes its title over its
environment; it is known by its configuration file, which the title names.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from .tools import LabError

MARK = "FLEET_IMAGING_LAB"
END_SECONDS = 10.0


def marked_processes(folder: Path) -> set[int]:
    """Return the ids of the living processes that belong to a folder of a lab, or to one below it, and their descendants."""
    found = set()
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state in "ZX":
                continue
            children.setdefault(int(parent), []).append(int(entry.name))
            if _is_marked(entry, folder):
                found.add(int(entry.name))
        except OSError:
            continue  # It has ended, or is another user's.
    return _with_descendants(found, children) - {os.getpid()}


def _is_marked(process: Path, folder: Path) -> bool:
    if sshd_configuration(process).startswith(f"{folder}/"):
        return True
    marks = re.findall(rf"(?:^|\0){MARK}=([^\0]*)", (process / "environ").read_bytes().decode(errors="replace"))
    return any(f"{mark}/".startswith(f"{folder}/") for mark in marks)


def sshd_configuration(process: Path) -> str:
    """Return the configuration file of a listening sshd; "" for any other process (a folder of /proc)."""
    title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found = re.match(r"(?:sshd: )?\S*/sshd -f (\S+) ", title)
    return found[1] if found else ""


def _with_descendants(found: set[int], children: dict[int, list[int]]) -> set[int]:
    everything = set()
    waiting = list(found)
    while waiting:
        process = waiting.pop()
        if process not in everything:
            everything.add(process)
            waiting += children.get(process, [])
    return everything


def end_processes(folder: Path) -> None:
    """Kill the processes of a lab's folder until there is none; raise LabError when some don't go."""
    deadline = time.monotonic() + END_SECONDS
    while processes := marked_processes(folder):
        if time.monotonic() > deadline:
            raise LabError(
                f"processes {sorted(processes)} of {folder} do not end; look what holds them and run this again"
            )
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass  # It went by itself.
        time.sleep(0.05)
