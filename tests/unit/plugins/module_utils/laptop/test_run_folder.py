# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of one laptop that meet each other, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import (
    CONNECTED,
    FOLDER_SCRIPT,
    LISTENING,
    RETURNING_GRACE,
    STARTING_GRACE,
    WAITING,
    Run,
    RunFolder,
    clock,
    folder_path,
    start_time,
)

from ..samples import scratch_name


@pytest.fixture(name="process")
def fixture_process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: object) -> RunFolder:
    return RunFolder(scratch_name(tmp_path, "run"))


def run_of(
    process: subprocess.Popen[bytes], state: str, device: str = "/dev/sdx", port: int = 19000, age: float = 0.0
) -> Run:
    return Run("old", device, process.pid, start_time(process.pid) or 0, port, state, clock() - age)


def mine(device: str = "/dev/sdx", port: int = 19000) -> Run:
    return Run("new", device, os.getpid(), start_time(os.getpid()) or 0, port, LISTENING, clock())


def test_a_run_whose_controller_is_gone_is_ended_and_replaced(
    folder: RunFolder, process: subprocess.Popen[bytes]
) -> None:
    folder.write(run_of(process, WAITING, age=RETURNING_GRACE))
    notes = folder.enter(mine())
    assert process.wait(1) == -signal.SIGTERM
    assert len(notes) == 1 and str(process.pid) in notes[0]
    assert [run.run_id for run in folder.alive()] == ["new"]


@pytest.mark.parametrize(("state", "age"), [(CONNECTED, 9999.0), (LISTENING, 1.0)])
def test_a_run_with_its_controller_is_left_in_peace(
    folder: RunFolder, process: subprocess.Popen[bytes], state: str, age: float
) -> None:
    folder.write(run_of(process, state, age=age))
    with pytest.raises(ImagingError, match=f"another controller is at work here .process {process.pid}"):
        folder.enter(mine())
    assert process.poll() is None
    assert [run.run_id for run in folder.alive()] == ["old"]


def test_a_controller_whose_link_just_broke_is_waited_for(folder: RunFolder, process: subprocess.Popen[bytes]) -> None:
    folder.write(run_of(process, WAITING, age=RETURNING_GRACE - 5))
    back = threading.Timer(1, lambda: folder.write(run_of(process, CONNECTED)))
    back.start()
    with pytest.raises(ImagingError, match="another controller is at work"):
        folder.enter(mine())
    assert process.poll() is None


def test_a_run_that_never_got_its_controller_is_replaced_after_a_while(
    folder: RunFolder, process: subprocess.Popen[bytes]
) -> None:
    folder.write(run_of(process, LISTENING, age=STARTING_GRACE + 1))
    folder.enter(mine())
    assert process.wait(1) == -signal.SIGTERM


def test_another_disk_on_another_port_is_no_matter(folder: RunFolder, process: subprocess.Popen[bytes]) -> None:
    folder.write(run_of(process, CONNECTED, device="/dev/sdy", port=19001))
    assert folder.enter(mine()) == []
    assert process.poll() is None


def test_the_same_port_for_another_disk_is_in_the_way(folder: RunFolder, process: subprocess.Popen[bytes]) -> None:
    folder.write(run_of(process, CONNECTED, device="/dev/sdy"))
    with pytest.raises(ImagingError, match="port 19000"):
        folder.enter(mine())


def test_a_stopped_process_is_ended_by_force(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.fleet.imaging.plugins.module_utils.laptop import run_folder

    monkeypatch.setattr(run_folder, "ENDING_TIME", 0.5)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        folder.write(run_of(process, WAITING, age=RETURNING_GRACE))
        folder.enter(mine())
        assert process.wait(1) == -signal.SIGKILL


def test_files_of_dead_processes_and_of_reused_ids_count_for_nothing(
    folder: RunFolder, process: subprocess.Popen[bytes]
) -> None:
    reused = run_of(process, CONNECTED)
    reused.started -= 5
    folder.write(reused)
    assert folder.enter(mine()) == []
    assert process.poll() is None


def test_garbage_in_the_folder_is_cleared_away(folder: RunFolder) -> None:
    for name, text in (("a.json", "no json"), ("b.json", "[]"), ("c.json", '{"pid": 1}'), ("d.json", "")):
        with open(os.path.join(folder.path, name), "w", encoding="utf-8") as file:
            file.write(text)
    assert list(folder.alive()) == []
    assert not [name for name in os.listdir(folder.path) if name.endswith(".json")]


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: object) -> None:
    path = scratch_name(tmp_path, "run")
    os.mkdir(path)
    os.chmod(path, 0o777)
    with pytest.raises(ImagingError, match="belongs to this user alone"):
        RunFolder(path)


def test_the_shell_finds_the_same_folder() -> None:
    assert (
        subprocess.run(["sh", "-c", FOLDER_SCRIPT], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        == folder_path()
    )
