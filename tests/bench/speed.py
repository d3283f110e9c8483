# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed: ours and the peers in turn, on the same disks, with cold caches, and each with its flush."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..lab.lab import Lab
from ..lab.laptop import Laptop
from .ours import Ours, Run
from .peers import Stream, capture_disk, capture_partitions, restore_disk, run_capture, run_restore

CAPTURE, RESTORE = "capture", "restore"
OLD_DATA = 4 << 20

Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """Ours in one direction against one peer: how many times as fast it must be at least."""

    direction: str
    peer: str
    shown: str
    at_least: float
    streams: Callable[[Laptop, str, Path], list[Stream]]
    filters: str = ""
    slow: bool = False
    """One run is enough of what takes minutes, if that run already meets the bar."""

    @property
    def name(self) -> str:
        """How it is chosen, and found in the results."""
        return f"{self.direction}-{self.peer}"


CASES = [
    Case(CAPTURE, "dd-zstd", "dd | zstd -T0 -3 | nc", 2.2, capture_disk, "| zstd -T0 -3"),
    Case(CAPTURE, "partclone-zstd", "partclone -c | zstd -T0 -3 | nc", 1.4, capture_partitions, "| zstd -T0 -3"),
    Case(CAPTURE, "dd", "dd | nc", 2.5, capture_disk),
    Case(CAPTURE, "dd-gzip", "dd | gzip | nc", 10.0, capture_disk, "| gzip", slow=True),
    Case(RESTORE, "dd-zstd", "nc | zstd -d | dd", 2.5, restore_disk, "zstd -d |"),
    Case(RESTORE, "dd", "nc | dd", 3.0, restore_disk),
    Case(RESTORE, "dd-gzip", "nc | gzip -d | dd", 5.0, restore_disk, "gzip -d |", slow=True),
]


@dataclass
class Measured:
    """What a case came to: every run of both sides. The runs of ours are those of all cases of a direction."""

    case: Case
    ours: list[Run]
    peer_seconds: list[float] = field(default_factory=list)
    peer_bytes: int = 0
    """What the peer sent over the link."""

    @property
    def our_seconds(self) -> list[float]:
        """The seconds of each transfer, with its flush: of a restore without the read-back, which no peer does."""
        key = "seconds" if self.case.direction == CAPTURE else "write_seconds"
        return [float(run.result[key]) for run in self.ours]

    @property
    def ratio(self) -> float:
        """How many times as fast ours is: the ratio of the medians."""
        return statistics.median(self.peer_seconds) / statistics.median(self.our_seconds)

    @property
    def enough(self) -> bool:
        """Whether no more runs of the peer are wanted."""
        return self.case.slow and bool(self.peer_seconds) and self.ratio >= self.case.at_least


class Speed:
    """The measurements on one lab; the folder holds the images of both sides."""

    def __init__(self, lab: Lab, folder: Path, runs: int, say: Say) -> None:
        self._lab = lab
        self._folder = folder
        self._runs = runs
        self._say = say
        self._ours = Ours(lab, folder / "store")

    def measure(self, cases: Sequence[Case]) -> list[Measured]:
        """Measure the cases: captures first, since they make what the restores need."""
        done = self._rounds([case for case in cases if case.direction == CAPTURE], self._capture, self._peer_captures)
        restores = [case for case in cases if case.direction == RESTORE]
        if restores:
            self._prepare(restores)
            done += self._rounds(restores, self._restore, self._peer_restores)
        return done

    def _rounds(
        self, cases: list[Case], ours: Callable[[], Run], peer: Callable[[Case], tuple[float, int]]
    ) -> list[Measured]:
        if not cases:
            return []
        runs: list[Run] = []
        measured = [Measured(case, runs) for case in cases]
        for turn in range(1, self._runs + 1):
            cool_down()
            runs.append(ours())
            seconds = f"{measured[0].our_seconds[-1]:7.1f} s, the playbook {runs[-1].playbook_seconds:.1f} s"
            self._say(f"{cases[0].direction} {turn}  ours {seconds}")
            for entry in measured:
                if not entry.enough:
                    cool_down()
                    taken, entry.peer_bytes = peer(entry.case)
                    entry.peer_seconds.append(taken)
                    self._say(f"{entry.case.direction} {turn}  {entry.case.shown} {taken:7.1f} s")
        return measured

    def _capture(self) -> Run:
        self._ours.remove_image()
        cool_down()
        return self._ours.capture()

    def _restore(self) -> Run:
        self._make_foreign()
        return self._ours.restore()

    def _peer_captures(self, case: Case) -> tuple[float, int]:
        streams = case.streams(self._lab.reference, case.filters, self._folder / case.peer)
        seconds = run_capture(self._lab.reference, streams)
        return seconds, sum(stream.file.stat().st_size for stream in streams)

    def _peer_restores(self, case: Case) -> tuple[float, int]:
        self._make_foreign()
        streams = case.streams(self._lab.targets[0], case.filters, self._folder / case.peer)
        return run_restore(self._lab.targets[0], streams), sum(stream.file.stat().st_size for stream in streams)

    def _prepare(self, restores: list[Case]) -> None:
        """Have all that is restored, also where its capture was not measured, and a target that was in use."""
        if not self._ours.image.exists():
            self._say("capture, for the restores: ours")
            self._ours.capture()
        for case in CASES:
            wanted = case.direction == CAPTURE and case.peer in {restore.peer for restore in restores}
            if wanted and not (self._folder / case.peer).exists():
                self._say(f"capture, for the restores: {case.shown}")
                self._peer_captures(case)

    def _make_foreign(self) -> None:
        """Have the target hold nothing of the image, and its file all its room on the medium."""
        fill_with_old_data(Path(self._lab.targets[0].disk), self._lab.targets[0].size)
        cool_down()


def cool_down() -> None:
    """Write out all that is dirty, and drop the caches (proc(5), /proc/sys/vm/drop_caches)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def fill_with_old_data(disk: Path, size: int) -> None:
    """Overwrite a disk of so many bytes, so that its file has all its room on the medium, and nothing is equal by chance."""
    data = os.urandom(OLD_DATA)
    with open(disk, "r+b", buffering=0) as writer:
        for position in range(0, size, OLD_DATA):
            writer.write(data[: size - position])
        os.fsync(writer.fileno())
