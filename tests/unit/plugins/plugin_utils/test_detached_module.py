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

from ansible_collections.fleet.imaging.plugins.plugin_utils import detached_module
from ansible_collections.fleet.imaging.plugins.plugin_utils.detached_module import DetachedModule

RUN_ID = "0123456789abcdef"


class Connection:
    """Runs commands here. ``failures``: how many of them fail first; ``asked``: how often Ansible was asked for the result."""

    def __init__(self) -> None:
        self._connection = SimpleNamespace(reset=lambda: None)
        self.failures = 0
        self.asked = 0
        self.answer: dict[str, Any] = {"finished": False}

    def _low_level_execute_command(self, command: str) -> dict[str, str]:
        if self.failures:
            self.failures -= 1
            raise AnsibleConnectionFailure("the master was killed")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        return {"stdout": done.stdout}

    def _execute_module(self, *dummy: object, **more: object) -> dict[str, Any]:
        self.asked += 1
        return self.answer


@pytest.fixture(name="connection")
def fixture_connection() -> Connection:
    return Connection()


@pytest.fixture(name="module")
def fixture_module(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DetachedModule:
    monkeypatch.setattr(detached_module, "FOLDER_SCRIPT", f"echo {tmp_path}")
    module = DetachedModule(connection, {}, RUN_ID, 60.0)
    module._job = {"jid": "job", "_async_dir": str(tmp_path / RUN_ID)}
    (tmp_path / RUN_ID).mkdir()
    return module


def test_while_the_process_lives_ansible_is_not_asked(
    module: DetachedModule, connection: Connection, tmp_path: Path
) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60; :", "AnsiballZ"]) as process:
        try:
            (tmp_path / f"{RUN_ID}.json").write_text(f'{{"pid": {process.pid}, "state": "listening", "port": 19000}}')
            assert module.wait_for_port() == 19000
            assert not module.ended() and connection.asked == 0
        finally:
            process.kill()
    assert not module.ended() and connection.asked == 1
    connection.answer = {"finished": True, "changed": True, "ansible_job_id": "job"}
    assert module.ended() and module.collect(1.0) == {"changed": True}


def test_a_module_that_has_not_begun_is_waited_for(
    module: DetachedModule, connection: Connection, tmp_path: Path
) -> None:
    job = tmp_path / RUN_ID / "job"
    job.write_text('{"started": true, "finished": false, "ansible_job_id": "job"}')
    assert not module.ended() and connection.asked == 0
    job.write_text('{"failed": true, "msg": "no such disk"}')
    connection.answer = {"finished": True, "failed": True, "msg": "no such disk"}
    assert module.wait_for_port() is None and connection.asked == 1


def test_a_connection_that_is_lost_in_the_end_is_made_again_to_clean_up(
    module: DetachedModule, connection: Connection, tmp_path: Path
) -> None:
    connection.failures = 1
    module.clean_up()
    assert not (tmp_path / RUN_ID).exists()


def test_a_laptop_that_is_off_in_the_end_holds_nobody_up(
    module: DetachedModule, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached_module, "CLEANING_TIME", 1.0)
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
