# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a laptop about a module there, with a shell of this machine in place of the connection."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import RunFolder, start_time
from ansible_collections.fleet.imaging.plugins.module_utils.run_file import LISTENING, Run, unpack_run
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils import detached_module
from ansible_collections.fleet.imaging.plugins.plugin_utils.detached_module import DetachedModule

RUN_ID = "0123456789abcdef"


class Connection:
    """Runs commands here. ``failures``: how many fail first, by ``failure``; ``noise``: what a command is put into, which prints of its own."""

    def __init__(self) -> None:
        self._connection = SimpleNamespace(reset=lambda: None)
        self.failures = 0
        self.failure = "the master was killed"
        self.asked = 0
        self.noise = ["{}"]
        self.shell = ["sh"]

    def _low_level_execute_command(self, command: str, sudoable: bool = True) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            raise AnsibleConnectionFailure(self.failure)
        noise = self.noise[min(self.asked, len(self.noise) - 1)]
        self.asked += 1
        command = noise.replace("{}", command)
        done = subprocess.run(
            [*self.shell, "-c", command], capture_output=True, text=True, errors="replace", check=False
        )
        return {"stdout": done.stdout.replace("\n", "\r\n"), "stderr": done.stderr, "rc": done.returncode}


@pytest.fixture(name="connection")
def fixture_connection() -> Connection:
    return Connection()


