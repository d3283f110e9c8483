# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts the options of Ansible's SSH connection to a laptop for a connection of our own.

The arguments are in the order of Ansible's connection plugin ``ssh`` (OpenSSH uses the first value of an option), without those that only concern
that connection. ``ssh -G`` combines them with the user's configuration files.
"""

from __future__ import annotations

import functools
import getopt
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible.plugins.connection import ConnectionBase

from ...module_utils.errors import ImagingError
from ...module_utils.timeouts import DEFAULTS

SHORT_OPTIONS = "1246ab:c:e:fgi:kl:m:no:p:qstvxAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XYy"
"""The options of ssh(1), in the form of getopt(3)."""

NOT_FOR_BULK = frozenset(f"-{letter}" for letter in "CfgGnNqstvyADELMOQRSTVwWxXY")
"""Options for compression, a shared master and its socket, forwarding, verbosity, a remote command or a terminal."""

OVERRIDES = (
    "ControlMaster=no",
    "ControlPath=none",
    "Compression=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RequestTTY=no",
    "LogLevel=VERBOSE",
)

FASTEST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""Ciphers of RFC 5647; hardware encrypts and authenticates in one pass."""


def run_local(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of OpenSSH on this machine; raises OSError, subprocess.TimeoutExpired."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=DEFAULTS.local_program,
    )


@dataclass(frozen=True)
class SshSettings:
    """The SSH connection of a laptop: the arguments of OpenSSH, and Ansible's secrets."""

    executable: str
    host: str
    arguments: tuple[str, ...]
    password: str | None = None
    passphrase: str | None = None

    @functools.cached_property
    def config(self) -> SshConfig:
        """The effective configuration; raises ImagingError."""
        command = [self.executable, "-G", *self.arguments, "--", self.host]
        try:
            done = run_local(command)
        except OSError as error:
            raise ImagingError(
                f"{self.executable} can't be started: {error.strerror}. imaging_transport: ssh needs OpenSSH's client on this "
                "machine, as Ansible does."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ImagingError(
                f"{shlex.join(command)} did not end: see what Match exec in ~/.ssh/config waits for."
            ) from error
        if done.returncode:
            raise ImagingError(
                f"OpenSSH does not accept the connection's settings for {self.host}: {done.stderr.strip()}. They come from "
                "ansible_ssh_common_args, ansible_ssh_extra_args, ssh_args in ansible.cfg, and ~/.ssh/config."
            )
        return SshConfig(self.host, [line.partition(" ")[::2] for line in done.stdout.splitlines()])

    @property
    def config_file(self) -> list[str]:
        """The argument that selects another configuration file, which OpenSSH also passes on for a jump host."""
        for option, value in _parsed(self.arguments):
            if option == "-F":
                return ["-F", value]
        return []


class SshConfig:
    """The output of ``ssh -G``: option names in small letters, and their values."""

    def __init__(self, host: str, options: Sequence[tuple[str, str] | Sequence[str]]) -> None:
        self._host = host
        self._options = [(option[0], option[1]) for option in options]
        self.hostname = self.get("hostname", host)
        """The name or address of the laptop."""
        self.port = int(self.get("port", "22"))
        """The port of sshd."""
        self.user = self.get("user")
        """The user on the laptop."""
        self.ciphers = sorted(self.get("ciphers").split(","), key=_slowness)
        """The allowed ciphers, the fastest first."""
        self.checks_host_key = self.get("stricthostkeychecking", "ask") not in ("no", "off", "false")
        """Whether only known host keys are accepted."""

    def raw(self, name: str) -> list[str]:
        """Return all values of an option, including "none"."""
        return [value for option, value in self._options if option == name]

    def all(self, name: str) -> list[str]:
        """Return all values of an option that may be repeated."""
        return [value for value in self.raw(name) if value.lower() != "none"]

    def get(self, name: str, default: str = "") -> str:
        """Return the value of an option; ``default`` when it has none."""
        return next(iter(self.all(name)), default)

    def words(self, name: str) -> list[str]:
        """Return the value of an option that is a list of files or names."""
        return shlex.split(self.get(name))

    def expand(self, value: str, path: bool = True) -> str:
        """Return a value with its tokens replaced (ssh_config(5), TOKENS); in a path, also the home folder and variables."""
        home = os.path.expanduser("~")
        tokens = {"%": "%", "h": self.hostname, "n": self._host, "p": str(self.port), "r": self.user}
        if path:
            tokens |= {"d": home, "u": os.environ.get("USER", ""), "i": str(os.geteuid())}
        result, rest = "", value
        while rest:
            before, mark, after = rest.partition("%")
            result += before + (tokens.get(after[:1], mark + after[:1]) if mark else "")
            rest = after[1:]
        return os.path.expandvars(os.path.expanduser(result)) if path else result


def _slowness(cipher: str) -> int:
    return FASTEST_CIPHERS.index(cipher) if cipher in FASTEST_CIPHERS else len(FASTEST_CIPHERS)


def settings_of(connection: ConnectionBase) -> SshSettings:
    """Read the options of a connection; raises ImagingError unless it uses SSH."""
    host = _option(connection, "host") or _option(connection, "remote_addr")
    if connection.transport == "local" or not host:
        raise ImagingError(
            f"imaging_transport: ssh needs a laptop that Ansible reaches by SSH, and the connection to this one is {connection.transport!r}. "
            "Set imaging_transport: tcp, or the laptop's ansible_connection: ssh."
        )
    arguments = [
        *(word for option in OVERRIDES for word in ("-o", option)),
        *_for_bulk(_option(connection, "ssh_args")),
    ]
    password = _option(connection, "password")
    if _option(connection, "host_key_checking") is False:
        arguments += ["-o", "StrictHostKeyChecking=no"]
    for name, form in (("port", "Port={}"), ("private_key_file", 'IdentityFile="{}"'), ("remote_user", 'User="{}"')):
        value = _option(connection, name)
        if value not in (None, ""):
            value = os.path.expanduser(value) if name == "private_key_file" else value
            arguments += ["-o", form.format(value)]
    if not password:
        arguments += ["-o", "KbdInteractiveAuthentication=no", "-o", "PasswordAuthentication=no"]
    arguments += [*_for_bulk(_option(connection, "ssh_common_args")), *_for_bulk(_option(connection, "ssh_extra_args"))]
    return SshSettings(
        executable=str(_option(connection, "ssh_executable") or "ssh"),
        host=str(host),
        arguments=tuple(arguments),
        password=password or None,
        passphrase=_option(connection, "private_key_passphrase") or None,
    )


def _option(connection: ConnectionBase, name: str) -> Any:
    try:
        return connection.get_option(name)
    except KeyError:
        return None


def _parsed(words: Sequence[str]) -> list[tuple[str, str]]:
    try:
        options, rest = getopt.getopt(list(words), SHORT_OPTIONS)
    except getopt.GetoptError as error:
        raise ImagingError(
            f"The connection's SSH arguments {shlex.join(words)!r} can't be read: {error}. See ansible_ssh_common_args."
        ) from error
    if rest:
        raise ImagingError(
            f"The connection's SSH arguments {shlex.join(words)!r} hold {rest[0]!r}, which is not an option. See ansible_ssh_common_args."
        )
    return options


def _for_bulk(text: str | None) -> list[str]:
    """Return the user's arguments without those that are useless or harmful for a stream."""
    kept = [(option, value) for option, value in _parsed(shlex.split(text or "")) if option not in NOT_FOR_BULK]
    return [word for option, value in kept for word in ([option, value] if value else [option])]
