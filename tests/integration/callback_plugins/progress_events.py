# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the tests: write down the progress events of transfers, with the time at which each arrived."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from dataclasses import asdict

from ansible.plugins.callback import CallbackBase

from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.line import ProgressEvent
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.publisher import SOCKET

DOCUMENTATION = """
name: progress_events
type: notification
short_description: Progress of transfers as lines of JSON
description:
  - Appends one line for each progress event to the file that E(FLEET_IMAGING_TEST_PROGRESS) names; does nothing when it is not set.
"""


class CallbackModule(CallbackBase):
    """Replaces the callback that shows the progress."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "progress_events"

    def v2_playbook_on_start(self, playbook: object) -> None:
        path = os.environ.get("FLEET_IMAGING_TEST_PROGRESS")
        if not path:
            return
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        folder = tempfile.TemporaryDirectory(prefix="fleet-progress-")
        listening.bind(os.path.join(folder.name, "socket"))
        os.environ[SOCKET] = os.path.join(folder.name, "socket")

        def update() -> None:
            with open(path, "a", encoding="utf-8") as file:
                while True:
                    event = asdict(ProgressEvent.unpack(listening.recv(4096)))
                    file.write(json.dumps(dict(event, at=time.monotonic())) + "\n")
                    file.flush()
                    if event["ended"]:
                        folder.cleanup()
                        return

        threading.Thread(target=update, daemon=True).start()
