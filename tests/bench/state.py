# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to make a disk equal that is so already, nearly, half-way or not at all; and an image, likewise.

It is a lab of its own: its reference was in use, and a third of its files are deleted.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import spans
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Index, Row
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import ZERO, unpack_ranges

from ..integration.labs import running_lab
from ..integration.playbooks import RESTORE_ONE, ROOT, start_playbook
from ..lab.lab import Lab, Plan
from ..lab.laptop import Laptop
from ..lab.network import Network
from .ours import Ours, Run
from .speed import Say, cool_down, fill_with_old_data

DRIFTED_SHARE = 50
"""Of so many used chunks one is changed."""

REWRITE = ("-e", "imaging_rewrite=true")
MAX_WAIT = 120.0


@dataclass(frozen=True)
class Bar:
    """One row: a number, how much it may be at most, and what it is made of."""

    case: str
    what: str
    value: float
    at_most: float
    unit: str = "x"
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether it is within its bar."""
        return self.value <= self.at_most

    def to_json(self) -> dict[str, Any]:
        """Everything of it."""
        return asdict(self) | {"met": self.met}


def measure_state(size: int, folder: Path, runs: int, say: Say) -> list[Bar]:
    """Measure all cases on disks of so many bytes."""
    say("bring the lab with the aged reference up")
    with running_lab(Plan(1, size, size, isolated=True, aged=True)) as lab:
        return list(State(lab, folder / "state", runs, say).measure())


class State:
    """The measurements, in an order in which each leaves the disk as the next one needs it."""

    def __init__(self, lab: Lab, store: Path, runs: int, say: Say) -> None:
        store.mkdir(mode=0o700)
        self._ours = Ours(lab, store)
        self._lab = lab
        self._target = lab.targets[0]
        # What is below this machine's files may call itself a rotating disk; most laptops have none.
        Path("/sys/block", Path(self._target.disk).name, "queue/rotational").write_text("0")
        self._runs = runs
        self._say = say
        self._random = random.Random(1)
        self._ranges = store / "ranges"

    def measure(self) -> Iterator[Bar]:
        """Yield the rows."""
        self._say("capture")
        self._ours.capture()
        yield self._aged()
        whole = self._whole_run()
        self._ranges.write_text("".join(f"{start} {end}\n" for start, end in self._spans()))
        yield from self._equal()
        yield from self._drifted()
        yield self._resumed(whole)
        yield self._foreign()
        yield self._updated()

    def _index(self) -> Index:
        return ImageReader(FileSource(str(self._ours.image))).index

    def _spans(self) -> Iterator[tuple[int, int]]:
        """What of the target a look at all of it reads."""
        index = self._index()
        for row in index:
            offset, length = index.geometry.offset(row.chunk), index.geometry.length(row.chunk)
            for start, end in spans(unpack_ranges(row.ranges, length), 512, length):
                yield offset + start, offset + end

    def _aged(self) -> Bar:
        result = self._ours.run(RESTORE_ONE, "image_restore", "reference", "--check").result
        self._say(f"the aged reference against its own image: {result['differing_chunks']} chunks differ")
        return Bar("an aged disk against its own image", "chunks that differ", result["differing_chunks"], 0, "chunks")

    def _whole_run(self) -> int:
        """Restore a foreign disk; returns the bytes that came over the laptop's link."""
        fill_with_old_data(Path(self._target.disk), self._target.size)
        before = received(self._target)
        self._restore()
        return received(self._target) - before

    def _restore(self, *more: str) -> Run:
        cool_down()
        return self._ours.run(RESTORE_ONE, "image_restore", self._target.name, *more)

    def _pure_read(self) -> float:
        cool_down()
        script = ROOT / "tests/bench/pure_read.py"
        return float(self._target.run(["/usr/bin/python3", script, self._target.disk, self._ranges]).stdout)

    def _rounds(self, prepare: Callable[[], None], *more: str) -> tuple[list[Run], list[float]]:
        """Restores of ours, and pure reads, in turn."""
        ours, peer = [], []
        for _round in range(self._runs):
            prepare()
            ours.append(self._restore(*more))
            peer.append(self._pure_read())
            self._say(f"restore {ours[-1].result['seconds']:6.2f} s, pure read {peer[-1]:6.2f} s")
        return ours, peer

    def _equal(self) -> Iterator[Bar]:
        ours, peer = self._rounds(lambda: None)
        used = ours[0].result["used_bytes"]
        case = "restore onto an equal disk"
        yield _timed(case, "time, of a pure read and hash", ours, peer, 1.25)
        sent = statistics.median(run.result["sent_bytes"] for run in ours)
        yield Bar(case, "bytes sent, of the used ones", 100 * sent / used, 0.1, "%", {"sent": sent, "used": used})

    def _drifted(self) -> Iterator[Bar]:
        rows = self._drifting_rows(self._index())
        ours, peer = self._rounds(lambda: self._spoil(self._target, rows))
        case = "restore onto a disk of which 2 % differ"
        yield _timed(case, "time, of a pure read and hash", ours, peer, 1.35)
        yield _bytes(case, ours, rows)

    def _drifting_rows(self, index: Index) -> list[Row]:
        rows = [row for row in index if not row.flags & ZERO]
        return rows[DRIFTED_SHARE // 2 :: DRIFTED_SHARE]

    def _spoil(self, laptop: Laptop, rows: list[Row]) -> None:
        """Change some used bytes in each chunk, so that it compresses as well as before."""
        index = self._index()
        with open(laptop.disk, "r+b", buffering=0) as disk:
            for row in rows:
                start, _end = unpack_ranges(row.ranges, index.geometry.length(row.chunk))[0]
                disk.seek(index.geometry.offset(row.chunk) + start)
                disk.write(self._random.randbytes(512))
            os.fsync(disk.fileno())

    def _foreign(self) -> Bar:
        looking: list[float] = []
        not_looking: list[float] = []
        sides: list[tuple[list[float], tuple[str, ...]]] = [(looking, ()), (not_looking, REWRITE)]
        for _round in range(2 * self._runs):
            # Each side is first in every other pair: what the one leaves behind must not always be the other's.
            for seconds, more in sides:
                fill_with_old_data(Path(self._target.disk), self._target.size)
                seconds.append(float(self._restore(*more).result["write_seconds"]))
            sides.reverse()
            self._say(f"restore of a foreign disk {looking[-1]:6.2f} s, without a look {not_looking[-1]:6.2f} s")
        details = {"looking": looking, "not_looking": not_looking}
        ratio = _ratio(looking, not_looking)
        return Bar("restore onto a foreign disk", "time, of one without a look", ratio, 1.03, "x", details)

    def _resumed(self, whole: int) -> Bar:
        """Kill everything when half is written, and run again."""
        target = self._target
        fill_with_old_data(Path(target.disk), target.size)
        cool_down()
        before = received(target)
        half = written(target) + self._index().used_bytes() // 2
        running = start_playbook(self._lab, RESTORE_ONE, "-l", target.name, *self._ours.variables)
        deadline = time.monotonic() + MAX_WAIT
        while written(target) < half and time.monotonic() < deadline:
            time.sleep(0.01)
        for pattern in ("AnsiballZ_image_restore", str(self._lab.inventory)):
            subprocess.run(["pkill", "-9", "-f", pattern], check=False)
        running.process.wait()
        broken = received(target) - before
        result = self._restore().result
        both = received(target) - before
        details = {
            "broken_run": broken,
            "both_runs": both,
            "whole_run": whole,
            "equal_chunks": result["equal_chunks"],
            "written_chunks": result["written_chunks"],
        }
        self._say(f"resume: {broken >> 20} MiB before the cut, {both >> 20} MiB in all, a whole run {whole >> 20} MiB")
        return Bar("resume after a cut at 50 %", "bytes of both runs, of a whole one", both / whole, 1.02, "x", details)

    def _updated(self) -> Bar:
        chosen = [row.chunk for row in self._drifting_rows(self._index())]
        runs, rows = [], []
        for _round in range(self._runs):
            index = self._index()
            self._spoil(self._lab.reference, [row for row in map(index.find, chosen) if row])
            runs.append(self._ours.run("capture", "image_capture", "reference", "-e", "imaging_update=true"))
            rows = [row for row in map(self._index().find, chosen) if row]
            self._say(f"update of 2 %: {runs[-1].result['seconds']:6.2f} s")
        return _bytes("capture update of 2 %", runs, rows)


def _timed(case: str, what: str, ours: list[Run], peer: list[float], at_most: float) -> Bar:
    seconds = [float(run.result["seconds"]) for run in ours]
    details = {"ours": seconds, "peer": peer}
    return Bar(case, what, _ratio(seconds, peer), at_most, "x", details)


def _ratio(ours: list[float], peer: list[float]) -> float:
    """The median of the ratios, pair by pair, so that a machine whose speed drifts does not decide."""
    return statistics.median(mine / other for mine, other in zip(ours, peer, strict=True))


def _bytes(case: str, runs: list[Run], rows: list[Row]) -> Bar:
    stored = sum(row.frame_size for row in rows)
    sent = statistics.median(run.result["sent_bytes"] for run in runs)
    details = {"sent": sent, "stored": stored, "chunks": len(rows)}
    return Bar(case, "bytes sent, of these chunks stored", sent / stored, 1.1, "x", details)


def received(laptop: Laptop) -> int:
    """How many bytes came over a laptop's link so far."""
    namespace = Network(laptop.lab).namespace(laptop.number)
    shown = subprocess.run(
        ["ip", "-n", namespace, "-s", "-json", "link", "show", "eth0"], check=True, capture_output=True, text=True
    ).stdout
    return int(json.loads(shown)[0]["stats64"]["rx"]["bytes"])


def written(laptop: Laptop) -> int:
    """How many bytes were written to a laptop's disk so far (the kernel's block/stat.rst)."""
    return 512 * int(Path("/sys/block", Path(laptop.disk).name, "stat").read_text().split()[6])
