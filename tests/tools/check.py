# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the checks of the collection: all of them ("test"), or those of one kind.

Usage: check.py test | lint | unit | units-oldest | sanity | fuzz | integration | e2e
Every check runs, also after one has failed; the last lines say which failed and how long each took. They are run three at a time, the longest
first, and say what they said when they have ended. The integration tests are the longest, so that all others are run beside them, two
at a time; what must have the machine for itself comes in the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TREE = ROOT / ".tree"
COLLECTION = TREE / "ansible_collections/fleet/imaging"
Command = list[str]
TYPED = [
    "plugins",
    "tests",
    "roles/live_system/files/root/usr/lib/fleet-live/screen.py",
    "tests/demo",
    "tests/lab/lab",
    "tests/bench/bench",
    "tests/fuzz/fuzz",
]
INTEGRATION = ["python", "-m", "pytest", "-v", "--durations=30", "tests/integration"]
AT_A_TIME = ["-n", str(2 * len(os.sched_getaffinity(0)))]
INTEGRATION_TESTS, ALONE, SANITY = "integration tests", "integration tests that run alone", "ansible-test sanity"
E2E = "whole virtual laptops"
CHECKS: dict[str, dict[str, Command]] = {
    "lint": {
        "ruff": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "mypy": ["mypy", *(str(COLLECTION / path) for path in TYPED if (ROOT / path).exists())],
        "ansible-lint": ["ansible-lint"],
        "changelog": ["antsibull-changelog", "lint"],
        "documentation": ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "."],
        "licence headers": ["python", "tests/tools/headers.py"],
    },
    "unit": {"unit tests": ["python", "-m", "pytest", "-q", "tests/unit", "tests/fuzz"]},
    "units-oldest": {"unit tests on the oldest Python": ["python", "tests/tools/units_oldest.py"]},
    "sanity": {SANITY: ["python", "tests/tools/sanity.py"]},
    "fuzz": {"fuzzing, a little": ["python", "tests/fuzz/fuzz", "--seconds", "1", "--at-least", "100"]},
    "integration": {
        # They wait as long as they work, so twice as many at a time as there are cores; a file's tests share its lab. The files are begun in
        # the order of tests/integration/conftest.py. What is a matter of time has the machine for itself.
        INTEGRATION_TESTS: [
            *INTEGRATION,
            "-m",
            "not alone",
            *AT_A_TIME,
            "--dist",
            "loadfile",
            "--no-loadscope-reorder",
        ],
        ALONE: [*INTEGRATION, "-m", "alone"],
    },
    "e2e": {E2E: ["python", "-m", "pytest", "-v", "--durations=30", "tests/e2e"]},
}

LONGEST = (INTEGRATION_TESTS, SANITY)
"""Begun first, the others are done meanwhile."""

AT_ONCE = (INTEGRATION_TESTS, ALONE, E2E)
"""Shown as they go on, because they take so long."""


def main(kind: str) -> int:
    """Run the checks of a kind, or of all; return 1 when any fails."""
    os.chdir(ROOT)
    # The disk tools are there, and not on everybody's PATH.
    os.environ["PATH"] = os.pathsep.join([str(BIN), os.environ["PATH"], "/usr/sbin", "/sbin"])
    os.environ["PYTHONPATH"] = str(TREE)
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(TREE)
    chosen = (
        {name: checks for name, checks in CHECKS.items() if name != "e2e"} if kind == "test" else {kind: CHECKS[kind]}
    )
    commands = {name: command for checks in chosen.values() for name, command in checks.items()}
    names = [*(name for name in LONGEST if name in commands), *(name for name in commands if name not in LONGEST)]
    with ThreadPoolExecutor(3) as pool:
        beside = [name for name in names if name != ALONE]
        results = list(pool.map(lambda name: run(name, commands[name], quiet=name not in AT_ONCE), beside))
    if ALONE in commands:
        results.append(run(ALONE, commands[ALONE]))
    print("\n" + "=" * 70)
    for name, passed, seconds in results:
        print(f"{'passed' if passed else 'FAILED'}  {seconds:6.1f} s  {name}")
    failed = sum(not passed for _, passed, _ in results)
    print(f"{len(results) - failed} checks passed, {failed} failed")
    return int(failed > 0)


def run(name: str, command: Command, quiet: bool = False) -> tuple[str, bool, float]:
    """Run one check with its output on the terminal, at once or in the end; return its name, whether it passed, and the seconds it took."""
    title = f"\n=== {name}: {' '.join(command)}\n"
    started = time.monotonic()
    if not quiet:
        print(title, end="", flush=True)
    output, errors = (subprocess.PIPE, subprocess.STDOUT) if quiet else (None, None)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, check=False)
    if quiet:
        print(title + done.stdout.decode(errors="replace"), end="", flush=True)
    return name, done.returncode == 0, time.monotonic() - started


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in {"test", *CHECKS}:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
