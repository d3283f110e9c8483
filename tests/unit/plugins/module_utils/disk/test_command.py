# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import (
    MissingTool,
    ending_with_parent,
    module_runner,
)


class Module:
    """The two methods of AnsibleModule that are used."""

    def __init__(self) -> None:
        self.ran: list[Any] = []

    def get_bin_path(self, name: str, opt_dirs: Any) -> str | None:
        return f"/usr/sbin/{name}" if name == "blkid" and "/usr/sbin" in opt_dirs else None

    def run_command(self, arguments: Any, **options: Any) -> Any:
        self.ran.append((arguments, options))
        return 3, "out", "err"


def test_a_program_is_found_in_the_system_folders_and_speaks_english() -> None:
    module = Module()
    result = module_runner(module)(["blkid", "-p", "/dev/sda"])
    ((arguments, options),) = module.ran
    assert arguments == ["/usr/sbin/blkid", "-p", "/dev/sda"]
    assert options["environ_update"]["LC_ALL"] == "C"
    assert (result.rc, result.out, result.err) == (3, "out", "err")
    assert result.complaint() == "exit status 3, err"


@pytest.mark.parametrize(
    ("program", "package"),
    [("sfdisk", "fdisk on Debian"), ("lsblk", "util-linux"), ("partclone.ntfs", "partclone"), ("other", "other")],
)
def test_a_missing_program_is_named_with_its_package(program: str, package: str) -> None:
    with pytest.raises(MissingTool, match=f"{program} is not installed.*package {package}"):
        module_runner(Module())([program])


def test_a_program_is_run_in_place_of_what_starts_it() -> None:
    started = subprocess.run(
        ending_with_parent(["/bin/sh", "-c", 'echo "$0" "$1"; exit 5', "a b", ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (started.returncode, started.stdout, started.stderr) == (5, "a b \n", "")


PARENT = """
import sys, threading
from ansible_collections.fleet.imaging.plugins.module_utils.disk.bounded_run import BoundedRun, Bounds
run = BoundedRun(Bounds(600, 1 << 30))
thread = threading.Thread(target=run, args=(["sh", "-c", "echo $$ >{file}.new; mv {file}.new {file}; exec sleep 30"],))
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")
def test_what_runs_beside_a_killed_process_ends_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = PARENT.format(file=file)
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": ":".join(sys.path)}) as parent:
        _wait_until(file.exists)
        parent.kill()
    _wait_until(lambda: not _lives(int(file.read_text())))


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
