# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows at the end of a failed or interrupted run which disks do not boot, and how to continue."""

from __future__ import annotations

DOCUMENTATION = """
name: outcome
type: notification
short_description: Shows which disks do not boot after a failed run, and the command to continue
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - When a run with M(fleet.imaging.image_restore) fails for some laptops or is interrupted, its last lines say which disks do not boot now,
    which may not boot, and which were not touched, and show the command to continue with these laptops.
  - After a failed capture, the last lines say whether the stored part is kept, and show the command to continue.
  - When Ansible could not log in or become root, they name the missing option, as the message of the task does.
  - Values of variables whose names hold V(pass), V(secret) or V(token) are left out of the command.
requirements:
  - C(callbacks_enabled = fleet.imaging.outcome) in C(ansible.cfg), as in the folder C(playbooks) of the collection.
"""

import atexit
import os
import sys
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.fleet.imaging.plugins.plugin_utils.outcome import CAPTURE, COMPARE, RESTORE, Outcome
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.run import failure_message

SETTINGS = "fleet.imaging.settings"
KINDS = {"fleet.imaging.image_capture": CAPTURE, "fleet.imaging.image_restore": RESTORE}


class CallbackModule(CallbackBase):
    """Reports events to an Outcome, and shows its lines at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet.imaging.outcome"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._outcome: Outcome | None = None
        self._play: Any = None
        self._process = os.getpid()
        atexit.register(self._at_exit)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Handle the start of a run."""
        self._outcome = Outcome()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Handle the start of a play. Its hosts are known when its first task starts."""
        self._play = play

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Handle the start of a task on a host."""
        if self._outcome is None:
            return
        # The play that checks the settings runs on all hosts of the inventory, so its hosts are not those of the transfer.
        if self._play is not None and _action(task) != SETTINGS:
            play, self._play = self._play, None
            variables = play.get_variable_manager().get_vars(play=play, host=host)
            self._outcome.expect(variables.get("ansible_play_hosts_all", []))
        kind = _kind(task, task.check_mode)
        if kind:
            self._outcome.begin(host.get_name(), kind)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Handle a task that was skipped on a host."""
        if self._outcome is not None and _kind(result.task, False):
            self._outcome.skip(result.host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Handle a task that succeeded."""
        self._learn(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Handle a task that failed."""
        self._learn(result)
        if not ignore_errors:
            self._fail(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Handle an unreachable host."""
        self._learn(result)
        if not result.task_fields.get("ignore_unreachable"):
            self._fail(result, unreachable=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Handle the end of the run."""
        if self._outcome is not None:
            self._outcome.forgive(set(stats.rescued) - set(stats.failures) - set(stats.dark))
            self._finish(interrupted=False)

    def _at_exit(self) -> None:
        """Handle the end of the process before the end of the run. Ansible's workers, which have a copy of this object, do nothing here."""
        if os.getpid() == self._process:
            self._finish(interrupted=True)

    def _learn(self, result: Any) -> None:
        kind = _kind(result.task, result.task_fields.get("check_mode"))
        if self._outcome is not None and kind:
            self._outcome.end(result.host.get_name(), kind, result.result)

    def _fail(self, result: Any, unreachable: bool = False) -> None:
        if _action(result.task) == SETTINGS:
            self._outcome = None  # nothing has begun, and the failed task's message says what to correct
        if self._outcome is not None:
            self._outcome.fail(result.host.get_name(), failure_message(result.result), unreachable)

    def _finish(self, interrupted: bool) -> None:
        outcome, self._outcome = self._outcome, None
        for line in outcome.lines(interrupted, sys.argv) if outcome is not None else []:
            self._display.display(line)


def _action(task: Any) -> str:
    """Return the full name of the module or action plugin of a task."""
    return str(getattr(task, "resolved_action", None) or task.action)


def _kind(task: Any, check_mode: Any) -> str:
    """Return the kind of transfer of a task; empty for any other task, and for a capture in check mode."""
    kind = KINDS.get(_action(task), "")
    if check_mode:
        return COMPARE if kind == RESTORE else ""
    return kind
