# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report makes of what Ansible tells."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from ansible_collections.fleet.imaging.plugins.callback.report import CallbackModule

RESTORE = "fleet.imaging.image_restore"
HOSTS = ("a", "b")


ACTION = "ansible_collections.fleet.imaging.plugins.action.image_probe"


def task(action: str, run_once: bool = False) -> Any:
    return SimpleNamespace(action=action, resolved_action=action, run_once=run_once, check_mode=False)


def result(host: str, action: str, run_once: bool = False, fields: dict[str, Any] | None = None, **values: Any) -> Any:
    return SimpleNamespace(
        host=MagicMock(get_name=lambda: host),
        task=task(action, run_once),
        task_name=f"task {action}",
        task_fields={"args": {"device": "/dev/sda", "image": "i"}, **(fields or {})},
        result=values,
    )


class Told:
    """A callback that was told that a playbook and its play have begun."""

    def __init__(self, playbook: str = "restore", **variables: Any) -> None:
        self.callback = CallbackModule()
        self.callback._display = MagicMock()
        self.callback.v2_playbook_on_start(SimpleNamespace(_file_name=f"/somewhere/{playbook}.yml"))
        play = MagicMock()
        play.get_loader.return_value = None
        known = {"ansible_play_hosts_all": list(HOSTS), **variables}
        play.get_variable_manager().get_vars.return_value = known
        self.callback.v2_playbook_on_play_start(play)

    def start(self, action: str = RESTORE, hosts: tuple[str, ...] = HOSTS) -> None:
        for host in hosts:
            self.callback.v2_runner_on_start(MagicMock(get_name=lambda host=host: host), task(action))

    def end(self, rescued: tuple[str, ...] = ()) -> None:
        stats = SimpleNamespace(failures={}, dark={}, rescued=dict.fromkeys(rescued, 1))
        self.callback.v2_playbook_on_stats(stats)

    def shown(self) -> list[str]:
        return [call.args[0] for call in self.callback._display.display.call_args_list]

    def warnings(self) -> list[str]:
        return [call.args[0] for call in self.callback._display.warning.call_args_list]


def report(store: Path) -> dict[str, Any]:
    (path,) = (store / "reports").glob("*.json")
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def states(store: Path) -> dict[str, str]:
    return {entry["host"]: entry["state"] for entry in report(store)["laptops"]}


def test_a_restore(tmp_path: Path) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start()
    told.callback.v2_runner_on_ok(result("a", RESTORE, changed=True, verified=True))
    told.callback.v2_runner_on_failed(result("b", RESTORE, msg="the disk is failing"))
    told.end()
    assert states(tmp_path) == {"b": "failed", "a": "restored and verified"}
    assert report(tmp_path)["laptops"][0]["failures"][0]["message"] == "the disk is failing"
    path, *_how_to_continue, command = told.shown()
    assert path.startswith(f"Report: {tmp_path}/reports/") and Path(path[8:]).exists()
    assert command.startswith("To go on with it: ") and command.endswith(" -l b")


def test_check_mode_of_a_task_makes_it_a_comparison(tmp_path: Path) -> None:
    told = Told("verify", imaging_store=str(tmp_path))
    told.start()
    for host in HOSTS:
        told.callback.v2_runner_on_ok(result(host, RESTORE, fields={"check_mode": True}, changed=False, verified=True))
    told.end()
    assert report(tmp_path)["verdict"] == "All 2 laptops equal to the image."


def test_skipped_tasks_transfer_nothing(tmp_path: Path) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start()
    for host in HOSTS:
        told.callback.v2_runner_on_skipped(result(host, RESTORE, skipped=True))
    told.end()
    assert list(tmp_path.iterdir()) == []


def test_failures_of_other_tasks(tmp_path: Path) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start("ansible.builtin.setup")
    told.callback.v2_runner_on_unreachable(result("a", "ansible.builtin.setup", msg="No route to host"))
    told.callback.v2_runner_on_failed(result("b", "ansible.builtin.command", msg="ignored"), ignore_errors=True)
    forgiving = result("b", "ansible.builtin.setup", fields={"ignore_unreachable": True}, msg="ignored")
    told.callback.v2_runner_on_unreachable(forgiving)
    told.end()
    assert states(tmp_path) == {"a": "unreachable", "b": "not begun"}


def test_a_task_that_stands_for_all(tmp_path: Path) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start("ansible.builtin.assert", ("a",))
    told.callback.v2_runner_on_failed(result("a", "ansible.builtin.assert", run_once=True, msg="not typed"))
    told.end()
    assert [failure["message"] for failure in report(tmp_path)["failures"]] == ["not typed"]
    assert states(tmp_path) == {"a": "not begun", "b": "not begun"}


def test_what_was_rescued_is_no_failure(tmp_path: Path) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start()
    told.callback.v2_runner_on_failed(result("a", "ansible.builtin.command", msg="rescued"))
    for host in HOSTS:
        told.callback.v2_runner_on_ok(result(host, RESTORE, changed=True, verified=True))
    told.end(rescued=("a",))
    assert report(tmp_path)["level"] == "good"


def test_a_run_that_has_no_end_is_interrupted(tmp_path: Path) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start()
    told.callback._at_exit()
    assert report(tmp_path)["interrupted"] is True
    assert states(tmp_path) == {"a": "broken off", "b": "broken off"}
    told.callback._at_exit()
    assert len(list((tmp_path / "reports").iterdir())) == 2


