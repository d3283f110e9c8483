# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs packages on the laptop with M(ansible.builtin.package), and returns only whether that succeeded and changed anything."""

from typing import Any

from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_action import LaptopAction


class ActionModule(LaptopAction):
    """Action plugin of M(fleet.imaging.package_install)."""

    def execute(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module for the laptop's package manager; returns its answer unchecked."""
        _validation, arguments = self.validate_argument_spec(
            argument_spec={"name": {"type": "list", "elements": "str", "required": True}}
        )
        task = self._task.copy()
        task.action = "ansible.builtin.package"
        task.args = {"name": arguments["name"], "state": "present"}
        action = self._shared_loader_obj.action_loader.get(
            task.action,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        answer: dict[str, Any] = action.run(task_vars=task_vars)
        return answer
