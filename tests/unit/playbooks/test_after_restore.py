# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps after a restore are all in their list, and work on the disk that was restored alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

STEPS = Path(__file__).resolve().parents[3] / "playbooks/tasks/after_restore"


def tasks_in(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def flat(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        for section in ("block", "rescue", "always"):
            yield from flat(task.get(section, []))


def test_every_step_is_in_the_list_once() -> None:
    listed = [task["ansible.builtin.import_tasks"] for task in tasks_in(STEPS / "main.yml")]
    assert sorted([*listed, "main.yml"]) == sorted(path.name for path in STEPS.iterdir())


def test_every_task_that_takes_a_disk_takes_the_one_that_was_restored() -> None:
    tasks = [task for path in STEPS.iterdir() for task in flat(tasks_in(path))]
    devices = [value for task in tasks for value in task.values() if isinstance(value, dict) and "device" in value]
    assert devices
    for arguments in devices:
        assert arguments["device"] == "{{ select_disk_selected.path }}"
        assert arguments["expect"] == "{{ restored_disk }}"
