# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-test's sanity tests on a copy of what git sees, and see to it that they really ran.

ansible-test works only below a folder ansible_collections/fleet/imaging. In a tree of links it finds nothing to test
and reports success, so it gets a real copy; and its output is read, because to skip everything is a success to it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import ansible_test._internal

from ansible_collections.fleet.imaging.tests.tools.checkout import checkout_files
from ansible_collections.fleet.imaging.tests.tools.pythons import find_pythons

# Programs of the checkout, not of the collection; ansible-test refuses "#!/usr/bin/env python3". And tests, which ruff and mypy check.
LEFT_OUT = [
    ".ci",
    "tests/bench",
    "tests/demo",
    "tests/e2e",
    "tests/fuzz",
    "tests/integration",
    "tests/lab",
    "tests/tools",
    "tests/unit",
]
# Run once for each Python; the others run on the controller's alone.
PER_PYTHON = {"compile", "import"}
GET_PIP = """
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
packages = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *packages]))
"""


def copy_checkout(to: Path) -> None:
    """Copy what git tracks, and what it would if it were added, to a new folder."""
    for name in checkout_files(*LEFT_OUT):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, to / name, follow_symlinks=False)


def private_home() -> Path:
    """Return a home for ansible-test that keeps its environments, beside pip's settings and a stand-in for get-pip.

    ansible-test downloads get-pip from a host of its own project that not everybody reaches; ensurepip does as well. It
    passes on no PIP_* variable, so these become a settings file.
    """
    home = Path(".venv/sanity-home").absolute()
    sources = Path(ansible_test._internal.__file__).with_name("python_requirements.py").read_text()
    cache = home / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in re.findall(r"\bpip='([\d.]+)'", sources):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP)
    settings = [
        f"{key[4:].lower().replace('_', '-')} = {os.environ[key]}" for key in os.environ if key.startswith("PIP_")
    ]
    (home / ".pip").mkdir(exist_ok=True)
    (home / ".pip/pip.conf").write_text("\n".join(["[global]", "quiet = 1", *settings, ""]))
    for name in [".config", ".cache"]:
        if not (home / name).is_symlink():
            (home / name).symlink_to(Path.home() / name)
    return home


def not_run(expected: set[str], pythons: Iterable[str], output: str) -> list[str]:
    """Return the tests that ansible-test lists and did not run, by its output."""
    ran = set(re.findall(r'^Running sanity test "(.+)$', output, re.MULTILINE))
    wanted = {f'{name}"' for name in expected - PER_PYTHON}
    wanted |= {f'{name}" on Python {version}' for name in PER_PYTHON for version in pythons}
    return sorted(line.replace('"', "") for line in wanted - ran)


def run_shown(command: list[str | Path], copy: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command in the copy; return its exit status and its output, which is shown as it comes."""
    output = []
    with subprocess.Popen(
        command, cwd=copy, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            output.append(line)
    return process.returncode, "".join(output)


def main() -> int:
    """Return 0 when every sanity test ran and passed on every Python found."""
    pythons = find_pythons()
    print("Pythons:", *pythons)
    path = os.pathsep.join([*(str(python.parent) for python in reversed(pythons.values())), os.environ["PATH"]])
    environment = {**os.environ, "HOME": str(private_home()), "PATH": path}
    with tempfile.TemporaryDirectory(prefix="fleet.imaging-sanity-") as folder:
        copy = Path(folder, "ansible_collections/fleet/imaging")
        copy_checkout(copy)
        command: list[str | Path] = [Path(sys.executable).with_name("ansible-test"), "sanity", "--color", "no"]
        listed = subprocess.check_output([*command, "--list-tests"], cwd=copy, env=environment, text=True)
        status, output = run_shown(command, copy, environment)
    left_out = not_run(set(listed.split()), pythons, output)
    if left_out:
        print("ansible-test did not run:", ", ".join(left_out))
    if "All targets skipped" in output:
        print("ansible-test skipped everything")
    return status or bool(left_out) or "All targets skipped" in output


if __name__ == "__main__":
    sys.exit(main())
