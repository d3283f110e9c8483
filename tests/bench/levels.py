# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The level of compression that follows what limits a capture, against the fixed ones, on links of three speeds.

The levels come in turn, with cold caches, and each is first in another round than the others. The first round goes from the usual level
downwards and upwards, as far as there can be a best one. The shorter the captures, the more rounds there are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import AUTO, FIRST

from ..integration.labs import running_lab
from ..lab.lab import Plan
from ..lab.network import Network
from .ours import Ours
from .speed import Say, cool_down
from .state import Bar

USUAL = str(FIRST)
LOWER = ("1", "-1", "-5")
HIGHER = ("6", "9", "12")
LINKS = {"an unlimited link": None, "a link of 1000 Mbit/s": 1000, "a link of 100 Mbit/s": 100}
OF_BEST = 1.05
FAR = 1.25
"""A level that takes so many times as long as the best one is not it, whatever chance does, and neither is any beyond it."""

ENOUGH = 30.0
"""Seconds that the captures at one level take together, at the least: those of a few seconds vary by a tenth."""

MIN_BETTER = 2
"""On so many of the links it must be faster than the usual level."""


def measure_levels(size: int, folder: Path, runs: int, say: Say) -> list[Bar]:
    """Measure all links, with a reference's disk of so many bytes."""
    say("bring the lab for the levels up")
    with running_lab(Plan(1, size, size, isolated=True)) as lab:
        store = folder / "levels"
        store.mkdir(mode=0o700)
        ours = Ours(lab, store)
        found = {}
        for link, mbit in LINKS.items():
            if mbit is not None:
                Network(lab.folder).limit(lab.reference.number, mbit)
            found[link] = _measure(link, ours, runs, say)
        return list(_bars(found))


Results = dict[str, list[dict[str, Any]]]
"""Of the captures, by level."""


def _measure(link: str, ours: Ours, runs: int, say: Say) -> Results:
    """The results of all captures over a link."""
    results: Results = {}

    def capture(level: str) -> float:
        ours.remove_image()
        cool_down()
        more = ("-e", f"imaging_compression_level={level}")
        result = ours.run("capture", "image_capture", "reference", *more).result
        results.setdefault(level, []).append(result)
        sent = result["sent_bytes"] >> 20
        say(f"capture over {link}, level {level:>4}: {result['seconds']:6.2f} s, {sent} MiB sent")
        return float(result["seconds"])

    seconds = {level: capture(level) for level in (AUTO, USUAL)}
    for direction in (LOWER, HIGHER):
        for level in direction:
            seconds[level] = capture(level)
            if seconds[level] > FAR * min(seconds.values()):
                break
    fastest = min(seconds.values())
    order = [level for level in seconds if level in (AUTO, USUAL) or seconds[level] <= FAR * fastest]
    for _round in range(max(runs, math.ceil(ENOUGH / fastest)) - 1):
        order = [*order[2:], *order[:2]]
        for level in order:
            capture(level)
    return results


def _bars(found: dict[str, Results]) -> Iterator[Bar]:
    better = 0
    for link, results in found.items():
        seconds = {level: [float(run["seconds"]) for run in runs] for level, runs in results.items()}
        medians = {level: statistics.median(taken) for level, taken in seconds.items()}
        best = min(medians.keys() - {AUTO}, key=lambda level: medians[level])
        better += medians[AUTO] < medians[USUAL]
        sent = {level: statistics.median(run["sent_bytes"] for run in runs) for level, runs in results.items()}
        details = {"seconds": seconds, "sent_bytes": sent, "best": best, "of_usual": medians[AUTO] / medians[USUAL]}
        what = f"time of a capture, of one at the best fixed level ({best})"
        yield Bar(f"level auto, {link}", what, medians[AUTO] / medians[best], OF_BEST, "x", details)
    what = f"links on which it is not faster than level {USUAL}"
    yield Bar("level auto", what, len(found) - better, len(LINKS) - MIN_BETTER, "links")
