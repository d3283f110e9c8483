# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system's programs that the lab uses."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# Disk tools are often not on an ordinary user's path.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
# A program, and the Debian package that has it.
PACKAGES = {
    "debugfs": "e2fsprogs",
    "ip": "iproute2",
    "losetup": "mount",
    "mcopy": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mkntfs": "ntfs-3g",
    "mkswap": "util-linux",
    "mount": "mount",
    "nsenter": "util-linux",
    "partx": "util-linux",
    "setsid": "util-linux",
    "sfdisk": "fdisk",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "tc": "iproute2",
    "umount": "mount",
    "unshare": "util-linux",
}


PROGRAM_SECONDS = 120.0
"""Longer than any program of the lab takes on a slow and busy machine: what takes longer hangs."""


class LabError(Exception):
    """The lab can't do what was asked; the message says why, and the way out."""


def find(program: str) -> str | None:
    """Return the absolute path of a program, None when there is none."""
    return shutil.which(program, path=SEARCH_PATH)


def require(programs: Iterable[str]) -> None:
    """Raise LabError, with what to install, when a program is missing."""
    missing = [program for program in programs if not find(program)]
    if missing:
        packages = " ".join(sorted({PACKAGES[program] for program in missing}))
        raise LabError(f"{', '.join(missing)} not found; install it with: apt-get install {packages}")


def run(*command: str | Path, stdin: str = "") -> str:
    """Return what a program prints; raise LabError with its complaint when it fails, or does not end."""
    done = run_bounded([*command], {**os.environ, "PATH": SEARCH_PATH}, stdin)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(map(str, command))} ended with status {done.returncode}: {said}")
    return done.stdout


def run_bounded(
    command: Sequence[str | Path], environment: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program and return how it went; raise LabError with what it printed when it does not end."""
    try:
        return subprocess.run(
            command,
            env=environment,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=PROGRAM_SECONDS,
        )
    except subprocess.TimeoutExpired as late:
        printed = b"".join(part for part in (late.stdout, late.stderr) if part).decode(errors="replace")
        raise LabError(
            f"{' '.join(map(str, command))} did not end within {PROGRAM_SECONDS:.0f} s; it printed: {printed}"
        ) from None
