# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the programs that build a live system, with what they say in a log."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ...module_utils.disk.command import ending_with_parent, english, find_program
from ...module_utils.errors import ImagingError
from ...module_utils.printable import printable

NEEDED = {
    "mcopy": "mtools",
    "mkfs.fat": "dosfstools",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
    "unshare": "util-linux",
    "xorriso": "xorriso",
}
"""The programs, and the packages of Debian and Ubuntu that have them."""

SHOWN_LINES = 4
PATIENCE = 60.0
"""Seconds for programs to tidy up after an interruption."""


def check_programs(*packages: str) -> None:
    """Raise ImagingError, with what to install, when a program is missing; ``packages`` are missing in any case."""
    missing = sorted({*packages, *(package for name, package in NEEDED.items() if find_program(name) is None)})
    if missing:
        raise ImagingError(
            f"Building a live system needs more packages on this machine. Install them, as root: apt-get install "
            f"--no-install-recommends {' '.join(missing)}"
        )


class ProgramFailed(ImagingError):
    """A program failed. The message has the last lines that it wrote."""


class Programs:
    """Runs programs one after the other, or the first into the second."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        """``environment``: what is added to this process's own."""
        self._log = log
        self._environment = {**english(), **environment}

    def run(self, command: Sequence[str], into: Sequence[str] | None = None) -> None:
        """Run a program, or two with a pipe between them; raises ProgramFailed, and ends them when it is interrupted."""
        running: list[subprocess.Popen[bytes]] = []
        begin = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as log:
            try:
                running.append(self._start(command, log.fileno(), None, subprocess.PIPE if into else log.fileno()))
                output = running[0].stdout
                if into and output:
                    with output:  # closed here, so that the first one learns when the second one ends
                        running.append(self._start(into, log.fileno(), output, log.fileno()))
                for process in running:
                    process.wait()
            finally:
                for process in running:
                    _end(process)
        failed = [name[0] for name, process in zip((command, into or ()), running, strict=False) if process.returncode]
        if failed:
            raise ProgramFailed(f"{' and '.join(failed)} failed: {self._last_words(begin)}")

    def _start(self, command: Sequence[str], log: int, stdin: IO[bytes] | None, stdout: int) -> subprocess.Popen[bytes]:
        program = find_program(command[0])
        if program is None:
            raise ImagingError(f"The program {command[0]} is not installed on this machine.")
        return subprocess.Popen(
            ending_with_parent([program, *command[1:]]),
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout,
            stderr=log,
            env=self._environment,
            start_new_session=True,
        )

    def _last_words(self, begin: int) -> str:
        with open(self._log, "rb") as file:
            file.seek(begin)
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E: ", "Err:", "FATAL"))] or lines
        return printable(" / ".join(errors[:SHOWN_LINES])) or "it said nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program with all that it has started, unless it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                pass  # the next signal is stronger
