# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of one laptop that meet each other, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import (
    RunFolder,
    clock,
    start_time,
)
from ansible_collections.fleet.imaging.plugins.module_utils.run_file import (
    CONNECTED,
    FOLDER_SCRIPT,
    LISTENING,
    SUFFIX,
    WAITING,
    Run,
    folder_path,
)
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS, Timeouts

from ..samples import scratch_name

NOBODY = 65534


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
    return replace(
        mine(device, port),
        run_id="old",
        pid=process.pid,
        started=started(process.pid),
        state=state,
        since=clock() - age,
    )


def mine(device: str = "/dev/sdx", port: int = 19000) -> Run:
    return Run(
        pid=os.getpid(),
        started=started(os.getpid()),
        port=port,
        state=LISTENING,
        since=clock(),
        payload="",
        device=device,
        networks="198.51.100.0/24,2001:db8::/64",
        run_id="new",
    )


def started(pid: int) -> int:
    return start_time(pid) or 0


def test_a_run_whose_controller_is_gone_is_ended_and_replaced(
    folder: RunFolder, process: subprocess.Popen[bytes]
) -> None:
    folder.write(run_of(process, WAITING, age=DEFAULTS.returning_grace))
    notes = folder.enter(mine())
    assert process.wait(1) == -signal.SIGTERM
    assert len(notes) == 1 and str(process.pid) in notes[0]
    assert [run.run_id for run in folder.alive()] == ["new"]


def test_of_a_disk_that_is_to_be_released_only_a_run_without_its_controller_is_ended(
    folder: RunFolder, process: subprocess.Popen[bytes]
) -> None:
    folder.write(run_of(process, CONNECTED, age=9999.0))
    assert folder.end_abandoned("/dev/sdx") == []
    folder.write(run_of(process, WAITING, age=DEFAULTS.returning_grace))
    assert folder.end_abandoned("/dev/sdy") == [] and process.poll() is None
    (ended,) = folder.end_abandoned("/dev/sdx")
    assert str(process.pid) in ended and process.wait(1) == -signal.SIGTERM
    assert list(folder.alive()) == []


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
    folder.write(run_of(process, WAITING, age=DEFAULTS.returning_grace - 5))
    back = threading.Timer(1, lambda: folder.write(run_of(process, CONNECTED)))
    back.start()
    with pytest.raises(ImagingError, match="another controller is at work"):
        folder.enter(mine())
    assert process.poll() is None


def test_a_run_that_never_got_its_controller_is_replaced_after_a_while(
    folder: RunFolder, process: subprocess.Popen[bytes]
) -> None:
    folder.write(run_of(process, LISTENING, age=DEFAULTS.starting_grace + 1))
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


def test_a_stopped_process_is_ended_by_force(tmp_path: Path) -> None:
    folder = RunFolder(scratch_name(tmp_path, "run"), Timeouts(terminate=0.5))
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        folder.write(run_of(process, WAITING, age=DEFAULTS.returning_grace))
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
    for name, text in (("a.run", "no run"), ("b.run", "=" * 99), ("c.run", "pid=1\n"), ("d.run", "")):
        with open(os.path.join(folder.path, name), "w", encoding="utf-8") as file:
            file.write(text)
    assert list(folder.alive()) == []
    assert not [name for name in os.listdir(folder.path) if name.endswith(SUFFIX)]


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: object) -> None:
    path = scratch_name(tmp_path, "run")
    os.mkdir(path)
    os.chmod(path, 0o777)
    with pytest.raises(ImagingError, match="belongs to this user alone"):
        RunFolder(path)


def write_run(folder: RunFolder, name: str, **values: object) -> None:
    value = dict(asdict(mine()), **{"since": "1.000", "run_id": "0123456789abcdef", "pid": 1 << 22, **values})
    with open(os.path.join(folder.path, name), "w", encoding="utf-8") as file:
        file.write("".join(f"{name}={said}\n" for name, said in value.items()))


@pytest.mark.parametrize(
    "there", ["ansible_a_payload_b", "../victim/ansible_a_payload_b", "/{victim}/ansible_a_payload_b", ""]
)
def test_what_a_dead_run_has_left_is_found_by_its_name_alone(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    temporary, victim, jobs = tmp_path / "tmp", tmp_path / "victim", tmp_path / "jobs"
    for made in (temporary / "ansible_a_payload_b", victim / "ansible_a_payload_b", victim / "0123456789abcdef"):
        made.mkdir(parents=True)
    for run_id in ("0123456789abcdef", "fedcba9876543210"):
        (jobs / run_id).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("ANSIBLE_ASYNC_DIR", str(jobs / "fedcba9876543210"))
    write_run(folder, "0123456789abcdef.run", payload=there.format(victim=victim))
    assert list(folder.alive()) == []
    assert sorted(os.listdir(jobs)) == ["fedcba9876543210"]
    assert (temporary / "ansible_a_payload_b").exists() == (there != "ansible_a_payload_b")
    assert sorted(os.listdir(victim)) == ["0123456789abcdef", "ansible_a_payload_b"]


@pytest.mark.parametrize(
    "values",
    [
        {"run_id": "../../victim"},
        {"run_id": "fedcba9876543210"},
        {"pid": "-1"},
        {"since": None},
        {"device": "a b"},
        {"port": "19000\npid=1"},
    ],
)
def test_a_run_file_that_says_what_none_says_is_no_run(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, object]
) -> None:
    victim, jobs = tmp_path / "victim", tmp_path / "jobs"
    monkeypatch.setenv("ANSIBLE_ASYNC_DIR", str(jobs / "0000000000000000"))
    for made in (victim, jobs / "fedcba9876543210"):
        made.mkdir(parents=True)
    write_run(folder, "0123456789abcdef.run", **values)
    assert list(folder.alive()) == []
    assert os.listdir(jobs) == ["fedcba9876543210"] and victim.exists()
    assert "0123456789abcdef.run" not in os.listdir(folder.path)


@pytest.fixture(name="shared")
def fixture_shared() -> Iterator[Path]:
    """A folder for temporary files that another user of this machine has, too."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o1777)
        yield Path(path)


def shell_folder(shared: Path) -> str:
    def become_nobody() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)

    environment = {**os.environ, "TMPDIR": str(shared)}
    return (
        subprocess.run(
            ["sh", "-c", FOLDER_SCRIPT], stdout=subprocess.PIPE, check=True, env=environment, preexec_fn=become_nobody
        )
        .stdout.decode()
        .strip()
    )


def test_the_shell_finds_the_same_folder(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid() or NOBODY
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    path = folder_path()
    assert shell_folder(shared) == "/dev/null"
    os.mkdir(path, 0o700)
    monkeypatch.undo()
    os.chown(path, user, -1)
    assert shell_folder(shared) == path


def test_the_shell_does_not_use_a_folder_that_is_not_the_users(shared: Path) -> None:
    user = os.geteuid() or NOBODY
    path, target = shared / f"fleet.imaging-{user}", shared / "target"
    target.mkdir()
    os.chown(target, user, -1)
    path.symlink_to(target)
    assert shell_folder(shared) == "/dev/null"
    path.unlink()
    path.write_text("")
    assert shell_folder(shared) == "/dev/null"
    path.unlink()
    path.mkdir(0o777)
    if os.geteuid() == 0:
        assert shell_folder(shared) == "/dev/null", "it is root's"
