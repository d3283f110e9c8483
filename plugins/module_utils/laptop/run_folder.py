# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of run files (``run_file``), one for each transfer of a laptop.

The controller reads a file to learn port and state; a later run reads it to find out whether a disk or a port is still in use. Process ids
are compared together with the process's start time, because ids are reused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import stat
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Iterator

from ..disk.processes import stat_fields
from ..errors import ImagingError
from ..private_files import open_new, open_own, remove_own_folder
from ..run_file import CONNECTED, LISTENING, PAYLOAD, STARTING, SUFFIX, WAITING, Run, folder_path, unpack_run
from ..timeouts import DEFAULTS, Timeouts
from .job import remove_other_job

MAX_FILE_LENGTH = 64 << 10
"""Characters that are read of a run file: a path has 4096 bytes at the most, and three characters for each."""


def payload_folder() -> str:
    """The name of the folder that Ansible's wrapper has unpacked this process's module into; "" when there is none."""
    found = re.search(f"/({PAYLOAD})(/|$)", str(getattr(sys.modules.get("ansible"), "__file__", "")))
    return found[1] if found else ""


def clock() -> float:
    """Seconds since this machine was booted: live media often learn the time of day only after a while."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    fields = stat_fields(pid)
    return None if not fields or fields[0] in ("Z", "X") else int(fields[19])


class RunFolder:
    """The folder of run files, made on first use with mode 0700."""

    def __init__(self, path: str | None = None, timeouts: Timeouts = DEFAULTS) -> None:
        self.path = path or folder_path()
        self._timeouts = timeouts
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise ImagingError(f"{self.path} can't be made: {error.strerror}.") from error
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ImagingError(f"{self.path} is not a folder that belongs to this user alone: remove it and try again.")

    def _file(self, run_id: str) -> str:
        return os.path.join(self.path, run_id + SUFFIX)

    def write(self, run: Run) -> None:
        """Publish a run, whole or not at all."""
        path = self._file(run.run_id)
        Path(path + ".new").unlink(missing_ok=True)
        with open(open_new(path + ".new"), "w", encoding="utf-8") as file:
            file.write(run.pack())
        os.replace(path + ".new", path)

    def remove(self, run_id: str) -> None:
        """Take a run's file away."""
        Path(self._file(run_id)).unlink(missing_ok=True)

    def _read(self, name: str) -> Run | None:
        run = self._load(name)
        return run if run is not None and start_time(run.pid) == run.started else None

    def _load(self, name: str) -> Run | None:
        try:
            with open(os.path.join(self.path, name), encoding="utf-8") as file:
                run = unpack_run(file.read(MAX_FILE_LENGTH))
            return run if run.run_id + SUFFIX == name else None
        except (OSError, ValueError):
            return None

    def _remove_stale(self, name: str) -> None:
        """Remove what a run whose process is dead has left."""
        run = self._load(name)
        if run is not None:
            if re.fullmatch(PAYLOAD, run.payload):
                remove_own_folder(os.path.join(tempfile.gettempdir(), run.payload))
            remove_other_job(run.run_id)
        Path(os.path.join(self.path, name)).unlink(missing_ok=True)

    def alive(self) -> Iterator[Run]:
        """The runs whose process lives; files of dead ones are removed."""
        for name in sorted(os.listdir(self.path)):
            if not name.endswith(SUFFIX):
                continue
            run = self._read(name)
            if run is None:
                self._remove_stale(name)
            else:
                yield run

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(open_own(os.path.join(self.path, "lock")), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def enter(self, run: Run) -> list[str]:
        """Publish a new run, after ending those whose controller is gone and that are in its way; returns what was ended.

        Raises ImagingError when one that is in its way still has its controller.
        """
        ended = []
        with self._locked():
            for other in self.alive():
                if other.device == run.device or (run.port and other.port == run.port):
                    ended.append(self._displace(other, run))
            self.write(run)
        return ended

    def _wait_for_return(self, other: Run) -> Run:
        """A run as it is once its controller has had the time to come back after its link broke."""
        grace = self._timeouts.returning_grace
        while other.state == WAITING and clock() - other.since < grace:
            time.sleep(self._timeouts.poll)
            other = self._read(other.run_id + SUFFIX) or replace(other, since=-grace)
        return other

    def _displace(self, other: Run, run: Run) -> str:
        other = self._wait_for_return(other)
        idle = clock() - other.since
        if other.state == CONNECTED or (other.state in (STARTING, LISTENING) and idle < self._timeouts.starting_grace):
            raise ImagingError(
                f"{run.device}: another controller is at work here (process {other.pid}, {other.device}, port {other.port}, {other.state} for "
                f"{idle:.0f} seconds): wait until it is done, or end that run first."
            )
        end_process(other, self._timeouts)
        self.remove(other.run_id)
        return f"ended process {other.pid}, left over from a run whose controller is gone ({other.device}, port {other.port})"


def end_process(run: Run, timeouts: Timeouts) -> None:
    """End a run's process, by force if it does not go in time; raises ImagingError when even that fails."""
    for number, patience in ((signal.SIGTERM, timeouts.terminate), (signal.SIGKILL, timeouts.kill)):
        if start_time(run.pid) != run.started:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if start_time(run.pid) != run.started:
                return
            time.sleep(timeouts.poll / 4)
    raise ImagingError(
        f"Process {run.pid}, left over from an earlier run, does not end: reboot this laptop from its live medium."
    )
