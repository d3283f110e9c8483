# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the tests: write down the news of transfers, with the time at which each came."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from dataclasses import asdict

from ansible.plugins.callback import CallbackBase

from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.line import News
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.teller import SOCKET

DOCUMENTATION = """
name: news
type: notification
short_description: News of transfers as lines of JSON
description:
  - Appends one line for each piece of news to the file that E(FLEET_IMAGING_TEST_NEWS) names; does nothing when it is not set.
"""


class CallbackModule(CallbackBase):
    """In place of the one that shows them."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "news"

    def v2_playbook_on_start(self, playbook: object) -> None:
        path = os.environ.get("FLEET_IMAGING_TEST_NEWS")
        if not path:
            return
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        folder = tempfile.TemporaryDirectory(prefix="fleet-news-")
        listening.bind(os.path.join(folder.name, "socket"))
        os.environ[SOCKET] = os.path.join(folder.name, "socket")

        def hear() -> None:
            with open(path, "a", encoding="utf-8") as file:
                while True:
                    news = asdict(News.unpack(listening.recv(4096)))
                    file.write(json.dumps(dict(news, at=time.monotonic())) + "\n")
                    file.flush()
                    if news["ended"]:
                        folder.cleanup()
                        return

        threading.Thread(target=hear, daemon=True).start()
