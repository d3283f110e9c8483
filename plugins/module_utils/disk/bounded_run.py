# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program within limits of time and memory, while other work goes on. It can be stopped at any time, and ends with this process."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

from ..errors import ImagingError
from ..quantities import size
from .command import CommandResult, MissingTool, ending_with_parent, english, find_program
from .processes import said_of

TICK = 0.2
"""Seconds between two checks of the limits."""

KEPT = 64 << 10
"""Bytes that are kept of each output of a program; the rest is read and dropped."""

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Bounds:
    """The limits of a program: seconds, and bytes of resident memory."""

    seconds: float
    memory: int


class OutOfBounds(ImagingError):
    """A program exceeded a limit, and was ended."""


class Stopped(Exception):
    """A program was ended because its result is not needed any more."""


class BoundedRun:
    """A ``RunCommand`` for a separate thread. It runs one program at a time."""

    def __init__(self, bounds: Bounds, find: Callable[[str], str | None] = find_program) -> None:
        self.bounds = bounds
        self._find = find
        self._stop = threading.Event()

    def finds(self, program: str) -> bool:
        """Return whether a program is installed."""
        return self._find(program) is not None

    def stop(self) -> None:
        """End the running program within a tick, and start no other one. May be called by any thread."""
        self._stop.set()

    def __call__(self, command: Sequence[str]) -> CommandResult:
        """Run a program to its end; raises MissingTool, OutOfBounds, Stopped, OSError."""
        program = self._find(command[0])
        if program is None:
            raise MissingTool(command[0])
        if self._stop.is_set():
            raise Stopped
        process = subprocess.Popen(
            ending_with_parent([program, *command[1:]]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=english(),
        )
        with process:
            try:
                _first_to_be_ended(process.pid)
                return self._follow(process, command[0])
            finally:
                process.kill()

    def _follow(self, process: subprocess.Popen[bytes], name: str) -> CommandResult:
        deadline = time.monotonic() + self.bounds.seconds
        outputs = [bytearray(), bytearray()]
        with selectors.DefaultSelector() as selector:
            for pipe, kept in zip((process.stdout, process.stderr), outputs):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, kept)
            while selector.get_map():
                for key, _events in selector.select(TICK):
                    data = os.read(key.fd, KEPT)
                    if not data:
                        selector.unregister(key.fileobj)
                    key.data.extend(data[: KEPT - len(key.data)])
                self._check(process.pid, name, deadline)
        while process.poll() is None:
            self._check(process.pid, name, deadline)
            time.sleep(TICK / 10)
        out, err = (kept.decode(errors="replace") for kept in outputs)
        return CommandResult(process.returncode, out, err)

    def _check(self, pid: int, name: str, deadline: float) -> None:
        if self._stop.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise OutOfBounds(f"{name} did not finish within {self.bounds.seconds:.0f} seconds.")
        if _resident(pid) > self.bounds.memory:
            raise OutOfBounds(f"{name} took more than {size(self.bounds.memory)} of memory.")


def _first_to_be_ended(pid: int) -> None:
    """Let the kernel end this process first when memory runs out."""
    with contextlib.suppress(OSError):  # it has ended already, or this is no Linux
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


def _resident(pid: int) -> int:
    fields = said_of(pid, "statm").split()
    return int(fields[1]) * PAGE if fields else 0
