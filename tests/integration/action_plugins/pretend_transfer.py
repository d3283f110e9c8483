# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the tests: publishes the progress of a transfer that does not take place, from a real worker, as the real ones do."""

from __future__ import annotations

import threading
import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.fleet.imaging.plugins.plugin_utils.interruption import interruptible
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.line import ProgressEvent
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.publisher import Publisher

GIB = 1 << 30


class ActionModule(ActionBase):
    """Takes ``seconds``, and is at ``share`` when it ends."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point, called by Ansible."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        host = str((task_vars or {})["inventory_hostname"])
        seconds, state = float(self._task.args["seconds"]), str(self._task.args.get("state", "streaming"))
        began = time.monotonic()

        def event() -> ProgressEvent:
            share = min(1.0, (time.monotonic() - began) / seconds)
            left = max(0.0, seconds - (time.monotonic() - began))
            return ProgressEvent(
                host, state, int(12 * GIB * share), 12 * GIB, share, 212e6, 198e6, left, "network", 0.94
            )

        with interruptible(), Publisher(event, self._display.display):
            threading.Event().wait(seconds)
        return dict(result, changed=True)
