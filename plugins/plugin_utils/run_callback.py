# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback that gathers the facts of a run; what it does with them at its end is the subclass's."""

import atexit
import getpass
import importlib.util
import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.plugins.callback import CallbackBase

from ..module_utils.printable import printable_all
from .interruption import ignore_repeated_interrupts
from .laptop_answer import documented_fields
from .outcome import Failure, transfer_kind
from .run import Run, failure_message

DISK_INFO = "fleet.imaging.disk_info"
SETTINGS = "fleet.imaging.settings"
ACTIONS = "ansible_collections.fleet.imaging.plugins.action"


class RunCallback(CallbackBase):
    """Reports Ansible's events (``v2_*``) to a Run, and hands it to ``finish`` at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._run: Run | None = None
        self._play: Any = None
        self._process = os.getpid()
        self._heed_interrupts: Callable[[], None] = lambda: None
        atexit.register(self._at_exit)

    def finish(self, run: Run, interrupted: bool) -> None:
        """Do the work of the callback."""
        raise NotImplementedError

    def learn_variables(self, play: Any, variables: Mapping[str, Any]) -> None:
        """Learn the variables of the first host of a play."""

    def v2_playbook_on_start(self, playbook: Any) -> None:
        name = os.path.splitext(os.path.basename(str(playbook._file_name)))[0]
        self._run = Run(name, _user(), platform.node(), datetime.now(UTC))
        self._heed_interrupts = ignore_repeated_interrupts()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Handle the start of a play. Its variables are known when its first task starts."""
        self._play = play

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Load what the task needs, in the process that the workers of all hosts are forked from."""
        load_once(_action(task))

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._run is None:
            return
        # The play that checks the settings runs on all hosts of the inventory, so its hosts are not those of the transfer.
        if self._play is not None and _action(task) != SETTINGS:
            play, self._play = self._play, None
            variables = play.get_variable_manager().get_vars(play=play, host=host)
            self._run.check_mode = bool(variables.get("ansible_check_mode"))
            self._run.expect(variables.get("ansible_play_hosts_all", []))
            self.learn_variables(play, variables)
        if (kind := transfer_kind(_action(task), task.check_mode)) is not None:
            self._run.begin(host.get_name(), kind, datetime.now(UTC))

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self._run is not None and transfer_kind(_action(result.task), False):
            self._run.skip(result.host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._learn(result, failed=False)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._learn(result, failed=True)
        if not ignore_errors:
            self._fail(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._learn(result, failed=True)
        if not result.task_fields.get("ignore_unreachable"):
            self._fail(result, unreachable=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._run is not None:
            self._run.forgive(set(stats.rescued) - set(stats.failures) - set(stats.dark))
            self._finish(interrupted=False)

    def _at_exit(self) -> None:
        """Handle the end of the process before the end of the run. Ansible's workers, which have a copy of this object, do nothing here."""
        if os.getpid() == self._process:
            self._finish(interrupted=True)
            self._heed_interrupts()  # what follows may wait for workers

    def _learn(self, result: Any, failed: bool) -> None:
        action, name = _action(result.task), result.host.get_name()
        if self._run is None:
            return
        if action == DISK_INFO:
            self._run.learn_disks(name, _printable(result).get("disks"))
        if (kind := transfer_kind(action, result.task_fields.get("check_mode"))) is not None:
            arguments = result.task_fields.get("args")
            given = dict(arguments) if isinstance(arguments, Mapping) else {}
            self._run.end(name, kind, given, _printable(result), failed, datetime.now(UTC))

    def _fail(self, result: Any, unreachable: bool = False) -> None:
        if _action(result.task) == SETTINGS:
            self._run = None  # nothing has begun, and the failed task's message says what to correct
        if self._run is not None:
            failure = Failure(result.task_name, failure_message(_printable(result)), unreachable)
            self._run.fail(result.host.get_name(), failure, for_all=bool(result.task.run_once))

    def _finish(self, interrupted: bool) -> None:
        run, self._run = self._run, None
        if run is not None:
            self.finish(run, interrupted)


def load_once(action: str) -> None:
    """Import the action plugin of a name of this collection and the documented fields of its module; do nothing for other names.

    Ansible imports an action plugin in each worker, so once for each host. That takes a quarter of a second of processor time, which is most of a
    task's that finds nothing to do.
    """
    namespace, _dot, name = action.rpartition(".")
    if namespace == "fleet.imaging" and importlib.util.find_spec(f"{ACTIONS}.{name}"):
        importlib.import_module(f"{ACTIONS}.{name}")
        documented_fields(name)


def _action(task: Any) -> str:
    """Return the full name of the module or action plugin of a task."""
    return str(getattr(task, "resolved_action", None) or task.action)


def _printable(result: Any) -> dict[str, Any]:
    """Return a task's result with printable texts; values that are nested too deeply are dropped."""
    shown: dict[str, Any] = printable_all(dict(result.result))
    return shown


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
