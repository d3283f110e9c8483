# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an action plugin fails with a message that needs no look into the playbook."""

from collections.abc import Mapping
from typing import Any, NoReturn

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure


class TaskFailure(AnsibleActionFail):
    """A failure that Ansible shows as its result alone, without an excerpt of the playbook's source."""

    @property
    def omit_exception_key(self) -> bool:
        """Whether Ansible leaves out the excerpt. It must not for a message of several lines, which it shows as such only with the excerpt."""
        return "\n" not in str(self.message)


class NoAccess(AnsibleConnectionFailure):
    """A laptop that can't be logged in to, or on which this user can't become root; shown without an excerpt of the playbook's source."""

    @property
    def result_contribution(self) -> Mapping[str, object]:
        """What Ansible is to know of it."""
        return {"unreachable": True, "msg": str(self.message)}

    @property
    def omit_exception_key(self) -> bool:
        """Whether the result says everything."""
        return True


def fail_task(message: str, result: Mapping[str, Any] | None = None) -> NoReturn:
    """Fail the task with a message, and with what else its result is to hold; it has ``codes`` in any case."""
    raise TaskFailure(message, result={"changed": False, "codes": [], **(result or {})})
