# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The public keys whose owners may log in on a live system."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...module_utils.errors import ImagingError

KEY_LINE = re.compile(r"(.+ )?(ssh-(rsa|ed25519)|ecdsa-sha2-\S+|sk-\S+@openssh\.com) AAAA[A-Za-z0-9+/=]+( .*)?")
"""A line of authorized_keys, see AUTHORIZED_KEYS FILE FORMAT in sshd(8)."""

MAKE_ONE = "Make one with ssh-keygen -t ed25519, or set imaging_live_authorized_keys to the file of a public key, or to the key itself."


def read_public_keys(given: Sequence[str], home: Path) -> list[str]:
    """Return the lines of authorized_keys: those given, as keys or as paths of files, or else those of ~/.ssh.

    Raises ImagingError when there is none, or when one is not a public key.
    """
    lines: list[str] = []
    for item in given:
        lines += [item.strip()] if KEY_LINE.fullmatch(item.strip()) else _of_file(Path(item).expanduser())
    if not given:
        for path in sorted((home / ".ssh").glob("*.pub")):
            if not path.name.endswith("-cert.pub"):
                lines += _of_file(path)
    if not lines:
        raise ImagingError(
            f"Nobody could log in on the live system: expected a public key in {home}/.ssh, and there is none. {MAKE_ONE}"
        )
    return sorted(set(lines))


def _of_file(path: Path) -> list[str]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ImagingError(f"The public key {path} can't be read ({reason}). {MAKE_ONE}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        if not KEY_LINE.fullmatch(line):
            private = " It looks like a private key: name the file that ends in .pub." if "PRIVATE KEY" in text else ""
            raise ImagingError(f"{path} does not hold public keys of SSH.{private}")
    return lines