@pytest.fixture(name="module")
def fixture_module(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DetachedModule:
    monkeypatch.setattr(detached_module, "FOLDER_SCRIPT", f"echo {tmp_path}")
    module = DetachedModule(connection, {}, RUN_ID, Timeouts(gone=0.3, clean_up=1))
    module._job = str(tmp_path / RUN_ID)
    (tmp_path / RUN_ID).mkdir()
    return module


def run_of(pid: int, **values: Any) -> Run:
    """A run of a process, as a module publishes it."""
    started = start_time(pid) or 0
    run = Run(
        pid, started, port=19000, state=LISTENING, since=1.0, payload="", device="/dev/sdq", networks="", run_id=RUN_ID
    )
    return replace(run, **values)


def publish(folder: Path, run: Run) -> None:
    """Have a laptop publish a run."""
    RunFolder(str(folder)).write(run)


@pytest.fixture(name="process")
def fixture_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that its command line calls a module."""
    with subprocess.Popen(["sh", "-c", "sleep 60; :", "AnsiballZ"]) as process:
        yield process
        process.kill()


def test_a_module_is_followed_to_its_result(
    module: DetachedModule, tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    job = tmp_path / RUN_ID / "j123.456"
    job.write_text('{"started": true, "finished": false, "ansible_job_id": "j123.456"}')
    assert not module.ended()
    publish(tmp_path, run_of(process.pid, networks="198.51.100.0/24"))
    assert (module.wait_for_port(), module.networks) == (19000, "198.51.100.0/24")
    job.write_text('{"changed": true}')
    assert not module.ended()
    process.kill()
    process.wait()
    assert module.ended() and module.collect(1.0) == {"changed": True}


def test_a_module_that_fails_at_once_has_no_port(module: DetachedModule, tmp_path: Path) -> None:
    (tmp_path / RUN_ID / "j123.456").write_text('{"failed": true, "msg": "no such disk", "stderr": "left out"}')
    assert module.wait_for_port() is None
    assert module.collect(1.0) == {"failed": True, "msg": "no such disk"}


def test_a_module_that_leaves_nothing_is_gone(module: DetachedModule, tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match="was killed"):
        module.wait_for_port()
    publish(tmp_path, run_of(0))
    assert module.wait_for_port() == 19000
    with pytest.raises(ImagingError, match="ended without a result"):
        module.ended()


@pytest.mark.parametrize(
    "noise",
    [
        "echo 'sudo: unable to resolve host lab-01'; {}; echo '{bye}'",
        "echo '{'; printf 'no end of line'; {}",
        "exec 2>&1; set -x; {}",
        "printf 'lecture\r\n\r\n'; {}; exit 3",
    ],
)
def test_what_others_print_is_no_answer(
    module: DetachedModule, connection: Connection, tmp_path: Path, noise: str
) -> None:
    connection.noise = [noise]
    assert module.published() is None
    publish(tmp_path, run_of(1))
    assert module.wait_for_port() == 19000
    (tmp_path / RUN_ID / "j1.2").write_text('{"changed": false}')
    assert module.ended()


def test_a_line_in_the_midst_of_an_answer_is_asked_past(
    module: DetachedModule, connection: Connection, tmp_path: Path
) -> None:
    publish(tmp_path, run_of(1))
    connection.noise = ["({}) | sed 's/^port/Broadcast message from root: port/'", "{}"]
    assert module.wait_for_port() == 19000 and connection.asked == 2


def test_what_can_not_be_understood_is_shown(
    module: DetachedModule, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    connection.noise = ["printf 'live is not in the \033[31msudoers file.\n'; exit 1; {}"]
    with pytest.raises(ImagingError) as caught:
        module.published()
    assert "'live is not in the \\x1b[31msudoers file.'" in str(caught.value) and "exit status 1" in str(caught.value)
    assert connection.asked == detached_module.TRIES
    connection.noise = ["yes 'so much' | head -9999; exit 1; {}"]
    with pytest.raises(ImagingError) as caught:
        module.published()
    assert len(str(caught.value)) < 800


def test_a_shell_that_prints_after_an_answer_is_refused_at_once(module: DetachedModule, connection: Connection) -> None:
    connection.noise = ["{}; echo bye"]
    with pytest.raises(ImagingError, match=r"'bye'.*bashrc"):
        module._shell.check_login_shell()
    assert connection.asked == 1


@pytest.mark.parametrize("refusal", ["Permission denied (publickey).", "Host key verification failed."])
def test_a_login_that_is_refused_is_not_tried_again(
    module: DetachedModule, connection: Connection, refusal: str
) -> None:
    connection.failures, connection.failure = 2, refusal
    with pytest.raises(AnsibleConnectionFailure):
        module.ended()
    assert connection.failures == 1


def test_a_folder_in_the_home_is_for_the_shell_to_find() -> None:
    assert [detached_module._path(path) for path in ("~/a b", "~live/x", "/a'b", "~", "")] == [
        "~/'a b'",
        "~live/x",
        """'/a'"'"'b'""",
        "~",
        "",
    ]


def test_a_connection_that_is_lost_in_the_end_is_made_again_to_clean_up(
    module: DetachedModule, connection: Connection, tmp_path: Path
) -> None:
    connection.failures = 1
    module.clean_up()
    assert not (tmp_path / RUN_ID).exists()


def test_a_laptop_that_is_off_in_the_end_holds_nobody_up(module: DetachedModule, connection: Connection) -> None:
    connection.failures = 1000
    began = time.monotonic()
    module.clean_up()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "payload", ["ansible_a_payload_b", "../victim/ansible_a_payload_b", "{victim}/ansible_a_payload_b", ""]
)
def test_what_a_killed_module_has_left_is_found_by_its_name_alone(
    module: DetachedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: str
) -> None:
    temporary, victim = tmp_path / "tmp", tmp_path / "victim"
    for folder in (temporary, victim):
        (folder / "ansible_a_payload_b").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    publish(tmp_path, run_of(1 << 22, payload=payload.format(victim=victim)))
    run = tmp_path / f"{RUN_ID}.run"
    module.clean_up()
    assert not run.exists() and (victim / "ansible_a_payload_b").exists()
    assert (temporary / "ansible_a_payload_b").exists() == (payload != "ansible_a_payload_b")


SHELLS = [shell for shell in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0])]


@pytest.fixture(name="any_shell", params=SHELLS, ids=lambda shell: shell[0])
def fixture_any_shell(request: pytest.FixtureRequest, connection: Connection) -> None:
    connection.shell = request.param


@pytest.mark.usefixtures("any_shell")
def test_every_shell_reads_what_a_laptop_publishes(
    module: DetachedModule, tmp_path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    payload = tmp_path / "ansible_a_payload_b"
    payload.mkdir()
    run = run_of(process.pid, payload=payload.name, device="/dev/a = b\n%\udcff")
    publish(tmp_path, run)
    assert module.published() == run and module.wait_for_port() == 19000
    assert not module.ended()
    module.clean_up()
    assert payload.exists() and module.published() == run, "it is alive"
    process.kill()
    process.wait()
    module.clean_up()
    assert not payload.exists() and module.published() is None


@pytest.mark.usefixtures("any_shell")
def test_every_shell_knows_a_process_by_its_start_time_and_its_name(
    module: DetachedModule, tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    state = detached_module.STATE.format(file=module._run_file(), job=module._job)
    for run, verdict in (
        (run_of(process.pid), "alive"),
        (run_of(process.pid, started=(start_time(process.pid) or 0) - 5), "gone"),
        (run_of(os.getpid()), "gone"),
        (run_of(1 << 22), "gone"),
    ):
        publish(tmp_path, run)
        assert module._shell.ask(state, str) == verdict


@pytest.mark.usefixtures("any_shell")
def test_a_run_file_that_is_cut_anywhere_is_not_taken_for_none_and_names_no_other_process(
    module: DetachedModule, tmp_path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    whole = run_of(process.pid).pack()
    state = detached_module.STATE.format(file=module._run_file(), job=module._job)
    file = tmp_path / f"{RUN_ID}.run"
    for end in (0, len(f"pid={process.pid}") - 1, whole.index("port"), len(whole) - 2):
        file.write_text(whole[:end])
        with pytest.raises(ImagingError, match="no answer that can be read"):
            module.published()
        assert module._shell.ask(state, str) == ("alive" if end > whole.index("port") - 2 else "gone")
    file.unlink()
    assert module.published() is None


@pytest.mark.usefixtures("any_shell")
@pytest.mark.parametrize(
    "said",
    [
        "pid=$(touch {victim})\n",
        "pid=`touch {victim}`\nstarted=1\n",
        "pid=1; touch {victim}\nstarted=1\n",
        "pid=*\nstarted=*\npayload=*\n",
        "pid=1\nstarted=\npayload=ansible_a_payload_b/../victim\n",
        "payload=ansible_*_payload_*\n",
        "\0\n\xff=\n" * 99,
    ],
)
def test_what_a_run_file_says_is_never_run_and_removes_nothing_else(
    module: DetachedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    module._timeouts = Timeouts(gone=-1)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kept = [tmp_path / "ansible_a_payload_b", tmp_path / "victim"]
    for folder in kept:
        folder.mkdir()
    (tmp_path / f"{RUN_ID}.run").write_text(said.format(victim=tmp_path / "made"), encoding="latin-1")
    with pytest.raises(ImagingError, match="no answer that can be read"):
        module.published()
    module.stop()
    module.clean_up()
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name for folder in kept]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("pid=1\n", "pid=-1\n"),
        ("pid=1\n", "pid=1\npid=1\n"),
        ("state=listening", "state="),
        ("since=1.000", "since=nan"),
        ("port=19000", "port=0x10"),
        (f"run_id={RUN_ID}\n", f"run_id={RUN_ID}"),
    ],
)
def test_a_run_file_says_every_field_once_and_in_its_form(before: str, after: str) -> None:
    packed = run_of(1).pack()
    assert unpack_run(packed) == run_of(1) and before in packed
    with pytest.raises(ValueError, match="no"):
        unpack_run(packed.replace(before, after))