def test_how_to_continue_is_said_without_a_report_and_after_one_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(imaging_store=str(tmp_path), imaging_report=False)
    told.start()
    told.callback.v2_runner_on_failed(result("b", RESTORE, msg="the disk is failing"))
    told.end()
    assert [line.split(":")[0] for line in told.shown()][-1:] == ["To go on with it"] and not list(tmp_path.iterdir())
    monkeypatch.setattr(f"{CallbackModule.__module__}.summary", lambda _run: 1 / 0)
    told = Told(imaging_store=str(tmp_path))
    told.start()
    told.callback.v2_runner_on_failed(result("b", RESTORE, msg="the disk is failing"))
    with pytest.raises(ZeroDivisionError):
        told.end()
    assert [line.split(":")[0] for line in told.shown()][-1:] == ["To go on with it"]


def test_a_worker_writes_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start()
    monkeypatch.setattr("os.getpid", lambda: -1)
    told.callback._at_exit()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    told.end()


@pytest.mark.parametrize("no", [False, "false", "no"])
def test_no_report_is_wanted(tmp_path: Path, no: object) -> None:
    told = Told(imaging_store=str(tmp_path), imaging_report=no)
    told.start()
    told.end()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("playbook", ["clone", "restore"])
def test_a_folder_is_made_for_the_report_of_a_transfer_alone(tmp_path: Path, playbook: str) -> None:
    store = tmp_path / "new/store"
    told = Told(playbook, imaging_store=str(store))
    told.start("ansible.builtin.command")
    told.callback.v2_runner_on_failed(result("a", "ansible.builtin.command", msg="no"))
    told.end()
    assert not store.exists() and "No such file" in told.warnings()[0]
    told = Told(playbook, imaging_store=str(store))
    told.start()
    told.end()
    assert report(store)["playbook"] == playbook and store.stat().st_mode & 0o777 == 0o700


def test_other_playbooks_have_a_report_only_of_a_transfer(tmp_path: Path) -> None:
    told = Told("site", imaging_store=str(tmp_path))
    told.start("ansible.builtin.command")
    told.callback.v2_runner_on_failed(result("a", "ansible.builtin.command", msg="no"))
    told.end()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda store: (store / "reports").touch(), "File exists"),
        (lambda store: (store / "reports").symlink_to("reports"), "File exists"),
    ],
)
def test_a_report_that_cannot_be_written_is_a_warning(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(tmp_path)
    told = Told(imaging_store=str(tmp_path))
    told.start()
    told.end()
    assert told.warnings() == [f"No report was written to {tmp_path}/reports: {reason}."]
    told.callback._display.display.assert_not_called()


DEEP: list[Any] = []
for _level in range(3000):
    DEEP = [DEEP]
FIELDS = (
    *(
        "changed",
        "verified",
        "device",
        "image",
        "model",
        "serial",
        "wwn",
        "disk_size",
        "used_bytes",
        "bytes_written",
        "sent_bytes",
        "taken_from",
        "passed_on",
        "frame_bytes",
        "stored_bytes",
        "left",
        "slow",
    ),
    *(
        "seconds",
        "write_seconds",
        "compare_seconds",
        "throughput",
        "ratio",
        "limits",
        "limited_by",
        "stages",
        "timeline",
        "started",
    ),
    *(
        "warnings",
        "changes",
        "differing_chunks",
        "used_chunks",
        "links_made",
        "workers",
        "zstd",
        "msg",
        "results",
        "stderr",
        "disks",
    ),
)


@pytest.mark.parametrize(
    "odd",
    [
        None,
        5,
        -1,
        1 << 70,
        float("nan"),
        float("inf"),
        True,
        "\x1b[2J\u202e",
        [],
        [[]],
        [{}],
        {},
        {"\u200b": [1]},
        [5, "a", None],
        DEEP,
    ],
    ids=lambda value: repr(value)[:20] if value is not DEEP else "deep",
)
def test_an_odd_result_is_one_odd_row_of_the_report(tmp_path: Path, odd: Any) -> None:
    told = Told(imaging_store=str(tmp_path))
    told.start()
    told.callback.v2_runner_on_ok(result("a", "fleet.imaging.disk_info", disks=odd))
    told.callback.v2_runner_on_ok(result("a", RESTORE, **dict.fromkeys(FIELDS, odd)))
    told.callback.v2_runner_on_ok(result("b", RESTORE, changed=True, verified=True))
    told.end()
    assert states(tmp_path)["b"] == "restored and verified"
    assert told.warnings() == []


def test_a_failure_of_any_depth_is_reported(tmp_path: Path) -> None:
    nested: dict[str, Any] = {"failed": True, "msg": "the innermost"}
    for _one in range(3000):
        nested = {"failed": True, "msg": "", "results": [nested]}
    told = Told(imaging_store=str(tmp_path))
    told.start()
    told.callback.v2_runner_on_failed(result("a", RESTORE, **nested))
    told.callback.v2_runner_on_ok(result("b", RESTORE, changed=True, verified=True))
    told.end()
    assert states(tmp_path) == {"a": "failed", "b": "restored and verified"}


def test_what_a_task_needs_is_loaded_before_workers_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, ACTION, raising=False)
    callback = Told().callback
    callback.v2_playbook_on_task_start(task("fleet.imaging.image_probe"), False)
    assert ACTION in sys.modules
    loaded = set(sys.modules)
    for other in ("ansible.builtin.ping", "fleet.imaging.no_such_module", "debug"):
        callback.v2_playbook_on_task_start(task(other), False)
    assert set(sys.modules) == loaded
