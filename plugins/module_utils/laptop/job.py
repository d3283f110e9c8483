# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders that Ansible has for a run on a laptop.

In one ``async_wrapper`` keeps the result for the controller; it is named by the run's id. Who collects the result removes the folder. When
nobody will, the module does: ``async_wrapper`` then has no place for the result, and ends.

In the other lie the module and its ticket. ``async_wrapper`` removes it, and the controller, unless all are killed.
"""

from __future__ import annotations

import json
import os
import re

from ..disk.processes import processes, said_of
from ..private_files import remove_own_folder, settled
from ..ticket import TICKET

RUN_ID = re.compile(r"[0-9a-f]{16}")

FOLDER = re.compile(r"ansible-tmp-[0-9.]+-[0-9]+-[0-9]+")
"""The names of the folders that Ansible makes for modules: time, process id, a random number (ansible.plugins.shell)."""

OWN_MODULE = re.compile(r"AnsiballZ_image_(capture|restore|probe)\b.*")
"""The names of the modules' files in there."""


def job_folder(run_id: str) -> str | None:
    """Where the result of this process's run will lie; None when it is not a run of that name."""
    path = os.path.expanduser(os.environ.get("ANSIBLE_ASYNC_DIR", ""))
    return path if os.path.basename(path) == run_id else None


def remove_job(run_id: str) -> None:
    """Have this process's run leave no result."""
    path = job_folder(run_id)
    if path is not None:
        remove_own_folder(path)


def remove_other_job(run_id: str) -> None:
    """Remove the result of another run, which lies beside this process's own."""
    own, name = os.path.split(os.path.expanduser(os.environ.get("ANSIBLE_ASYNC_DIR", "")))
    if RUN_ID.fullmatch(name) and RUN_ID.fullmatch(run_id):
        remove_own_folder(os.path.join(own, run_id))


def remove_uncollected(run_id: str, age: float) -> None:
    """Remove the results of earlier runs that lie there for so many seconds, or will never come: nobody collects them any more."""
    own = job_folder(run_id)
    if own is None:
        return
    try:
        others = [entry for entry in os.scandir(os.path.dirname(own)) if RUN_ID.fullmatch(entry.name)]
    except OSError:
        return
    running = _command_lines() if len(others) > 1 else b""
    for other in others:
        if other.name != run_id and _ended(other.path, age, running):
            remove_own_folder(other.path)


def _ended(folder: str, age: float, running: bytes) -> bool:
    """Whether a result has lain in a folder for so long, or none will come: async_wrapper's command line has the job's name in it."""
    try:
        if not settled(os.stat(folder).st_mtime, age):
            return False
        for entry in os.scandir(folder):
            if not entry.is_file(
                follow_symlinks=False
            ):  # nothing of async_wrapper's; to open a FIFO could take for ever
                return False
            with open(entry.path, encoding="utf-8") as file:
                job = json.load(file)
            # async_status: what says "started" and not "finished" still runs, unless its wrapper was killed.
            if "started" in job and not job.get("finished") and os.fsencode(entry.name.partition(".")[0]) in running:
                return False
            if not settled(entry.stat().st_mtime, age):
                return False
    except (OSError, ValueError, AttributeError):
        return False
    return True


def remove_killed(ticket: str, age: float) -> None:
    """Remove the folders of earlier runs' modules, which lie beside that of this run's ticket, if they and all that started them were killed.

    Where a module runs, or async_wrapper waits for it, the folder is named in a command line. Where the ticket is still there, it is about to be
    started, unless it has lain there for ``age`` seconds. Never raises.
    """
    own = os.path.dirname(os.path.abspath(ticket))
    try:
        owner = os.stat(own).st_uid
        others = [entry for entry in os.scandir(os.path.dirname(own)) if FOLDER.fullmatch(entry.name)]
    except OSError:
        return
    killed = [entry for entry in others if entry.name != os.path.basename(own) and _abandoned(entry, age)]
    running = _command_lines() if killed else b""
    for entry in killed:
        if os.fsencode(entry.name) not in running:
            remove_own_folder(entry.path, owner)


def _abandoned(folder: os.DirEntry[str], age: float) -> bool:
    """Whether a module of a transfer lies in a folder, and nobody is about to start it."""
    try:
        names = os.listdir(folder.path) if folder.is_dir(follow_symlinks=False) else []
        if TICKET in names:
            return settled(folder.stat(follow_symlinks=False).st_mtime, age)
    except OSError:  # it has gone
        return False
    return any(OWN_MODULE.fullmatch(name) for name in names)


def _command_lines() -> bytes:
    """Those of all other processes that can be seen."""
    return b"\n".join(said_of(pid, "cmdline") for pid, _name in processes())
