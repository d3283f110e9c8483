# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark came to: rows that each meet a bar or miss it, for the terminal, and everything as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .big_disk import LONGEST_CAPTURE, BigDisk
from .memory import MODULE, PARTCLONE, WORKER, WORKER_SHARE
from .ours import Run
from .speed import CAPTURE, RESTORE, Measured
from .ways import Way

MIB = 2**20
# Peaks of memory, in bytes: whose, in which direction, and the bar.
MEMORY_BARS = [
    ("the module on the laptop", MODULE, CAPTURE, 256 * MIB),
    ("the module on the laptop", MODULE, RESTORE, 256 * MIB),
    ("the controller's worker", WORKER, CAPTURE, 200 * MIB),
    ("the controller's worker", WORKER, RESTORE, 100 * MIB),
]
ALSO_MEASURED = [
    ("of it the worker's proportional share", WORKER_SHARE, CAPTURE),
    ("of it the worker's proportional share", WORKER_SHARE, RESTORE),
    ("partclone, which maps the laptop's partitions", PARTCLONE, CAPTURE),
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
    speed: list[Measured] = field(default_factory=list)
    big_disk: BigDisk | None = None
    ways: list[Way] = field(default_factory=list)

    def text(self) -> str:
        """Return the tables for a terminal."""
        parts = [self._speed_table(), self._transfer_table(), self._memory_table(), self._ways_table()]
        return "\n\n".join(part for part in parts if part)

    def missed(self) -> list[str]:
        """Return a line for each bar that was missed."""
        lines = [
            f"{entry.case.name}: {entry.ratio:.2f} x, at least {entry.case.at_least} x"
            for entry in self.speed
            if entry.ratio < entry.case.at_least
        ]
        for whose, role, direction, bar in MEMORY_BARS:
            if self._peak(role, direction) > bar:
                found = self._peak(role, direction) / MIB
                lines.append(f"{whose}, {direction}: {found:.0f} MiB, at most {bar / MIB:.0f} MiB")
        if self.big_disk and self.big_disk.capture.playbook_seconds > LONGEST_CAPTURE:
            found = self.big_disk.capture.playbook_seconds
            lines.append(f"capture of 2 TiB: {found:.0f} s, at most {LONGEST_CAPTURE:.0f} s")
        return lines

    def write(self, path: Path) -> None:
        """Write everything as JSON. Sizes are in bytes, rates in MiB a second."""
        cases = {entry.case.name: _case_json(entry) for entry in self.speed}
        content = {
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
            "disk_size": self.disk_size,
            "cases": cases,
            "runs": {direction: [_run_json(run) for run in self._runs(direction)] for direction in (CAPTURE, RESTORE)},
            "disk_of_2_tib": self.big_disk
            and {CAPTURE: _run_json(self.big_disk.capture), RESTORE: _run_json(self.big_disk.restore)},
            "peak_memory": {
                direction: {role: self._peak(role, direction) for role in (MODULE, PARTCLONE, WORKER, WORKER_SHARE)}
                for direction in (CAPTURE, RESTORE)
            },
            "ways": [asdict(way) for way in self.ways],
            "missed": self.missed(),
        }
        path.write_text(json.dumps(content, indent=2) + "\n")

    def _runs(self, direction: str) -> list[Run]:
        """The runs of ours on the usual disk."""
        return next((entry.ours for entry in self.speed if entry.case.direction == direction), [])

    def _peak(self, role: str, direction: str) -> int:
        runs = list(self._runs(direction))
        if self.big_disk:
            runs.append(self.big_disk.capture if direction == CAPTURE else self.big_disk.restore)
        return max((run.peaks.get(role, 0) for run in runs), default=0)

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

    def _transfer_table(self) -> str:
        rows = []
        measured = [
            (f"{self.disk_size / 2**30:.0f} GiB", direction, self._runs(direction)) for direction in (CAPTURE, RESTORE)
        ]
        if self.big_disk:
            measured += [("2 TiB", CAPTURE, [self.big_disk.capture]), ("2 TiB", RESTORE, [self.big_disk.restore])]
        for disk, direction, runs in measured:
            if runs:
                result = runs[0].result
                whole = statistics.median(run.playbook_seconds for run in runs)
                seconds = statistics.median(float(run.result["seconds"]) for run in runs)
                met = _verdict(whole <= LONGEST_CAPTURE) if (disk, direction) == ("2 TiB", CAPTURE) else ""
                sizes = [f"{int(result[key]) / MIB:.0f} MiB" for key in ("used_bytes", "sent_bytes", "stored_bytes")]
                bar = f"{LONGEST_CAPTURE:.0f} s" if met else ""
                rows.append([direction, disk, *sizes, f"{seconds:.1f} s", f"{whole:.1f} s", bar, met])
        heads = ["OURS", "DISK", "USED", "SENT", "STORED", "WITH READ-BACK", "THE PLAYBOOK", "AT MOST", ""]
        return _table(heads, rows)

    def _memory_table(self) -> str:
        rows = [
            [direction, whose, f"{peak / MIB:.0f} MiB", f"{bar / MIB:.0f} MiB", _verdict(peak <= bar)]
            for whose, role, direction, bar in MEMORY_BARS
            if (peak := self._peak(role, direction))
        ]
        rows += [
            [direction, whose, f"{peak / MIB:.0f} MiB", "", ""]
            for whose, role, direction in ALSO_MEASURED
            if (peak := self._peak(role, direction))
        ]
        return _table(["OURS", "PEAK MEMORY OF", "MEASURED", "AT MOST", ""], rows)

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
        "peak_memory": {role: max(run.peaks.get(role, 0) for run in entry.ours) for role in (MODULE, WORKER)},
        "used_bytes": result["used_bytes"],
        "stored_bytes": result["stored_bytes"],
        "sent_bytes": result["sent_bytes"],
        "peer_sent_bytes": entry.peer_bytes,
    }


def _run_json(run: Run) -> dict[str, Any]:
    kept = {key: run.result[key] for key in KEPT if key in run.result}
    return kept | {"playbook_seconds": run.playbook_seconds, "peak_memory": run.peaks}


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
