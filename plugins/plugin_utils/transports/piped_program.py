# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that carry a connection on their standard input and output: ``ssh -W``, or a user's ProxyCommand."""

import contextlib
import socket
import subprocess
from collections.abc import Mapping, Sequence

from ...module_utils.errors import ImagingError


class PipedProgram:
    """A program, and the socket that is connected to its standard input and output."""

    def __init__(
        self,
        command: Sequence[str],
        end_time: float,
        environment: Mapping[str, str] | None = None,
        capture_stderr: bool = False,
    ) -> None:
        """Start the program; raises ImagingError. With ``capture_stderr``, its standard error is available as ``process.stderr``.

        ``end_time``: seconds within which it should end by itself after its connection is closed.
        """
        self._end_time = end_time
        self.socket, theirs = socket.socketpair()
        try:
            # In its own session, it has no terminal for questions, and Ctrl-C reaches only this process.
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE if capture_stderr else subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self.socket.close()
            raise ImagingError(f"{command[0]} can't be started: {error.strerror}.") from error
        finally:
            theirs.close()

    def end(self) -> None:
        """Close the connection, and end the program."""
        with contextlib.suppress(OSError):  # it may be closed already
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        try:
            self.process.wait(self._end_time)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
