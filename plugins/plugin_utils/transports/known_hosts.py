# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a host key against OpenSSH's files of known hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

``ssh-keygen -F`` finds the lines of a host: it supports hashed names, patterns and markers.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ...module_utils.errors import ImagingError
from .ssh_settings import run_local

DEFAULT_PORT = 22


@dataclass(frozen=True)
class KnownKey:
    """A known key of a host: its marker (``@revoked``, ``@cert-authority`` or empty), type and base64 text."""

    marker: str
    kind: str
    text: str


class KnownHosts:
    """The known keys of one host."""

    def __init__(self, name: str, port: int, files: Sequence[str]) -> None:
        """Look up a host in files, which need not exist; raises ImagingError."""
        self._name = name if port == DEFAULT_PORT else f"[{name}]:{port}"
        self._files = [os.path.expanduser(file) for file in files]
        self.keys = self._find(self._name)
        # OpenSSH also accepts a key that is known for the host without a port, but such a key does not prove a change.
        self._elsewhere = self._find(name) if port != DEFAULT_PORT else []

    def _find(self, name: str) -> list[KnownKey]:
        found = []
        for file in self._files:
            if not os.path.exists(file):
                continue
            try:
                done = run_local(["ssh-keygen", "-F", name, "-f", file])
            except (OSError, subprocess.TimeoutExpired) as error:
                raise ImagingError(f"ssh-keygen, which looks up host keys in {file}, failed: {error}.") from error
            for line in done.stdout.splitlines():
                fields = line.split()
                marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
                if len(fields) >= 3 and fields[0] != "#":
                    found.append(KnownKey(marker, fields[1], fields[2]))
        return found

    @property
    def kinds(self) -> list[str]:
        """The types of the known keys. A host has several keys and shows the one that is requested, so a known type should be requested."""
        return list(dict.fromkeys(key.kind for key in self.keys + self._elsewhere if not key.marker))

    def check(self, kind: str, text: str, fingerprint: str) -> None:
        """Raise ImagingError unless a key (its type, its base64 text) of the host is known and not revoked."""
        keys = self.keys + self._elsewhere
        where = self._files[0] if self._files else "~/.ssh/known_hosts"
        equal = [key.marker for key in keys if (key.kind, key.text) == (kind, text)]
        if "@revoked" in equal:
            raise ImagingError(
                f"The host key of {self._name} ({kind} {fingerprint}) is marked as revoked in {', '.join(self._files)}: do not trust "
                "what answers there."
            )
        if "" in equal:
            return
        if any(key.kind == kind and not key.marker for key in self.keys):
            raise ImagingError(
                f"The host key of {self._name} has changed: it is now {kind} {fingerprint}, and {where} has another one. Either something else "
                "answers at that address, or the laptop was booted anew (live media make new keys at every boot). If you know that it was, "
                f"remove the old key with: ssh-keygen -R '{self._name}' -f '{where}', and connect once by ssh to accept the new one."
            )
        if any(key.marker == "@cert-authority" for key in keys):
            raise ImagingError(
                f"The host key of {self._name} is vouched for by a certificate, which paramiko does not check. Set imaging_ssh_client: openssh."
            )
        raise ImagingError(
            f"The host key of {self._name} ({kind} {fingerprint}) is not known. Compare it with what the laptop itself says (ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub), connect once by ssh to accept it, and run again. For laptops booted from live media in a network "
            "that you trust, host_key_checking = False in ansible.cfg turns this check off."
        )
