# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishes the progress of a transfer: to the callback plugin if it is enabled, else as plain lines in Ansible's own output.

A worker can only print through Ansible's display. The callback gets datagrams on a socket whose path is in the environment, which workers
inherit. Neither end waits for the other, and the next datagram makes up for a lost one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from .line import MAX_EVENT_SIZE, ProgressEvent, plain_line

SOCKET = "FLEET_IMAGING_PROGRESS"
"""The environment variable with the path of the callback's socket."""

EVERY = 0.5
"""Seconds between two datagrams."""

LINE_EVERY = 10.0
"""Seconds between two plain lines of a laptop, unless it has done another tenth."""


class Throttle:
    """Decides when a laptop's next plain line is due: every ten seconds, at each tenth of each state, and at the end, unless nothing changed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._tenth = 0
        self._state = ""

    def due(self, event: ProgressEvent) -> bool:
        """Return whether this progress should be shown."""
        now, state = self._clock(), event.state
        tenth = 10 * event.done // event.total if event.total > 0 else 0
        known = self._state in ("", state)
        late = now - self._last >= LINE_EVERY
        another = known and event.total > 0 and tenth > self._tenth
        if not known:
            self._tenth = 0
        self._state = state
        if late or another or (event.ended and event.total > 0 and tenth != self._tenth):
            self._last, self._tenth = now, tenth
            return True
        return False


class Publisher:
    """Publishes the progress of one transfer from a thread of its own, as a context manager."""

    def __init__(self, make_event: Callable[[], ProgressEvent], display: Callable[[str], object]) -> None:
        self._make_event = make_event
        self._display = display
        self._throttle = Throttle()
        self._stop = threading.Event()
        self._socket: socket.socket | None = None
        self._path = os.environ.get(SOCKET, "")
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Publisher:
        if self._path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._publish(replace(self._make_event(), ended=True))
        if self._socket is not None:
            self._socket.close()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._publish(self._make_event())

    def _publish(self, event: ProgressEvent) -> None:
        if self._socket is not None:
            data = event.pack()
            try:
                if len(data) <= MAX_EVENT_SIZE:
                    self._socket.sendto(data, self._path)
            except OSError:
                pass  # the callback is busy or gone, and the transfer does not depend on it
        elif self._throttle.due(event):
            self._display(plain_line(event))
