# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate authority of a lab's live systems, and the host key that all media of it share."""

import os
from dataclasses import dataclass
from pathlib import Path

from ...module_utils.disk.command import RunCommand
from ...module_utils.errors import ImagingError

KNOWN_HOSTS = """\
# The live systems of this lab. For clients that check certificates of hosts (OpenSSH):
@cert-authority * {authority}
# For those that do not (paramiko):
* {key}
"""


@dataclass(frozen=True)
class Authority:
    """The folder with the authority, the host key that it has signed, and the file of known hosts."""

    folder: Path

    @property
    def key(self) -> Path:
        """The private key of the authority, which never leaves this machine."""
        return self.folder / "ca"

    @property
    def host_key(self) -> Path:
        """The private key of all live systems of this lab. It is on every medium."""
        return self.folder / "ssh_host_ed25519_key"

    @property
    def certificate(self) -> Path:
        """The certificate of the host key, which has no end, because laptops' clocks are often wrong.

        It names no host, which is for any host: OpenSSH 9.2 takes a ``*`` for the name of one.
        """
        return self.folder / "ssh_host_ed25519_key-cert.pub"

    @property
    def known_hosts(self) -> Path:
        """For UserKnownHostsFile of ssh_config(5)."""
        return self.folder / "known_hosts"

    def host_files(self) -> dict[str, bytes]:
        """The files of /etc/ssh on a live system."""
        public = self.host_key.with_suffix(".pub")
        return {path.name: path.read_bytes() for path in (self.host_key, public, self.certificate)}


def open_authority(folder: Path, run: RunCommand) -> Authority:
    """Return the authority of a folder, and make what is missing of it; raises ImagingError."""
    authority = Authority(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ImagingError(
                f"{folder} holds private keys, and other users have access to it: expected a folder of this user with mode 0700. Change it "
                f"(chmod 700 {folder}), or set imaging_live_ca to another folder."
            )
        if not authority.key.exists():
            _keygen(run, "-t", "ed25519", "-N", "", "-C", "live systems", "-f", str(authority.key))
            authority.certificate.unlink(missing_ok=True)
        if not authority.host_key.exists():
            _keygen(run, "-t", "ed25519", "-N", "", "-C", "live system", "-f", str(authority.host_key))
            authority.certificate.unlink(missing_ok=True)
        if not authority.certificate.exists():
            public = str(authority.host_key.with_suffix(".pub"))
            _keygen(run, "-q", "-s", str(authority.key), "-I", "live system", "-h", public)
        lines = KNOWN_HOSTS.format(
            authority=authority.key.with_suffix(".pub").read_text().strip(),
            key=authority.host_key.with_suffix(".pub").read_text().strip(),
        )
        if not authority.known_hosts.exists() or authority.known_hosts.read_text() != lines:
            authority.known_hosts.write_text(lines)
    except OSError as error:
        raise ImagingError(f"The keys of the live system in {folder} can't be read or made: {error}.") from error
    return authority


def _keygen(run: RunCommand, *arguments: str) -> None:
    done = run(["ssh-keygen", *arguments])
    if done.rc:
        raise ImagingError(f"ssh-keygen can't make the keys of the live system: {done.complaint()}.")
