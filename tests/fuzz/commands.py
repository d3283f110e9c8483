# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give everything that reads what comes from outside damaged input, led by what it covers (atheris, libFuzzer).

A target crashes when it raises anything but an ImagingError, breaks what it promises, writes anything, takes more memory than it
may, or more than ten seconds for one input. What made it crash is kept, and the status is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests/output/fuzz"
MEMORY = 700
"""MiB that a process may take; a good 150 of them are Python and atheris."""

DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)")
PROGRAM = "ansible_collections.fleet.imaging.tests.fuzz.one"


def main() -> int:
    """Fuzz what was chosen; return the exit status."""
    arguments = _parser().parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: skipped, there is no atheris for this Python and machine")
        return 0
    OUTPUT.mkdir(parents=True, exist_ok=True)
    rows, crashed = [], False
    for name in arguments.target or TARGETS:
        said = fuzz(name, arguments)
        found = DONE.search(said)
        if found is None or int(found[1]) < arguments.at_least:
            print(said[-6000:])
            print(f"fuzz: {name} crashed, or hardly ran. What it crashed at is in {OUTPUT}; to see it again:")
            print(f"  PYTHONPATH=.tree .venv/bin/python -m {PROGRAM} {name} {OUTPUT}/{name}-crash-...")
            crashed = True
        else:
            rows.append((name, *found.groups()))
            print(f"{name:<22} {found[1]:>9} executions, {found[2]:>5} edges, {found[3]:>6} features", flush=True)
    print(f"{len(rows)} targets, {sum(int(row[1]) for row in rows)} executions, {'a crash' if crashed else 'no crash'}")
    return int(crashed)


def fuzz(name: str, arguments: argparse.Namespace) -> str:
    """Fuzz a target for a while; return what libFuzzer says."""
    with tempfile.TemporaryDirectory(prefix="fleet-fuzz-") as corpus:
        for number, seed in enumerate(TARGETS[name].seeds()):
            Path(corpus, str(number)).write_bytes(seed)
        limits = ["-timeout=10", f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={OUTPUT}/{name}-"]
        command = [
            sys.executable,
            "-m",
            PROGRAM,
            name,
            f"-max_total_time={arguments.seconds}",
            "-max_len=16384",
            *limits,
        ]
        done = subprocess.run([*command, corpus], capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--target", action="append", choices=list(TARGETS), metavar="NAME", help=f"only these of: {', '.join(TARGETS)}")
    add("--seconds", type=int, default=30, metavar="N", help="for each target, default %(default)s")
    add(
        "--at-least",
        type=int,
        default=500,
        metavar="N",
        help="executions, or it counts as a crash; default %(default)s",
    )
    return parser


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT / ".tree")
    sys.exit(main())
