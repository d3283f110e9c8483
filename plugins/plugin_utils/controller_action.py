# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins share that work on the controller alone."""

from abc import abstractmethod
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.errors import ImagingError
from .interruption import Interrupted, interruptible
from .task_failure import fail_task


class ControllerAction(ActionBase):
    """Checks arguments, works, tidies up also when it is interrupted, and turns errors into results."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False
    ARGUMENTS: ClassVar[dict[str, Any]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        try:
            _validation, arguments = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
            with interruptible():
                result.update(self.work(arguments))
        except AnsibleActionFail as error:  # of an argument
            fail_task(str(error.message))
        except ImagingError as error:
            fail_task(str(error), error.facts)
        except Interrupted as error:
            fail_task(f"Nothing was kept: {error}.")
        if result.get("failed"):
            fail_task(result.pop("msg"), result)
        return result

    @abstractmethod
    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do it, and return what of the result is its own; raises ImagingError."""
