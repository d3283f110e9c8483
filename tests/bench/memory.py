# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peak memory of the processes that a playbook has on both machines, sampled while it runs.

What is sampled is mostly the kernel's own record of each process's peak (proc(5), VmHWM), so that little is missed in between.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

from ..lab.lab import Lab

INTERVAL = 0.1
# A worker's share of what it has in common with its parent and its siblings is seldom looked at: that takes the kernel long.
SHARE_EVERY = 5

MODULE = "module"
PARTCLONE = "partclone"
WORKER = "worker"
WORKER_SHARE = "worker (proportional share)"


class MemorySampler:
    """Samples, in a thread of its own, from entering to leaving it. Peaks are in bytes."""

    def __init__(self, lab: Lab, playbook: int) -> None:
        """Of all modules of the lab's laptops, and of the workers of a playbook by its process id."""
        self._folder = f"{lab.folder}/"
        self._disks = [laptop.disk for laptop in lab.laptops]
        self._playbook = playbook
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peaks: dict[str, int] = {}

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        turn = 0
        while not self._stop.wait(INTERVAL):
            self._on_laptops()
            self._workers(turn % SHARE_EVERY == 0)
            turn += 1

    def _on_laptops(self) -> None:
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                command = _read(process / "cmdline").replace("\0", " ")
                if f"{self._folder}" in command and "/AnsiballZ_image_" in command and "async_wrapper" not in command:
                    self._note(MODULE, process, _peak)
                elif "partclone." in command.partition(" ")[0] and any(disk in command for disk in self._disks):
                    self._note(PARTCLONE, process, _peak)

    def _workers(self, shares: bool) -> None:
        for child in _read(Path(f"/proc/{self._playbook}/task/{self._playbook}/children")).split():
            process = Path("/proc", child)
            # Others are ssh.
            if "ansible-playbook" in _read(process / "cmdline"):
                self._note(WORKER, process, _peak)
                if shares:
                    self._note(WORKER_SHARE, process, _share)

    def _note(self, role: str, process: Path, measure: Callable[[Path], int]) -> None:
        self.peaks[role] = max(self.peaks.get(role, 0), measure(process))


def _peak(process: Path) -> int:
    return _field("VmHWM", _read(process / "status"))


def _share(process: Path) -> int:
    return _field("Pss", _read(process / "smaps_rollup"))


def _field(name: str, text: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # It has ended.
