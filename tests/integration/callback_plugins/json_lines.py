# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the tests: write every task's result, and what a playbook's hosts came to, as lines of JSON to a file."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: json_lines
type: notification
short_description: Results as lines of JSON
description:
  - Appends one line for each result to the file that E(FLEET_IMAGING_TEST_RESULTS) names; does nothing when it is not set.
"""


class CallbackModule(CallbackBase):
    """Writes the lines; loaded whenever its folder is on the path for callback plugins."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "json_lines"

    def _write(self, status: str, result: Any) -> None:
        path = os.environ.get("FLEET_IMAGING_TEST_RESULTS")
        if not path:
            return
        line = {
            "status": status,
            "host": result.host.get_name(),
            "task": result.task.get_name(),
            "action": result.task.action,
            "result": result.result,
        }
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write("unreachable", result)
