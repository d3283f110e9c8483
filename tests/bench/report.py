# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark came to: rows that each meet a bar or miss it, for the terminal, and everything as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .big_disk import MAX_CAPTURE
from .memory import MODULE, PARTCLONE, WORKER, WORKER_SHARE
from .ours import Run
from .speed import CAPTURE, RESTORE, Measured
from .state import Bar
from .ways import Way

MIB = 2**20
BIG = "2 TiB"
# Peaks of memory: whose, in which direction, and at most how many bytes. Where there is no bar, it is only shown.
MEMORY: list[tuple[str, str, str, int | None]] = [
    ("the module on the laptop", MODULE, CAPTURE, 256 * MIB),
    ("the module on the laptop", MODULE, RESTORE, 256 * MIB),
    ("the controller's worker", WORKER, CAPTURE, 200 * MIB),
    ("the controller's worker", WORKER, RESTORE, 100 * MIB),
    ("the same, shared pages by share", WORKER_SHARE, CAPTURE, None),
    ("the same, shared pages by share", WORKER_SHARE, RESTORE, None),
    ("partclone, mapping for the module", PARTCLONE, CAPTURE, None),
]
# Of a module's result.
KEPT = [
    "seconds",
    "write_seconds",
    "compare_seconds",
    "used_bytes",
    "sent_bytes",
    "stored_bytes",
    "ratio",
    "throughput",
]
KEPT += ["workers", "zstd", "stages"]


