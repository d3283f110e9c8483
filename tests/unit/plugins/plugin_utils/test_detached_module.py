# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a laptop about a module there, with a shell of this machine in place of the connection."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils import detached_module
from ansible_collections.fleet.imaging.plugins.plugin_utils.detached_module import DetachedModule

RUN_ID = "0123456789abcdef"


class Connection:
    """Runs commands here. ``failures``: how many of them fail first; ``noise``: what a command is put into, which prints of its own."""

    def __init__(self) -> None:
        self._connection = SimpleNamespace(reset=lambda: None)
        self.failures = 0
        self.asked = 0
        self.noise = ["{}"]

    def _low_level_execute_command(self, command: str, sudoable: bool = True) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            raise AnsibleConnectionFailure("the master was killed")
        noise = self.noise[min(self.asked, len(self.noise) - 1)]
        self.asked += 1
        command = noise.replace("{}", command)
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
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


def test_a_module_is_followed_to_its_result(module: DetachedModule, tmp_path: Path) -> None:
    job = tmp_path / RUN_ID / "j123.456"
    job.write_text('{"started": true, "finished": false, "ansible_job_id": "j123.456"}')
    assert not module.ended()
    with subprocess.Popen(["sh", "-c", "sleep 60; :", "AnsiballZ"]) as process:
        try:
            (tmp_path / f"{RUN_ID}.json").write_text(f'{{"pid": {process.pid}, "state": "listening", "port": 19000}}')
            assert module.wait_for_port() == 19000
            job.write_text('{"changed": true}')
            assert not module.ended()
        finally:
            process.kill()
    assert module.ended() and module.collect(1.0) == {"changed": True}


def test_a_module_that_fails_at_once_has_no_port(module: DetachedModule, tmp_path: Path) -> None:
    (tmp_path / RUN_ID / "j123.456").write_text('{"failed": true, "msg": "no such disk", "stderr": "left out"}')
    assert module.wait_for_port() is None
    assert module.collect(1.0) == {"failed": True, "msg": "no such disk"}


def test_a_module_that_leaves_nothing_is_gone(module: DetachedModule, tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match="was killed"):
        module.wait_for_port()
    (tmp_path / f"{RUN_ID}.json").write_text('{"pid": 0, "state": "listening", "port": 19000}')
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
    assert module.published() == {}
    (tmp_path / f"{RUN_ID}.json").write_text('{"pid": 1, "state": "listening", "port": 19000}')
    assert module.wait_for_port() == 19000
    (tmp_path / RUN_ID / "j1.2").write_text('{"changed": false}')
    assert module.ended()


def test_a_line_in_the_midst_of_an_answer_is_asked_past(
    module: DetachedModule, connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / f"{RUN_ID}.json").write_text('{"pid": 1, "state": "listening", "port": 19000}')
    connection.noise = ["({}) | sed 's/^{/Broadcast message from root: {/'", "{}"]
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
    run = tmp_path / f"{RUN_ID}.json"
    run.write_text(json.dumps({"pid": 1 << 22, "payload": payload.format(victim=victim)}))
    module.clean_up()
    assert not run.exists() and (victim / "ansible_a_payload_b").exists()
    assert (temporary / "ansible_a_payload_b").exists() == (payload != "ansible_a_payload_b")
