# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport ``ssh`` with paramiko: a ``direct-tcpip`` channel (RFC 4254, 7.2) to a port of the laptop."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from ...module_utils.errors import ImagingError
from ...module_utils.stream.link import Channel
from ...module_utils.stream.listener import LOOPBACK
from ...module_utils.timeouts import Timeouts
from .known_hosts import KnownHosts
from .piped_program import PipedProgram
from .ssh_settings import SshConfig, SshSettings
from .tcp import connect
from .transport import Refused, Unreachable, denied, forbidden

try:
    import paramiko
except ImportError as problem:
    MISSING: ImportError | None = problem
    """Why paramiko can't be used."""
else:
    MISSING = None

WINDOW = 4 << 20
"""Maximum bytes that have arrived but were not taken; enough for a gigabit with a round trip of 34 ms."""

PACKET = 1 << 20
"""Maximum packet size that the laptop may send. OpenSSH sends at once what it has read: with 32 KiB, receiving was a third as fast."""

RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
"""The algorithms with which a host key of type ssh-rsa is requested (RFC 8332)."""

ENOUGH_TRIES = 3
"""After this many keys, a closed connection is the server's decision and not a network error: by default, sshd allows 6 attempts."""

# Without a handler, paramiko's messages would appear on the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Paramiko:
    """Connects with paramiko, by OpenSSH's configuration and the options of Ansible's connection."""

    def __init__(self, settings: SshSettings, timeouts: Timeouts) -> None:
        """Raise ImagingError when paramiko is not installed."""
        if MISSING:
            raise ImagingError(
                f"imaging_transport: ssh needs the Python package paramiko for the Python that runs ansible-playbook ({MISSING}): install it (pip "
                "install paramiko), or set imaging_ssh_client: openssh."
            ) from MISSING
        self._settings = settings
        self._timeouts = timeouts
        self._config = settings.config
        self.address = settings.config.hostname

    def open(self, port: int, seconds: float) -> Channel:
        connection = _Connection(*self._connect(seconds), self._timeouts.stuck)
        try:
            self._log_in(connection.transport, seconds)
            channel = connection.transport.open_channel(
                "direct-tcpip",
                (LOOPBACK, port),
                (LOOPBACK, 0),
                window_size=WINDOW,
                max_packet_size=PACKET,
                timeout=seconds,
            )
            return ParamikoChannel(channel, connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, paramiko.ChannelException):
                if error.code == paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
                    raise forbidden(self.address) from error
                raise Refused(f"The laptop's sshd could not connect to its own port {port}: {error}.") from error
            if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
                raise Unreachable(f"The SSH connection to {self.address} failed: {_words(error)}.") from error
            raise

    def _connect(self, seconds: float) -> tuple[socket.socket, PipedProgram | None]:
        command = self._proxy_command()
        if command:
            program = PipedProgram(command, self._timeouts.program_end)
            return program.socket, program
        way_out = f"See that Ansible's own connection to it works: ansible -m ping {self._settings.host}."
        return connect(self.address, self._config.port, seconds, way_out), None

    def _proxy_command(self) -> list[str]:
        """Return the command of ProxyCommand or ProxyJump that connects to sshd (ssh_config(5)); empty without them."""
        config = self._config
        command = config.get("proxycommand")
        if command:
            return ["/bin/sh", "-c", f"exec {config.expand(command, path=False)}"]
        before, _comma, last = config.get("proxyjump").rpartition(",")
        if not last:
            return []
        return [
            self._settings.executable,
            *self._settings.config_file,
            *("-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "Compression=no"),
            *(("-J", before) if before else ()),
            *("-W", f"[{config.hostname}]:{config.port}"),
            *("--", last if last.startswith("ssh://") else f"ssh://{last}"),
        ]

    def _log_in(self, transport: paramiko.Transport, seconds: float) -> None:
        config = self._config
        options = transport.get_security_options()
        ciphers = [cipher for cipher in config.ciphers if cipher in options.ciphers]
        if not ciphers:
            raise ImagingError(
                f"None of the ciphers that the SSH configuration allows for {self.address} is one of paramiko's ({', '.join(options.ciphers)}). "
                "Allow one of them, or set imaging_ssh_client: openssh."
            )
        options.ciphers = ciphers
        name = config.get("hostkeyalias", config.hostname)
        files = config.words("userknownhostsfile") + config.words("globalknownhostsfile")
        known = KnownHosts(name, config.port, files) if config.checks_host_key else None
        if known is not None:
            first = [each for kind in known.kinds for each in (RSA_SIGNATURES if kind == "ssh-rsa" else (kind,))]
            usable = [kind for kind in first if kind in options.key_types]
            options.key_types = usable + [kind for kind in options.key_types if kind not in usable]
        transport.banner_timeout = transport.handshake_timeout = seconds
        transport.start_client(timeout=seconds)
        if known is not None:
            key = transport.get_remote_server_key()
            known.check(key.get_name(), key.get_base64(), key.fingerprint)
        _Login(transport, self._settings, config).run()


class _Login:
    """Tries all ways to log in, in OpenSSH's order."""

    def __init__(self, transport: paramiko.Transport, settings: SshSettings, config: SshConfig) -> None:
        self._transport = transport
        self._settings = settings
        self._user = config.user
        self._config = config
        self._tried: list[str] = []
        self._allowed = ["publickey", "password", "keyboard-interactive"]

    def run(self) -> None:
        """Log in; raises ImagingError when no way succeeds."""
        address = self._config.hostname
        try:
            self._transport.auth_none(self._user)
        except paramiko.BadAuthenticationType as error:
            self._allowed = error.allowed_types
        try:
            for what, authenticate in self._ways():
                self._tried.append(what)
                try:
                    authenticate()
                except paramiko.BadAuthenticationType as error:
                    self._allowed = error.allowed_types
                except paramiko.AuthenticationException as error:
                    if not self._transport.is_active():
                        raise paramiko.SSHException(str(error)) from error
                if self._transport.is_authenticated():
                    return
        except (paramiko.SSHException, EOFError) as error:
            # The reason is unknown: the server refused more attempts, or the network failed.
            if len(self._tried) < ENOUGH_TRIES:
                raise
            self._tried.append(f"then it closed the connection ({_words(error)})")
        tried = ", ".join(self._tried) or "nothing, for there is no key and no password"
        raise denied(address, f"it allows {', '.join(self._allowed)} for {self._user}; tried: {tried}.")

    def _ways(self) -> Iterator[tuple[str, Any]]:
        """Yield the ways to log in; each attempt may change which ones are allowed."""
        if self._config.get("pubkeyauthentication", "yes") not in ("no", "false") and "publickey" in self._allowed:
            yield from self._keys()
        password = self._settings.password
        if password and {"password", "keyboard-interactive"} & set(self._allowed):
            yield "the password", lambda: self._transport.auth_password(self._user, password, fallback=True)

    def _keys(self) -> Iterator[tuple[str, Any]]:
        files = [self._config.expand(file) for file in self._config.all("identityfile")]
        with self._agent() as agent_keys:
            wanted = {text for file in files if (text := _public_text(file))}
            mine = [key for key in agent_keys if key.get_base64() in wanted]
            if self._config.get("identitiesonly", "no") not in ("yes", "true"):
                mine += [key for key in agent_keys if key not in mine]
            for key in mine:
                what = f"the agent's key {getattr(key, 'comment', '') or key.get_name()}"
                yield what, lambda key=key: self._transport.auth_publickey(self._user, key)
            done = {key.get_base64() for key in mine}
        for file in files:
            if not os.path.exists(file) or _public_text(file) in done:
                continue
            yield from self._key_of(file)

    def _key_of(self, file: str) -> Iterator[tuple[str, Any]]:
        try:
            passphrase = self._settings.passphrase
            key = paramiko.PKey.from_path(file, passphrase.encode() if passphrase else None)  # type: ignore[arg-type]
        except Exception as error:  # paramiko and cryptography raise many kinds; each means that the key can't be used
            self._tried.append(f"{file} (not usable: {_words(error)})")
            return
        yield file, lambda: self._transport.auth_publickey(self._user, key)

    @contextlib.contextmanager
    def _agent(self) -> Iterator[list[paramiko.AgentKey]]:
        """Provide the keys of the agent in the configuration (IdentityAgent), otherwise of the default agent."""
        agent_socket = self._config.get("identityagent", "SSH_AUTH_SOCK")
        usual = os.environ.get("SSH_AUTH_SOCK")
        path = usual if agent_socket == "SSH_AUTH_SOCK" else self._config.expand(agent_socket)
        if not path or not os.path.exists(path) or "none" in self._config.raw("identityagent"):
            yield []
            return
        os.environ["SSH_AUTH_SOCK"] = path
        try:
            agent = paramiko.Agent()
        finally:
            if usual is None:
                del os.environ["SSH_AUTH_SOCK"]
            else:
                os.environ["SSH_AUTH_SOCK"] = usual
        try:
            yield list(agent.get_keys())
        finally:
            agent.close()


def _public_text(file: str) -> str:
    """Return the base64 text of the public key beside a private key; empty when there is none."""
    try:
        with open(f"{file}.pub", encoding="utf-8", errors="replace") as public:
            return public.read(64 << 10).split()[1]
    except (OSError, IndexError):
        return ""


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


class _PatientSocket(socket.socket):
    """A socket for paramiko that fails when nothing can be sent for too long: paramiko itself would try for ever."""

    patience: float
    """Seconds."""
    _stuck_since: float | None = None

    def send(self, data: Any, flags: int = 0, /) -> int:
        try:
            count = super().send(data, flags)
        except TimeoutError:
            self._stuck_since = self._stuck_since or time.monotonic()
            if time.monotonic() - self._stuck_since > self.patience:
                raise ConnectionAbortedError("nothing could be sent any more") from None
            raise
        self._stuck_since = None
        return count


class _Connection:
    """An SSH connection, and the program that carries it, if any."""

    def __init__(self, sock: socket.socket, program: PipedProgram | None, stuck: float) -> None:
        """``stuck``: seconds without any progress in sending after which the connection counts as broken."""
        self._program = program
        self._socket = _PatientSocket(fileno=sock.detach())
        self._socket.patience = stuck
        try:
            if self._socket.family != socket.AF_UNIX:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.transport = paramiko.Transport(
                self._socket, default_window_size=WINDOW, default_max_packet_size=PACKET
            )
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        self._socket.close()
        if self._program:
            self._program.end()

    def close(self) -> None:
        self.transport.close()
        self._end()


class ParamikoChannel:
    """An SSH channel as the channel of a link (``stream.link.Channel``)."""

    def __init__(self, channel: paramiko.Channel, connection: _Connection) -> None:
        self._channel = channel
        self._connection = connection
        self.settimeout = channel.settimeout

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all data; each packet has the whole timeout."""
        view = memoryview(data)
        largest = self._channel.out_max_packet_size
        with _as_os_error():
            while view:
                view = view[self._channel.send(bytes(view[:largest])) :]

    def recv_into(self, buffer: memoryview, /) -> int:
        with _as_os_error():
            data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        channel = self._channel
        return bool(channel.recv_ready() or channel.eof_received or channel.closed)

    def end_sending(self) -> None:
        with _as_os_error():
            self._channel.shutdown_write()

    def close(self) -> None:
        """End the channel and its connection, which wakes a blocked thread."""
        self._connection.close()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except (paramiko.SSHException, EOFError) as error:
        raise OSError(_words(error)) from error
