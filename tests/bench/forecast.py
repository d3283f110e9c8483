# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What probe.yml forecasts, and what then happens: with six bottlenecks that are made on purpose.

The lab is one of its own, with a reference and one target, whose disks go past this machine's cache: else what is written would be in
memory until it is flushed, as on no laptop's disk. Forecast and transfer come in turn, with caches dropped before each.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..integration.labs import running_lab
from ..integration.playbooks import YES, playbook
from ..lab.disks import make_empty_disk
from ..lab.faulty_disk import FaultyDisk, faulty_disk
from ..lab.lab import Lab, Plan
from ..lab.laptop import Laptop
from ..lab.network import Network
from ..lab.tools import run
from .ours import Ours, PlaybookFailed
from .speed import CAPTURE, RESTORE, Say, cool_down, fill_with_old_data
from .state import Bar

AT_MOST = 25.0
"""Percent by which a forecast may be wrong."""

FORECAST_DISK = 2 << 30
FAST_MBIT = 1000
SLOW_MBIT = 100
SLOW_DISK = 40_000_000
SLOW_STORE = 25_000_000
STORE_SIZE = 1 << 30
IDLE_SHARE = 0.9
MAX_SETTLING = 60.0


@dataclass(frozen=True)
class _Case:
    """One bottleneck in one direction."""

    name: str
    direction: str
    limits: tuple[str, ...] = ()
    """What it should name, if that can be said."""
    more: tuple[str, ...] = ()
    disk: str = ""
    """The target's disk, if it is another one than the lab's."""
    store: Path | None = None
    pairs: list[tuple[float, float]] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)


def measure_forecast(folder: Path, runs: int, say: Say) -> list[Bar]:
    """Measure all cases."""
    say("bring the lab for the forecasts up")
    plan = Plan(1, FORECAST_DISK, FORECAST_DISK, isolated=True, link_mbit=FAST_MBIT, direct_io=True)
    with running_lab(plan) as lab:
        return list(_Forecasts(lab, folder / "forecast", runs, say).measure())


