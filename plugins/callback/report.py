# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaves a report of each capture, restore and comparison in the image store."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report
type: notification
short_description: Leave a report of a capture, a restore or a comparison in the image store
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Writes one HTML page, which needs nothing else, and the same content as JSON, into the folder C(reports) of the image store.
    They say how every laptop fared, with all that failed in full, how fast it was over time, and what limited it.
  - A run has a report when M(fleet.imaging.image_capture) or M(fleet.imaging.image_restore) was started in it, or when it is one of the
    playbooks capture, restore and verify, and failed. One that is interrupted has a report, too, which says so.
  - An image store is not made for a report, so where a first capture failed before it had one there is none.
  - The files have mode 0600. They name laptops, disks and serial numbers, and hold nothing of what is on the disks.
  - The variable C(imaging_store) says where the image store is, and C(imaging_report=false) that there is to be no report.
requirements:
  - It must be enabled with C(callbacks_enabled) in the settings of Ansible, as it is in the folder C(playbooks) of the collection.
"""

import atexit
import getpass
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ansible import __version__ as ansible_version
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable_all
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.run import (
    CAPTURE,
    COMPARE,
    RESTORE,
    Failure,
    Run,
    failure_message,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.summary import summary
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.write import write_report
from ansible_collections.fleet.imaging.plugins.plugin_utils.settings import SETTINGS as VARIABLES
from ansible_collections.fleet.imaging.plugins.plugin_utils.store import ImageStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import collection_version

KINDS = {"fleet.imaging.image_capture": CAPTURE, "fleet.imaging.image_restore": RESTORE}
DISK_INFO = "fleet.imaging.disk_info"
SETTINGS = "fleet.imaging.settings"

DEFAULTS = {name: VARIABLES[name].default for name in ("imaging_store", "imaging_report")}


class CallbackModule(CallbackBase):
    """Reports events to a Run, and writes the report at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet.imaging.report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._run: Run | None = None
        self._play: Any = None
        self._settings: dict[str, Any] | None = None
        self._process = os.getpid()
        atexit.register(self._at_exit)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Handle the start of a run."""
        name = os.path.splitext(os.path.basename(str(playbook._file_name)))[0]
        self._run = Run(name, _user(), platform.node(), datetime.now(UTC))
        self._settings = None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Handle the start of a play. Its variables are known when its first task starts."""
        self._play = play

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Handle the start of a task on a host."""
        if self._run is None:
            return
        # The play that checks the settings runs on all hosts of the inventory, so its hosts are not those of the transfer.
        if self._play is not None and _action(task) != SETTINGS:
            self._learn_play(host)
        if (kind := KINDS.get(_action(task))) is not None:
            self._run.begin(host.get_name(), kind, datetime.now(UTC))

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Handle a task that was skipped on a host."""
        if self._run is not None and _action(result.task) in KINDS:
            self._run.skip(result.host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Handle a task that succeeded."""
        self._learn(result, failed=False)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Handle a task that failed."""
        self._learn(result, failed=True)
        if not ignore_errors:
            self._fail(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Handle an unreachable host."""
        self._learn(result, failed=True)
        if not result.task_fields.get("ignore_unreachable"):
            self._fail(result, unreachable=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Handle the end of the run."""
        if self._run is not None:
            self._run.forgive(set(stats.rescued) - set(stats.failures) - set(stats.dark))
            self._finish(interrupted=False)

    def _at_exit(self) -> None:
        """Handle the end of the process before the end of the run. Ansible's workers, which have a copy of this object, do nothing here."""
        if os.getpid() == self._process:
            self._finish(interrupted=True)

    def _learn_play(self, host: Any) -> None:
        """Take the hosts of the play, and the report's settings from its first host."""
        play, self._play = self._play, None
        variables = play.get_variable_manager().get_vars(play=play, host=host)
        templar = Templar(loader=play.get_loader(), variables=variables)
        if self._run is not None:
            self._run.check_mode = bool(variables.get("ansible_check_mode"))
            self._run.expect(variables.get("ansible_play_hosts_all", []))
        if self._settings is None:
            try:
                self._settings = {name: templar.template(variables.get(name, DEFAULTS[name])) for name in DEFAULTS}
            except AnsibleError as error:
                self._display.warning(
                    f"There will be no report: imaging_store or imaging_report can't be read: {error}"
                )
                self._settings = dict(DEFAULTS, imaging_report=False)

    def _learn(self, result: Any, failed: bool) -> None:
        action, name = _action(result.task), result.host.get_name()
        if self._run is None:
            return
        if action == DISK_INFO:
            self._run.learn_disks(name, _said(result).get("disks"))
        if (kind := KINDS.get(action)) is not None:
            check_mode = bool(result.task_fields.get("check_mode"))
            if check_mode and kind == RESTORE:
                kind = COMPARE
            arguments = result.task_fields.get("args")
            given = dict(arguments) if isinstance(arguments, Mapping) else {}
            self._run.end(name, kind, given, _said(result), failed, datetime.now(UTC))

    def _fail(self, result: Any, unreachable: bool = False) -> None:
        if _action(result.task) == SETTINGS:
            self._run = None  # nothing has begun, and the store that would get the report may be wrong
        if self._run is not None:
            failure = Failure(result.task_name, failure_message(_said(result)), unreachable)
            self._run.fail(result.host.get_name(), failure, for_all=bool(result.task.run_once))

    def _finish(self, interrupted: bool) -> None:
        """Write the report, if one is wanted. If it can't be written, the run does not fail."""
        run, self._run = self._run, None
        settings = self._settings or DEFAULTS
        if run is None or not run.worth_a_report or not boolean(settings["imaging_report"], strict=False):
            return
        run.close(datetime.now(UTC), interrupted)
        run.versions = _versions()
        store = ImageStore(os.path.expandvars(str(settings["imaging_store"]))).path
        try:
            path = write_report(store, summary(run), run.began)
        except OSError as error:
            self._display.warning(f"No report was written to {error.filename or store}: {error.strerror or error}.")
        else:
            self._display.display(f"Report: {path}")


def _versions() -> dict[str, str]:
    versions = {
        "fleet.imaging": collection_version(),
        "ansible-core": ansible_version,
        "Python": platform.python_version(),
    }
    try:
        return versions | {"zstd (controller)": find_zstd().name}
    except ImagingError:
        return versions  # a transfer says it, and what to do


def _action(task: Any) -> str:
    """Return the full name of the module or action plugin of a task."""
    return str(getattr(task, "resolved_action", None) or task.action)


def _said(result: Any) -> dict[str, Any]:
    """Return a task's result with printable texts; values that are nested too deeply are dropped."""
    said: dict[str, Any] = printable_all(dict(result.result))
    return said


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
