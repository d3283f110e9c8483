# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the progress of every transfer, while Ansible's own output scrolls above."""

DOCUMENTATION = """
name: progress
type: notification
short_description: Live progress of captures, restores and comparisons
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Shows a line for each laptop that runs M(fleet.imaging.image_capture) or M(fleet.imaging.image_restore), with a bar, the used bytes
    done and in total, the throughput, the time left, the limiting resource and the state of the link; and a line for all laptops together.
  - On a terminal the lines stay at the bottom, the slowest laptops first, as many as fit. Elsewhere, a plain line is written for each
    laptop every ten seconds, and at each tenth of the way.
  - Without this plugin, the same plain lines go through Ansible's own output, which shows them only at the end if it is not a terminal.
  - Uses no colour if E(NO_COLOR) or E(ANSIBLE_NOCOLOR) is set.
requirements:
  - C(callbacks_enabled = fleet.imaging.progress) in C(ansible.cfg).
"""

import atexit
import os
import socket
import sys
import threading
import time

from ansible import constants as C
from ansible.plugins.callback import CallbackBase

from ansible_collections.fleet.imaging.plugins.module_utils.private_files import Scratch
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.line import (
    MAX_EVENT_SIZE,
    ProgressEvent,
    plain_line,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.publisher import EVERY, SOCKET, Throttle
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.screen import Screen
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.table import Table

MIN_LINES = 8
"""Minimum lines of a terminal for the table; a smaller one gets plain lines."""

DRAW_EVERY = 0.2
"""Minimum seconds between two updates."""


class CallbackModule(CallbackBase):
    """Receives the progress of all workers, and shows it from a thread of its own until the next task starts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet.imaging.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._folder: Scratch | None = None
        self._socket: socket.socket | None = None
        self._process = os.getpid()
        self._table = Table()
        self._throttles: dict[str, Throttle] = {}
        self._drawing = threading.Lock()
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._screen = Screen(_write, _measure) if is_terminal else None
        self._colour = not (C.ANSIBLE_NOCOLOR or os.environ.get("NO_COLOR"))

    def v2_playbook_on_start(self, playbook: object) -> None:
        """Create the socket before the first worker is forked, which inherits its path."""
        self._folder = Scratch()
        path = os.path.join(self._folder.path, "progress")
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(path)
        except OSError as error:
            self._display.warning(
                f"There will be no live progress: no socket can be made at {path} ({error}). Set TMPDIR to a shorter path."
            )
            self._end()
            return
        os.environ[SOCKET] = path
        self._socket.settimeout(EVERY)
        atexit.register(self._end)
        threading.Thread(target=self._receive_events, args=(self._socket,), name="progress", daemon=True).start()

    def _receive_events(self, listening: socket.socket) -> None:
        drawn = 0.0
        while True:
            try:
                event = ProgressEvent.unpack(listening.recv(2 * MAX_EVENT_SIZE))
            except (TimeoutError, ValueError):
                continue
            except OSError:
                return
            with self._drawing:
                self._table.update(event)
                if self._screen is None or _measure()[1] < MIN_LINES:
                    self._write_line(event)
                elif event.ended or time.monotonic() - drawn >= DRAW_EVERY:
                    drawn = time.monotonic()
                    columns, most = self._screen.room()
                    self._screen.show(self._table.render(columns, most, self._colour))

    def _write_line(self, event: ProgressEvent) -> None:
        if self._throttles.setdefault(event.host, Throttle()).due(event):
            _write(plain_line(event) + "\n")

    def _clear(self) -> None:
        with self._drawing:
            self._table.clear()
            self._throttles.clear()
            if self._screen is not None:
                self._screen.clear()

    def v2_playbook_on_play_start(self, *_event: object, **_more: object) -> None:
        """Clear the table: no transfer of the former task goes on."""
        self._clear()

    v2_playbook_on_task_start = v2_playbook_on_handler_task_start = v2_playbook_on_play_start

    def v2_playbook_on_stats(self, stats: object) -> None:
        """Clear the table: the run has ended."""
        self._end()

    def _end(self) -> None:
        """Remove the socket, at the end or after Ctrl-C, but not in a forked worker."""
        if os.getpid() != self._process:
            return
        os.environ.pop(SOCKET, None)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._clear()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None


def _measure() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return 80, 0
    return size.columns, size.lines


def _write(text: str) -> None:
    """Write all of the text at once, because Ansible's threads write to the same file."""
    sys.stdout.write(text)
    sys.stdout.flush()
