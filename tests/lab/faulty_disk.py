# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that fails where it is told to, and is as slow as it is told to be.

It is a loop device over a file of a FUSE file system of its own (faulty_file_system.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .disks import attach_loop_device, detach_loop_device
from .faulty_file_system import NAME
from .processes import MARK
from .tools import LabError, run

SERVER = Path(__file__).with_name("faulty_file_system.py")
SECONDS_TO_DETACH = 10.0
Ranges = Sequence[tuple[int, int]]


class FaultyDisk:
    """The disk, while it is there: ``device`` is its loop device."""

    def __init__(self, device: str, backing_file: Path, faults: Path) -> None:
        self.device = device
        self.backing_file = backing_file
        self._faults = faults
        self._told: dict[str, Any] = {"read_rate": 0, "write_rate": 0}

    def fail(self, read: Ranges = (), write: Ranges = (), gone: bool = False) -> None:
        """Have these requests fail from now on, and no others."""
        self._tell(read=read, write=write, gone=gone)

    def slow_down(self, read_rate: int, write_rate: int) -> None:
        """Have it read and write so many bytes a second from now on, at the most; 0 for as fast as it can."""
        self._tell(read_rate=read_rate, write_rate=write_rate)

    def _tell(self, **more: object) -> None:
        self._told.update(more)
        new = self._faults.with_suffix(".new")
        new.write_text(json.dumps(self._told))
        new.rename(self._faults)


@contextlib.contextmanager
def faulty_disk(backing_file: Path, folder: Path) -> Iterator[FaultyDisk]:
    """Have a faulty disk over a file; the folder, which must not exist, holds what it needs."""
    mount_point, faults = folder / "mount", folder / "faults.json"
    mount_point.mkdir(parents=True)
    disk = FaultyDisk("", backing_file, faults)
    disk.fail()
    server = subprocess.Popen(
        [sys.executable, SERVER, mount_point, backing_file, faults], env={**os.environ, MARK: str(folder)}
    )
    try:
        _wait_for(mount_point / NAME, server)
        disk.device = attach_loop_device(mount_point / NAME, direct_io=False)
        try:
            yield disk
        finally:
            disk.fail()
            disk.slow_down(0, 0)
            detach_loop_device(disk.device, mount_point / NAME, SECONDS_TO_DETACH)
    finally:
        if server.poll() is None:
            run("umount", "--lazy", mount_point)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGKILL)
            server.wait()


def _wait_for(path: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > deadline or server.poll() is not None:
            raise LabError(f"{path}: the file system did not come up (status {server.poll()})")
        time.sleep(0.02)
