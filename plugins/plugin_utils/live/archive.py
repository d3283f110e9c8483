# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the packages of the live system come from: the Debian archive that the machine's own apt uses, or a given one."""

import platform
import re
from collections.abc import Sequence
from pathlib import Path

from ...module_utils.disk.command import RunCommand
from ...module_utils.errors import ImagingError

DEFAULT_SUITE = "bookworm"
"""Debian's release of the live system where the controller does not run Debian itself."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

SUFFIXES = ("", "-updates", "-security")
"""The suites of a release, see https://wiki.debian.org/SourcesList."""

FIELDS = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SOURCESENTRY)"
"""Of apt-get indextargets, see apt-get(8)."""

SIGNED_BY = re.compile(r"signed-by\s*[:=]\s*(/[^\s\],]+)", re.IGNORECASE)


def check_distribution() -> None:
    """Raise ImagingError when this machine's packages can't build a live system."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if not family & {"debian", "ubuntu"}:
        raise ImagingError(
            f"The live system is built with Debian's tools: expected Debian or Ubuntu, found {release.get('PRETTY_NAME', 'another system')}. "
            "Run live.yml on a machine with Debian, and copy the folder with the result from there."
        )


def find_suite() -> str:
    """Return Debian's release that the live system is made of: the machine's own, or the default on others."""
    release = platform.freedesktop_os_release()
    return release.get("VERSION_CODENAME", DEFAULT_SUITE) if release.get("ID") == "debian" else DEFAULT_SUITE


def find_sources(given: Sequence[str], suite: str, components: str, run: RunCommand) -> list[str]:
    """Return the lines of sources.list(5) that the packages come from; empty: mmdebstrap's own default.

    Given are whole lines, or the URL of a mirror.
    """
    lines = []
    for item in given:
        if item.startswith("deb "):
            lines.append(item)
        else:
            lines += [f"deb [signed-by={KEYRING}] {item} {suite}{suffix} {components}" for suffix in SUFFIXES[:2]]
    return lines or _own_sources(suite, components, run)


def find_proxies(run: RunCommand) -> list[str]:
    """Return the lines of apt.conf(5) with the proxies that the machine's own apt uses."""
    done = run(["apt-config", "dump", "--format", '%f "%v";%n', "Acquire::http::Proxy", "Acquire::https::Proxy"])
    return [line for line in done.out.splitlines() if '""' not in line]


def _own_sources(suite: str, components: str, run: RunCommand) -> list[str]:
    done = run(["apt-get", "indextargets", "--format", FIELDS, "Created-By: Packages"])
    lines = []
    for line in done.out.splitlines():
        uri, release, component, entry = line.split(" ", 3)
        if component == "main" and release in {suite + suffix for suffix in SUFFIXES}:
            keys = _keys(Path(entry.rpartition(":")[0]))
            lines.append(f"deb {f'[signed-by={keys}] ' if keys else ''}{uri} {release} {components}")
    return list(dict.fromkeys(lines))


def _keys(entry: Path) -> str:
    """The keyrings that a file of apt's sources names. apt-get indextargets does not print them."""
    try:
        return ",".join(sorted(set(SIGNED_BY.findall(entry.read_text()))))
    except OSError:
        return ""