class _Forecasts:
    def __init__(self, lab: Lab, folder: Path, runs: int, say: Say) -> None:
        folder.mkdir(mode=0o700)
        self._lab = lab
        self._folder = folder
        self._store = folder / "store"
        self._store.mkdir(mode=0o700)
        self._runs = runs
        self._say = say
        self._target = lab.targets[0]
        # What is below this machine's files may call itself a rotating disk; most laptops have none.
        for laptop in lab.laptops:
            _set_rotating(laptop.disk, False)

    def measure(self) -> Iterator[Bar]:
        """Yield the rows."""
        for mbit in (SLOW_MBIT, FAST_MBIT):
            for laptop in self._lab.laptops:
                Network(self._lab.folder).limit(laptop.number, mbit)
            limits = ("network",) if mbit == SLOW_MBIT else ()
            for direction in (CAPTURE, RESTORE):
                yield self._measured(_Case(f"link of {mbit} Mbit/s", direction, limits))
        yield self._slow_source()
        yield self._slow_target()
        yield from self._one_processor()
        yield from self._slow_store()

    def _slow_source(self) -> Bar:
        copy = self._folder / "source.img"
        run("cp", "--sparse=always", self._lab.reference.backing_file, copy)
        with faulty_disk(copy, self._folder / "slow-source") as disk:
            self._slow_down(disk, rotating=False)
            more = ("-e", f"imaging_disk={disk.device}")
            return self._measured(_Case("slow source disk", CAPTURE, ("source disk read",), more))

    def _slow_target(self) -> Bar:
        """A disk that rotates: of another one it could only be assumed how fast it is written."""
        make_empty_disk(self._folder / "target.img", FORECAST_DISK)
        fill_with_old_data(self._folder / "target.img", FORECAST_DISK)
        with faulty_disk(self._folder / "target.img", self._folder / "slow-target") as disk:
            more = ("-e", f"imaging_disk={disk.device}")
            case = _Case("slow target disk", RESTORE, ("target disk write", "target disk read"), more, disk.device)
            return self._measured(case, disk)

    def _slow_down(self, disk: FaultyDisk, rotating: bool) -> None:
        _set_rotating(disk.device, rotating)
        disk.slow_down(SLOW_DISK, SLOW_DISK)

    def _one_processor(self) -> Iterator[Bar]:
        for laptop, direction, limits in (
            (self._lab.reference, CAPTURE, ("laptop cpu (compression)",)),
            (self._target, RESTORE, ()),
        ):
            with _on_one_processor(laptop):
                yield self._measured(_Case("one processor", direction, limits))

    def _slow_store(self) -> Iterator[Bar]:
        make_empty_disk(self._folder / "store.img", STORE_SIZE)
        with faulty_disk(self._folder / "store.img", self._folder / "slow-store") as disk:
            run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", disk.device)
            mount_point = self._folder / "mounted"
            mount_point.mkdir()
            run("mount", disk.device, mount_point)
            try:
                disk.slow_down(SLOW_STORE, SLOW_STORE)
                for direction in (CAPTURE, RESTORE):
                    yield self._measured(_Case("slow store", direction, ("store disk",), store=mount_point))
            finally:
                disk.slow_down(0, 0)
                run("umount", mount_point)

    def _measured(self, case: _Case, slow_target: FaultyDisk | None = None) -> Bar:
        ours = Ours(self._lab, case.store or self._store)
        for _turn in range(self._runs):
            if case.direction == CAPTURE:
                ours.remove_image()
                forecast = self._forecast(self._lab.reference, ours, case)
                _settle()
                result = ours.run("capture", "image_capture", "reference", *case.more).result
            else:
                if slow_target is not None:
                    slow_target.slow_down(0, 0)
                fill_with_old_data(Path(case.disk or self._target.disk), FORECAST_DISK)
                if slow_target is not None:
                    self._slow_down(slow_target, rotating=True)
                forecast = self._forecast(self._target, ours, case)
                _settle()
                result = ours.run("restore", "image_restore", self._target.name, *YES, *case.more).result
            case.pairs.append((forecast["alone"]["seconds"], float(result["seconds"])))
            case.named.append(forecast["alone"]["limit"])
            case.details.append({**forecast["alone"], "rates": forecast["rates"], "stages": result["stages"]})
            expected, taken = case.pairs[-1]
            self._say(
                f"{case.name}, {case.direction}: forecast {expected:6.1f} s ({case.named[-1]}), it took {taken:6.1f} s"
                f" ({100 * (expected / taken - 1):+.0f} %), load {os.getloadavg()[0]:.1f}"
            )
        return _bar(case)

    def _forecast(self, laptop: Laptop, ours: Ours, case: _Case) -> dict[str, Any]:
        _settle()
        outcome = playbook(self._lab, "probe", "-l", laptop.name, *ours.variables, *case.more)
        found = [result.result for result in outcome.of("image_probe", laptop.name) if result.status == "ok"]
        if outcome.status or not found:
            raise PlaybookFailed(f"probe ended with status {outcome.status}:\n{outcome.stdout}{outcome.stderr}")
        return found[0]


def _bar(case: _Case) -> Bar:
    """The median of the errors, pair by pair, so that a machine whose speed drifts does not decide."""
    wrong = statistics.median(abs(expected / taken - 1) for expected, taken in case.pairs)
    details = {
        "forecast_and_seconds": case.pairs,
        "limits": case.named,
        "expected_limits": case.limits,
        "runs": case.details,
    }
    right = not case.limits or 2 * sum(name in case.limits for name in case.named) > len(case.named)
    what = f"{case.direction}: how wrong the forecast is" + ("" if right else f" (and it named {case.named[-1]})")
    return Bar(case.name, what, 100 * wrong if right else 1000.0, AT_MOST, "%", details)


def _settle() -> None:
    """Drop the caches, and wait until the processors have little to do, or for so long that they will not."""
    cool_down()
    deadline = time.monotonic() + MAX_SETTLING
    while time.monotonic() < deadline:
        idle, everything = _processor_time()
        time.sleep(1.0)
        idle_later, everything_later = _processor_time()
        if idle_later - idle >= IDLE_SHARE * (everything_later - everything):
            return


def _processor_time() -> tuple[int, int]:
    """What the processors were idle so far, and all of their time (proc(5), /proc/stat)."""
    times = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return times[3] + times[4], sum(times)


def _set_rotating(disk: str, rotating: bool) -> None:
    Path("/sys/block", Path(disk).name, "queue/rotational").write_text(str(int(rotating)))


@contextmanager
def _on_one_processor(laptop: Laptop) -> Iterator[None]:
    """Have a laptop's sshd, and whatever it starts, on one processor."""
    pid = laptop.pid
    if pid is None:
        raise PlaybookFailed(f"{laptop.name} is not running")
    before = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(pid, before)
