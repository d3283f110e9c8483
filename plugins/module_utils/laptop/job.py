# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder in which ``async_wrapper`` keeps a run's result for its controller: one for each run, named by its id.

Who collects the result removes the folder. When nobody will, the module does: ``async_wrapper`` then has no place for the result, and ends.
"""

from __future__ import annotations

import json
import os
import re
import time

from ..private_files import remove_own_folder

RUN_ID = re.compile(r"[0-9a-f]{16}")


def job_folder(run_id: str) -> str | None:
    """Where the result of this process's run will lie; None when it is not a run of that name."""
    path = os.path.expanduser(os.environ.get("ANSIBLE_ASYNC_DIR", ""))
    return path if os.path.basename(path) == run_id else None


def forget_job(run_id: str) -> None:
    """Have this process's run leave no result."""
    path = job_folder(run_id)
    if path is not None:
        remove_own_folder(path)


def forget_other_job(run_id: str) -> None:
    """Remove the result of another run, which lies beside this process's own."""
    own, name = os.path.split(os.path.expanduser(os.environ.get("ANSIBLE_ASYNC_DIR", "")))
    if RUN_ID.fullmatch(name) and RUN_ID.fullmatch(run_id):
        remove_own_folder(os.path.join(own, run_id))


def forget_uncollected(run_id: str, age: float) -> None:
    """Remove the results of earlier runs that lie there for so many seconds: nobody collects them any more."""
    own = job_folder(run_id)
    if own is None:
        return
    try:
        others = [entry for entry in os.scandir(os.path.dirname(own)) if RUN_ID.fullmatch(entry.name)]
    except OSError:
        return
    for other in others:
        if other.name != run_id and _ended_before(other.path, time.time() - age):
            remove_own_folder(other.path)


def _ended_before(folder: str, moment: float) -> bool:
    try:
        for entry in os.scandir(folder):
            if not entry.is_file(
                follow_symlinks=False
            ):  # nothing of async_wrapper's; to open a FIFO could take for ever
                return False
            with open(entry.path, encoding="utf-8") as file:
                job = json.load(file)
            # async_status: what says "started" and not "finished" still runs.
            if ("started" in job and not job.get("finished")) or entry.stat().st_mtime > moment:
                return False
    except (OSError, ValueError, AttributeError):
        return False
    return True
