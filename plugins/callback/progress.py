# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows how every transfer gets on, while Ansible's own output scrolls above."""

from __future__ import annotations

DOCUMENTATION = """
name: progress
type: notification
short_description: Live progress of captures, restores and comparisons
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Shows a line for each laptop that is at work with M(fleet.imaging.image_capture) or M(fleet.imaging.image_restore), with a bar, used bytes
    done and to do, throughput, when it will be done, what limits it, and how its link stands; and a line for all of them.
  - On a terminal the lines stay at its bottom, the slowest laptops first, and as many as there is room for. Elsewhere a plain line
    is written for each laptop every ten seconds, and at each tenth of the way.
  - Without this plugin the same plain lines come through Ansible's own output, which does not show them before the end where it is no terminal.
  - Uses no colour where E(NO_COLOR) or E(ANSIBLE_NOCOLOR) is set.
requirements:
  - To be enabled, C(callbacks_enabled = fleet.imaging.progress) in C(ansible.cfg).
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
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.board import Board
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.line import LARGEST_NEWS, News, plain_line
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.screen import Screen
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.teller import EVERY, SOCKET, Rhythm

LEAST_LINES = 8
"""A terminal with fewer gets plain lines."""

DRAW_EVERY = 0.2
"""Seconds between two pictures, at the least."""


class CallbackModule(CallbackBase):
    """Hears the news of all workers, and shows them from a thread of its own, until the play goes on to something else."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet.imaging.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._folder: Scratch | None = None
        self._socket: socket.socket | None = None
        self._process = os.getpid()
        self._board = Board()
        self._rhythms: dict[str, Rhythm] = {}
        self._drawing = threading.Lock()
        self._screen = Screen(_write, _measure) if _is_terminal() else None
        self._colour = not (C.ANSIBLE_NOCOLOR or os.environ.get("NO_COLOR"))

    def v2_playbook_on_start(self, playbook: object) -> None:
        """Have the socket ready before the first worker is forked, which inherits its path."""
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
        threading.Thread(target=self._hear_on, args=(self._socket,), name="progress", daemon=True).start()

    def _hear_on(self, listening: socket.socket) -> None:
        drawn = 0.0
        while True:
            try:
                news = News.unpack(listening.recv(2 * LARGEST_NEWS))
            except (TimeoutError, ValueError):
                continue
            except OSError:
                return
            with self._drawing:
                self._board.hear(news)
                if self._screen is None or _measure()[1] < LEAST_LINES:
                    self._write_line(news)
                elif news.ended or time.monotonic() - drawn >= DRAW_EVERY:
                    drawn = time.monotonic()
                    columns, most = self._screen.room()
                    self._screen.show(self._board.picture(columns, most, self._colour))

    def _write_line(self, news: News) -> None:
        if self._rhythms.setdefault(news.host, Rhythm()).due(news):
            _write(plain_line(news) + "\n")

    def _clear(self) -> None:
        with self._drawing:
            self._board.clear()
            self._rhythms.clear()
            if self._screen is not None:
                self._screen.clear()

    def v2_playbook_on_task_start(self, task: object, is_conditional: bool) -> None:
        """Another task: what was shown is over."""
        self._clear()

    def v2_playbook_on_handler_task_start(self, task: object) -> None:
        """The same."""
        self._clear()

    def v2_playbook_on_play_start(self, play: object) -> None:
        """The same."""
        self._clear()

    def v2_playbook_on_stats(self, stats: object) -> None:
        """The end."""
        self._end()

    def _end(self) -> None:
        """Leave nothing behind, be it the end or Ctrl-C; a worker that was forked has nothing to do with it."""
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


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _measure() -> tuple[int, int]:
    """Columns and lines of the terminal, as it is now."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return 80, 0
    return size.columns, size.lines


def _write(text: str) -> None:
    """All of it at once, so that nothing comes in between; Ansible writes to the same file from its own threads."""
    sys.stdout.write(text)
    sys.stdout.flush()
