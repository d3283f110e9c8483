# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport ``ssh`` with OpenSSH's client: ``ssh -W``, for hardware keys, GSSAPI and everything else that only OpenSSH supports."""

import collections
import contextlib
import os
import threading
from collections.abc import Iterator

from ...module_utils.errors import ImagingError
from ...module_utils.private_files import scratch_folder
from ...module_utils.stream.link import Channel, LinkError, SocketChannel
from ...module_utils.stream.listener import LOOPBACK
from ...module_utils.timeouts import Timeouts
from .piped_program import PipedProgram
from .ssh_settings import SshSettings
from .transport import Refused, Unreachable, denied, forbidden

AUTHENTICATED = "Authenticated to "
"""The beginning of ssh's message at LogLevel VERBOSE after the login."""

LAST_LINES = 30

ASKPASS = """\
#!/bin/sh
case "$1" in
    *assphrase*) printf '%s\\n' "$FLEET_IMAGING_PASSPHRASE" ;;
    *assword*) printf '%s\\n' "$FLEET_IMAGING_PASSWORD" ;;
    *) exit 1 ;;
esac
"""
"""The program for SSH_ASKPASS (ssh(1)): answers ssh's questions for secrets, and every other question with no."""


class OpenSsh:
    """Connects to a port of the laptop through ``ssh -W``."""

    def __init__(self, settings: SshSettings, timeouts: Timeouts) -> None:
        self._settings = settings
        self._timeouts = timeouts
        self.address = settings.config.hostname

    def open(self, port: int, seconds: float) -> Channel:
        settings = self._settings
        secret = settings.password or settings.passphrase
        command = [
            settings.executable,
            *("-o", "BatchMode=no" if secret else "BatchMode=yes"),
            *("-o", f"ConnectTimeout={max(1, round(seconds))}"),
            *("-o", f"Ciphers={','.join(settings.config.ciphers)}"),
            *("-o", "NumberOfPasswordPrompts=1"),
            *settings.arguments,
            *("-W", f"{LOOPBACK}:{port}"),
            *("--", settings.host),
        ]
        with _answers(settings) as environment:
            program = PipedProgram(command, self._timeouts.program_end, environment, capture_stderr=True)
            channel = ProgramChannel(program, self.address, port, self._timeouts)
            try:
                channel.wait_until_authenticated()
            except BaseException:
                channel.close()
                raise
        return channel


@contextlib.contextmanager
def _answers(settings: SshSettings) -> Iterator[dict[str, str]]:
    """Provide the environment in which ssh gets Ansible's secrets until the login."""
    if not settings.password and not settings.passphrase:
        yield dict(os.environ)
        return
    with scratch_folder() as folder:
        script = os.path.join(folder, "askpass")
        with open(script, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o700)) as file:
            file.write(ASKPASS)
        yield os.environ | {
            "SSH_ASKPASS": script,
            "SSH_ASKPASS_REQUIRE": "force",
            "DISPLAY": os.environ.get("DISPLAY", ":none"),
            "FLEET_IMAGING_PASSWORD": settings.password or "",
            "FLEET_IMAGING_PASSPHRASE": settings.passphrase or "",
        }


class ProgramChannel(SocketChannel):
    """The connection that an ssh process carries. If ssh ends before data has arrived, its last message becomes the error."""

    def __init__(self, program: PipedProgram, address: str, port: int, timeouts: Timeouts) -> None:
        super().__init__(program.socket)
        self._timeouts = timeouts
        self._program = program
        self._address = address
        self._port = port
        self._received = False
        self._words: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._authenticated = False
        self._decided = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="ssh's words", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        stream = self._program.process.stderr
        for line in stream or ():
            text = line.decode(errors="replace").strip()
            self._words.append(text)
            if text.startswith(AUTHENTICATED):
                self._authenticated = True
                self._decided.set()
        self._decided.set()

    def wait_until_authenticated(self) -> None:
        """Wait until ssh is logged in; raises LinkError, ImagingError."""
        if not self._decided.wait(self._timeouts.log_in):
            raise Unreachable(
                f"ssh did not log in at {self._address} within {self._timeouts.log_in:.0f} seconds. Its last output: {self._last_words()}"
            )
        if not self._authenticated:
            raise self._failure()

    def recv_into(self, buffer: memoryview, /) -> int:
        with self._explained():
            count = super().recv_into(buffer)
        if not count and not self._received:
            raise self._failure()
        self._received = True
        return count

    def sendall(self, data: bytes | memoryview, /) -> None:
        with self._explained():
            super().sendall(data)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ConnectionError as error:
            if self._received:
                raise
            raise self._failure() from error

    def _failure(self) -> ImagingError:
        self._listener.join(self._timeouts.last_words)
        words = self._last_words()
        if "administratively prohibited" in words:
            return forbidden(self._address)
        if "open failed" in words or "stdio forwarding failed" in words:
            return Refused(f"The laptop's sshd could not connect to its own port {self._port}: {words}")
        if "Host key verification failed" in words or "IDENTIFICATION HAS CHANGED" in words:
            return ImagingError(
                f"The host key of {self._address} is not the one that is known, or none is known: {words} Either something else answers at that "
                "address, or the laptop was booted anew (live media make new keys at every boot). If you know that it was, remove the old key with "
                "ssh-keygen -R, connect once by ssh to accept the new one, and run again."
            )
        if "Permission denied" in words or "Too many authentication failures" in words:
            return denied(self._address, words)
        if self._authenticated:
            return LinkError(f"The SSH connection to {self._address} broke: {words or 'ssh ended without a message'}")
        return Unreachable(f"ssh could not connect to {self._address}: {words or 'it ended without a message'}")

    def _last_words(self) -> str:
        words = [
            word for word in self._words if not word.startswith((AUTHENTICATED, "Transferred: ", "Bytes per second:"))
        ]
        return " ".join(words)

    def close(self) -> None:
        self._program.end()
