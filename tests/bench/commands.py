# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the speed and the memory of a capture and a restore, against what people type into a shell instead.

Needs root, for the lab's namespaces and to drop the caches. Everything is on this machine: the laptops are those of the lab
(tests/lab), each behind a link of its own, and both sides share the processor. The status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from ..integration.labs import running_lab
from ..lab.lab import Plan, can_isolate
from ..lab.tools import LabError
from .big_disk import measure_big_disk
from .clone import measure_clone
from .fleet import measure_fleet
from .forecast import measure_forecast
from .levels import measure_levels
from .ours import PlaybookFailed
from .peers import PeerFailed
from .report import Report
from .speed import CASES, Speed
from .ssh import measure_ssh
from .state import measure_state
from .stores import measure_stores
from .ways import measure_ways

ROOT = Path(__file__).absolute().parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
BUSY = 1.0
STATE, SSH, LEVELS, FORECAST = "state", "ssh", "levels", "forecast"
DISK_OF_2_TIB, WAYS, FLEET, STORES, CLONE = "disk-of-2-tib", "ways", "fleet", "stores", "clone"
NAMES = [*(case.name for case in CASES), STATE, SSH, LEVELS, FORECAST, DISK_OF_2_TIB, WAYS, FLEET, STORES, CLONE]


def main() -> int:
    """Run the benchmark; return the exit status."""
    arguments = _parser().parse_args()
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    # SeaweedFS lies beside this Python.
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin", str(Path(sys.executable).parent)])
    try:
        _check()
        report = measure(arguments)
    except (LabError, PeerFailed, PlaybookFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print(f"\n{report.text()}\n")
    report.write(arguments.output)
    for line in report.missed():
        print(f"MISSED: {line}")
    print(f"Everything is in {arguments.output}.")
    return int(bool(report.missed()))


def measure(arguments: argparse.Namespace) -> Report:
    """Measure what was chosen, or everything."""
    chosen = arguments.case or NAMES
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", flush=True)

    size = arguments.disk_size << 30
    report = Report(size)
    if report.load > BUSY:
        say(f"this machine is busy with something else (load {report.load:.1f}): do not believe the numbers")
    with tempfile.TemporaryDirectory(prefix="fleet-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        (folder / "store").mkdir(mode=0o700)
        cases = [case for case in CASES if case.name in chosen]
        if cases:
            say("bring the lab up")
            with running_lab(Plan(1, size, size, isolated=True, direct_io=arguments.direct_io)) as lab:
                report.speed = Speed(lab, folder, arguments.runs, say).measure(cases)
        if STATE in chosen:
            report.bars += measure_state(size, folder, arguments.runs, say)
        if SSH in chosen:
            report.bars += measure_ssh(size, folder, arguments.runs, say)
        if LEVELS in chosen:
            report.bars += measure_levels(size, folder, arguments.runs, say)
        if FORECAST in chosen:
            report.bars += measure_forecast(folder, arguments.runs, say)
        if FLEET in chosen:
            report.bars += measure_fleet(folder, say)
        if CLONE in chosen:
            report.bars += measure_clone(folder, arguments.runs, say)
        if STORES in chosen:
            report.bars += measure_stores(folder, say)
        if DISK_OF_2_TIB in chosen:
            report.big_disk = measure_big_disk(folder, say)
    if WAYS in chosen:
        say("measure each way to zstd")
        report.ways = measure_ways()
    return report


def _interrupt(*dummy: object) -> None:
    """End, but only once: what was made is removed in peace."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _check() -> None:
    if not can_isolate():
        raise LabError("the benchmark needs root, network namespaces and loop devices, and not all are to be had here")
    missing = [
        program for program in ("gzip", "nc", "nginx", "partclone.extfs", "weed", "zstd") if not shutil.which(program)
    ]
    if missing:
        raise LabError(f"{', '.join(missing)} not found; install what is missing: make setup")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--case", action="append", choices=NAMES, metavar="NAME", help=f"only this one, or these: {', '.join(NAMES)}")
    add("--runs", type=int, default=3, metavar="N", help="of each side, default %(default)s")
    add("--disk-size", type=int, default=6, metavar="GIB", help="default %(default)s GiB, a third of it used")
    add("--direct-io", action="store_true", help="loop devices that bypass this machine's cache")
    add("--output", type=Path, default=ROOT / "bench.json", metavar="FILE", help="default %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
