# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs action plugins that contact no host."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from ansible.playbook.task import Task
from ansible.template import Templar

from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.task_failure import TaskFailure


def run_action(
    kind: type[ControllerAction], name: str, arguments: dict[str, Any], *, check_mode: bool = False
) -> dict[str, Any]:
    """Run the action plugin. Ansible's own parts are stood in for where it only passes them on."""
    task = Task.load({"action": f"fleet.imaging.{name}", "args": arguments})
    task.check_mode = check_mode
    plugin = kind(task, MagicMock(), MagicMock(), MagicMock(), Templar(None), MagicMock())
    try:
        result: dict[str, Any] = plugin.run(task_vars={"inventory_hostname": "localhost"})
    except TaskFailure as failure:
        result = failure.result
    return result
