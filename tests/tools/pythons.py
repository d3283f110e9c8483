# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pythons of this machine that ansible-core supports on a laptop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from ansible_test._util.target.common.constants import CONTROLLER_PYTHON_VERSIONS, REMOTE_ONLY_PYTHON_VERSIONS

SUPPORTED = REMOTE_ONLY_PYTHON_VERSIONS + CONTROLLER_PYTHON_VERSIONS
CONTROLLER = f"{sys.version_info.major}.{sys.version_info.minor}"


def find_pythons() -> dict[str, Path]:
    """Map each supported version, oldest first, to a real interpreter; the controller's own is this one."""
    found = {version: _first_real(version) for version in SUPPORTED if version != CONTROLLER}
    found[CONTROLLER] = Path(sys.executable)
    return {version: path for version in SUPPORTED if (path := found.get(version))}


def _first_real(version: str) -> Path | None:
    return next(filter(None, (_real(candidate, version) for candidate in _candidates(version))), None)


def _candidates(version: str) -> Iterator[Path]:
    if on_path := which(f"python{version}"):
        yield Path(on_path)
    yield from sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))


def _real(candidate: Path, version: str) -> Path | None:
    """Return the program behind candidate: a pyenv shim may exist and not run, and leads elsewhere when it does."""
    show = "import sys; print(*sys.version_info[:2], sep='.'); print(sys.executable); import ensurepip"
    shown = subprocess.run([candidate, "-c", show], capture_output=True, text=True, check=False)
    if shown.returncode != 0 or shown.stdout.splitlines()[0] != version:
        return None
    return Path(shown.stdout.splitlines()[1])
