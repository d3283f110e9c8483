# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file in which Ansible keeps the result of a detached module until the controller asks for it.

A controller that was killed, or has no way to this laptop any more, never asks, and a live system has its files in memory.
"""

from __future__ import annotations

import glob
import os
import time

PAUSE = 0.5


def find_job_files() -> str:
    """The pattern of this module's job file; empty when it was not started by async_wrapper.

    Source: ansible-core's modules/async_wrapper.py: its first argument is the name of the job, to which it adds its process id.
    """
    try:
        with open(f"/proc/{os.getppid()}/cmdline", encoding="utf-8", errors="replace") as file:
            arguments = file.read().split("\0")
    except OSError:
        return ""
    for position, argument in enumerate(arguments[:-2]):
        if "async_wrapper" in os.path.basename(argument) and arguments[position + 1].startswith("j"):
            folder = os.path.expanduser(os.environ.get("ANSIBLE_ASYNC_DIR", "~/.ansible_async"))
            return os.path.join(glob.escape(folder), glob.escape(arguments[position + 1]) + ".*")
    return ""


def remove_unless_asked_for(patience: float) -> None:
    """Have the job file removed after so many seconds by a process of its own, which ends once the controller has done so."""
    pattern = find_job_files()
    if not pattern or os.fork():
        return
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        os.closerange(3, 4096)
        deadline = time.monotonic() + patience
        while glob.glob(pattern) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        for path in glob.glob(pattern):
            os.unlink(path)
    finally:
        os._exit(0)
