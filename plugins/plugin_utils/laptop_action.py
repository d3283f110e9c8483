# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugins that run the module of their name on a laptop and believe only the documented part of its answer."""

from typing import Any

from ansible.errors import AnsibleAction, AnsibleError
from ansible.plugins.action import ActionBase

from ..module_utils.errors import ImagingError
from .connection_errors import known_error
from .laptop_answer import checked_answer, documented_fields
from .task_failure import NoAccess, fail_task


class LaptopAction(ActionBase):
    """Runs its module and rebuilds the result from the keys that the module documents, with checked types."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point, called by Ansible in a worker process of this host's own."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        name = self._task.action.rpartition(".")[2]
        try:
            result.update(checked_answer(self.execute(variables), documented_fields(name), name))
        except ImagingError as error:
            fail_task(str(error), error.facts)
        except AnsibleAction as error:
            fail_task(str(error.message))  # without the part of the laptop's answer that the error carries
        except AnsibleError as error:
            advised = with_advice(str(error))
            if not advised:
                raise
            raise NoAccess(advised) from None
        if result.get("failed"):
            message = result.pop("msg")
            fail_task(with_advice(message) or message, result)
        # Found by Ansible itself; without it each task would look for an interpreter anew.
        if self._discovered_interpreter_key and isinstance(self._discovered_interpreter, str):
            result["ansible_facts"] = {self._discovered_interpreter_key: self._discovered_interpreter}
        return result

    def execute(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module; returns its answer unchecked."""
        answer: dict[str, Any] = self._execute_module(task_vars=task_vars)
        return answer


def with_advice(failure: str) -> str:
    """The message of a failure on one line, with what to do where Ansible can't work with the laptop; empty for other failures."""
    known = known_error(failure)
    return f"{' '.join(failure.split()).rstrip('.')}. {known.advice}." if known else ""
