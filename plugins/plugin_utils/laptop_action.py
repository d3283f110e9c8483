# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugins that run the module of their name on a laptop and believe only the documented part of its answer."""

from __future__ import annotations

import re
from typing import Any

from ansible.errors import AnsibleAction, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError

from .laptop_answer import checked_answer, documented_fields
from .refusal import NoAccess, refuse

NO_PASSWORD = re.compile(r"(Missing|Incorrect) \S+ password")
"""In errors of Ansible's connection plugins: becoming root takes a password, or another one than was given."""

NO_LOGIN = re.compile(r"Permission denied|Invalid/incorrect password")
"""In errors of OpenSSH and of Ansible's connection plugin for it: neither a key nor a password was accepted."""


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
            refuse(str(error))
        except AnsibleAction as error:
            refuse(str(error.message))  # without the part of the laptop's answer that the error carries
        except AnsibleError as error:
            advice = way_out(str(error))
            if not advice:
                raise
            raise NoAccess(f"{' '.join(str(error).split()).rstrip('.')}. {advice}") from None
        if result.get("failed"):
            refuse(result.pop("msg"), result)
        # Found by Ansible itself; without it each task would look for an interpreter anew.
        if self._discovered_interpreter_key and isinstance(self._discovered_interpreter, str):
            result["ansible_facts"] = {self._discovered_interpreter_key: self._discovered_interpreter}
        return result

    def execute(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module; returns its answer unchecked."""
        answer: dict[str, Any] = self._execute_module(task_vars=task_vars)
        return answer


def way_out(failure: str) -> str:
    """What to do about a login that failed or a password that is missing; empty for other failures of a connection."""
    if NO_PASSWORD.search(failure):
        return (
            "This user needs a password to become root: run again with -K, which asks for it, set ansible_become_password, or log in as root "
            "(ansible_user: root)."
        )
    if NO_LOGIN.search(failure):
        return (
            "The laptop accepts neither a key nor a password of this user: run again with -k, which asks for the password, or set "
            "ansible_user, ansible_password or ansible_ssh_private_key_file."
        )
    return ""
