# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real pseudo-terminal with an emulator behind it: what a person sees of a command."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import pyte


class Terminal:
    """A command in a terminal of its own; ends with it."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        columns: int = 120,
        lines: int = 30,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        """Everything that was written."""
        self.status: int | None = None
        """Of the command, once it has ended; negative for a signal."""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(folder)
                os.execvpe(command[0], list(command), {**environment, "TERM": "xterm-256color"})
            finally:
                os._exit(127)
        self._set_size(columns, lines)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, as a window does."""
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)

    def enter(self, text: str) -> None:
        """Type something."""
        os.write(self._terminal, text.encode())

    def rows(self) -> list[str]:
        """What is on the screen, without blanks at the ends of lines."""
        return [row.rstrip() for row in self.screen.display]

    def text(self) -> str:
        """What is on the screen and has scrolled out of it."""
        history = [
            "".join(line[column].data for column in range(self.screen.columns)) for line in self.screen.history.top
        ]
        return "\n".join(line.rstrip() for line in [*history, *self.screen.display])

    def pump(self, seconds: float) -> bool:
        """Take what is written, for so long at the most; false when the command has ended."""
        readable, dummy, dummy = select.select([self._terminal], [], [], seconds)
        if not readable:
            return True
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:
            data = b""
        if not data:
            self._reap()
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def _reap(self) -> None:
        if self.status is None:
            _pid, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)

    def watch(self, until: Callable[[Terminal], bool], seconds: float = 120) -> bool:
        """Take what is written until something is so; false when the command ended or the time was over before."""
        deadline = time.monotonic() + seconds
        while not until(self):
            if time.monotonic() > deadline or not self.pump(0.2):
                return until(self)
        return True

    def finish(self, seconds: float = 240) -> int | None:
        """Take what is written until the command ends; returns its status."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.pump(0.2):
            pass
        return self.status

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGINT)
            self.finish(30)
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        os.close(self._terminal)
