# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaves a report of each capture, restore and comparison in the image store, and says after a failed one how to continue."""

DOCUMENTATION = r"""
name: report
type: notification
short_description: Leave a report of a capture, a restore or a comparison in the image store, and say how to continue after a failure
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Writes one HTML page, which needs nothing else, and the same content as JSON, into the folder C(reports) of the image store.
    They say how every laptop fared, with all that failed in full, from where it took the image, how fast it was over time, and what limited it.
  - A run has a report when M(fleet.imaging.image_capture) or M(fleet.imaging.image_restore) was started in it, or when it is one of the
    playbooks capture, restore and verify, and failed. One that is interrupted has a report, too, which says so.
  - The folder of an image store is made for a report if a transfer was begun. A run that failed before that has a report where there is one.
  - For an image store that is not a folder on the controller, the reports are in the folder of C(imaging_store_staging).
  - The files have mode 0600. They name laptops, disks and serial numbers, and hold nothing of what is on the disks.
  - The variable C(imaging_store) says where the image store is, and C(imaging_report=false) that there is to be no report.
  - When a run with M(fleet.imaging.image_restore) fails for some laptops or is interrupted, its last lines say which disks do not boot now,
    which may not boot, and which were not touched, and show the command to continue with these laptops.
  - After a failed capture, the last lines say whether the stored part is kept, and show the command to continue.
  - When Ansible could not log in or become root, they name the missing option, as the message of the task does.
  - Values of variables whose names hold V(pass), V(secret) or V(token) are left out of the command.
requirements:
  - It must be enabled with C(callbacks_enabled) in the settings of Ansible, as it is in the folder C(playbooks) of the collection.
"""

import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ansible import __version__ as ansible_version
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.template import Templar

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.closing_lines import closing_lines
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.summary import summary
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.write import write_report
from ansible_collections.fleet.imaging.plugins.plugin_utils.run import Run
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_callback import RunCallback
from ansible_collections.fleet.imaging.plugins.plugin_utils.settings import SETTINGS as VARIABLES
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import report_folder
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import collection_version

DEFAULTS = {name: VARIABLES[name].default for name in ("imaging_store", "imaging_store_staging", "imaging_report")}


class CallbackModule(RunCallback):
    """Writes the report of a run, and shows its closing lines."""

    CALLBACK_NAME = "fleet.imaging.report"

    def __init__(self) -> None:
        super().__init__()
        self._settings: dict[str, Any] | None = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        super().v2_playbook_on_start(playbook)
        self._settings = None

    def learn_variables(self, play: Any, variables: Mapping[str, Any]) -> None:
        """Take the report's settings from the first play."""
        if self._settings is not None:
            return
        templar = Templar(loader=play.get_loader(), variables=variables)
        try:
            self._settings = {name: templar.template(variables.get(name, DEFAULTS[name])) for name in DEFAULTS}
        except AnsibleError as error:
            self._display.warning(f"There will be no report: imaging_store or imaging_report can't be read: {error}")
            self._settings = dict(DEFAULTS, imaging_report=False)

    def finish(self, run: Run, interrupted: bool) -> None:
        """Write the report, and show the closing lines in any case."""
        run.close(datetime.now(UTC), interrupted)
        try:
            self._write(run)
        finally:
            for line in closing_lines(run, interrupted, sys.argv):
                self._display.display(line)

    def _write(self, run: Run) -> None:
        """Write the report, if one is wanted. If it can't be written, the run does not fail."""
        settings = self._settings or DEFAULTS
        if not run.worth_a_report or not boolean(settings["imaging_report"], strict=False):
            return
        run.versions = _versions()
        try:
            folder = report_folder(str(settings["imaging_store"]), str(settings["imaging_store_staging"]))
            if run.transferred:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            path = write_report(folder, summary(run), run.began)
        except OSError as error:
            self._display.warning(
                f"No report was written to {error.filename or settings['imaging_store']}: {error.strerror or error}."
            )
        except ValueError as error:
            self._display.warning(f"No report was written: {error}.")
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
        return versions  # a transfer fails with a message that says what to do
