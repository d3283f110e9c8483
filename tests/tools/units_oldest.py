# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the unit tests of laptop code on the oldest Python found that a laptop may have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ansible.module_utils

from ansible_collections.fleet.imaging.tests.tools.pythons import CONTROLLER, find_pythons

TESTS = [Path("tests/unit/plugins/module_utils"), Path("tests/unit/plugins/modules")]
REQUIREMENTS = Path("tests/unit/requirements-target.txt")


def environment(version: str, python: Path) -> Path:
    """Return the Python of a virtual environment that has what the tests need."""
    folder = Path(".venv", f"units-{version}")
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
        stamp.write_text(REQUIREMENTS.read_text())
    return folder / "bin/python"


def module_utils_only() -> Path:
    """Return a folder with the part of this ansible-core that travels to a laptop, and nothing else of it."""
    folder = Path(".venv/laptop").absolute()
    link = folder / "ansible/module_utils"
    link.parent.mkdir(parents=True, exist_ok=True)
    (link.parent / "__init__.py").touch()
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(ansible.module_utils.__path__[0])
    return folder


def main() -> int:
    """Return the exit status of pytest; 0 when there is no other Python than the one the unit tests ran on."""
    version, python = next(iter(find_pythons().items()))
    if version == CONTROLLER:
        print(f"only Python {CONTROLLER}, this controller's own, was found; the unit tests have run on it already")
        return 0
    print(f"the oldest Python found here that a laptop may have: {version} ({python})")
    command: list[str | Path] = [environment(version, python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [path for path in TESTS if path.exists()]
    path = os.pathsep.join([str(Path(".tree").absolute()), str(module_utils_only())])
    return subprocess.run([*command, *tests], env={**os.environ, "PYTHONPATH": path}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