@dataclass
class Report:
    """Everything that was measured."""

    disk_size: int
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """How many processes wanted to run in the minute before the benchmark."""
    speed: list[Measured] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    big_disk: tuple[Run, Run] | None = None
    ways: list[Way] = field(default_factory=list)

    def text(self) -> str:
        """Return the tables for a terminal."""
        parts = [
            self._speed_table(),
            self._bars_table(),
            self._transfer_table(),
            self._memory_table(),
            self._ways_table(),
        ]
        return "\n\n".join(part for part in parts if part)

    def missed(self) -> list[str]:
        """Return a line for each bar that was missed."""
        lines = [
            f"{entry.case.name}: {entry.ratio:.2f} x as fast, must be at least {entry.case.at_least} x"
            for entry in self.speed
            if entry.ratio < entry.case.at_least
        ]
        lines += [
            f"{bar.case}: {bar.what}: {bar.value:.3f} {bar.unit}, must be at most {bar.at_most}"
            for bar in self.bars
            if not bar.met
        ]
        for disk, direction, runs in self._runs():
            for whose, role, bar_direction, bar in MEMORY:
                peak = _peak(role, runs)
                if direction == bar_direction and bar and peak > bar:
                    lines.append(f"{direction} of {disk}: {whose} took {_mib(peak)}, at most {_mib(bar)} are allowed")
            seconds = _playbook_seconds(runs)
            if (disk, direction) == (BIG, CAPTURE) and seconds > MAX_CAPTURE:
                lines.append(f"{direction} of {disk}: {seconds:.0f} s, must be at most {MAX_CAPTURE:.0f} s")
        return lines

    def write(self, path: Path) -> None:
        """Write everything as JSON. Sizes are in bytes, rates in MiB a second."""
        content = {
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
            "load_before": self.load,
            "disk_size": self.disk_size,
            "cases": {entry.case.name: _case_json(entry) for entry in self.speed},
            "bars": [bar.to_json() for bar in self.bars],
            "runs": [
                {"disk": disk, "direction": direction, **_run_json(run)}
                for disk, direction, runs in self._runs()
                for run in runs
            ],
            "ways": [asdict(way) for way in self.ways],
            "missed": self.missed(),
        }
        path.write_text(json.dumps(content, indent=2) + "\n")

    def _runs(self) -> Iterator[tuple[str, str, list[Run]]]:
        """Yield disk, direction and all runs of ours that there were."""
        usual = {entry.case.direction: entry.ours for entry in self.speed}
        for direction, runs in usual.items():
            yield f"{self.disk_size >> 30} GiB", direction, runs
        for direction, run in zip((CAPTURE, RESTORE), self.big_disk or (), strict=False):
            yield BIG, direction, [run]

    def _speed_table(self) -> str:
        rows = [
            [
                entry.case.direction,
                entry.case.shown,
                f"{statistics.median(entry.our_seconds):.1f} s",
                f"{statistics.median(entry.peer_seconds):.1f} s" + (" (1 run)" if len(entry.peer_seconds) == 1 else ""),
                f"{entry.ratio:.2f} x",
                f"{entry.case.at_least:.1f} x",
                _verdict(entry.ratio >= entry.case.at_least),
            ]
            for entry in self.speed
        ]
        return _table(["OURS", "AGAINST", "OURS TAKES", "IT TAKES", "FASTER", "AT LEAST", ""], rows)

    def _bars_table(self) -> str:
        rows = [
            [bar.case, bar.what, f"{bar.value:.3f} {bar.unit}", f"{bar.at_most} {bar.unit}", _verdict(bar.met)]
            for bar in self.bars
        ]
        return _table(["CASE", "MEASURED", "IS", "AT MOST", ""], rows)

    def _transfer_table(self) -> str:
        rows = []
        for disk, direction, runs in self._runs():
            result, whole = runs[0].result, _playbook_seconds(runs)
            sizes = [_mib(result[key]) for key in ("used_bytes", "sent_bytes", "stored_bytes")]
            seconds = statistics.median(float(run.result["seconds"]) for run in runs)
            bar = ["", ""]
            if (disk, direction) == (BIG, CAPTURE):
                bar = [f"{MAX_CAPTURE:.0f} s", _verdict(whole <= MAX_CAPTURE)]
            rows.append([direction, disk, *sizes, f"{seconds:.1f} s", f"{whole:.1f} s", *bar])
        heads = ["OURS", "DISK", "USED", "SENT", "STORED", "TRANSFER AND READ-BACK", "WHOLE PLAYBOOK", "AT MOST", ""]
        return _table(heads, rows)

    def _memory_table(self) -> str:
        rows = []
        for disk, direction, runs in self._runs():
            for whose, role, bar_direction, bar in MEMORY:
                peak = _peak(role, runs)
                if direction == bar_direction and peak:
                    verdict = [_mib(bar), _verdict(peak <= bar)] if bar else ["", ""]
                    rows.append([direction, disk, whose, _mib(peak), *verdict])
        return _table(["OURS", "DISK", "PEAK MEMORY OF", "MEASURED", "AT MOST", ""], rows)

    def _ways_table(self) -> str:
        rows = [
            [
                way.name,
                str(way.threads),
                f"{way.compress:.0f} MiB/s",
                f"{way.decompress:.0f} MiB/s" if way.decompress else "",
            ]
            for way in self.ways
        ]
        return _table(["WAY TO ZSTD, AND HASH", "THREADS", "COMPRESS, HASH", "DECOMPRESS"], rows)


def _case_json(entry: Measured) -> dict[str, Any]:
    result = entry.ours[0].result
    return {
        "against": entry.case.shown,
        "our_seconds": entry.our_seconds,
        "our_playbook_seconds": [run.playbook_seconds for run in entry.ours],
        "peer_seconds": entry.peer_seconds,
        "median_ratio": entry.ratio,
        "at_least": entry.case.at_least,
        "met": entry.ratio >= entry.case.at_least,
        "peak_memory": {role: _peak(role, entry.ours) for role in (MODULE, WORKER)},
        "used_bytes": result["used_bytes"],
        "stored_bytes": result["stored_bytes"],
        "sent_bytes": result["sent_bytes"],
        "peer_sent_bytes": entry.peer_bytes,
    }


def _run_json(run: Run) -> dict[str, Any]:
    kept = {key: run.result[key] for key in KEPT if key in run.result}
    return kept | {"playbook_seconds": run.playbook_seconds, "peak_memory": run.peaks}


def _peak(role: str, runs: list[Run]) -> int:
    return max(run.peaks.get(role, 0) for run in runs)


def _playbook_seconds(runs: list[Run]) -> float:
    return statistics.median(run.playbook_seconds for run in runs)


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return lines with aligned columns, "" when there are no rows."""
    rows = list(rows)
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    )
