# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The level of compression that follows what limits a capture, against the fixed ones, on links of three speeds.

What counts is the time of the capture and of restores of its image over gigabit Ethernet, each of which takes as long as the link takes to carry
the image. The levels come in turn, with cold caches, and each is first in another round than the others. The first round goes from the usual level
downwards and upwards, as far as there can be a best one. The shorter the captures, the more rounds there are.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import AUTO, FIRST
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import GIGABIT

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
FAR = 1.1
"""A level that takes so many times as long as the best one is not it, whatever chance does, and neither is any beyond it."""

ENOUGH = 30.0
"""Seconds that the captures at one level take together, at the least: those of a few seconds vary by a tenth."""

RESTORES = 10
"""So many times an image is restored: on as many laptops one after the other, or on all of a lab at once by relay, as often."""


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
        return [_bar(link, results) for link, results in found.items()]


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
        return _whole(result)

    whole = {level: capture(level) for level in (AUTO, USUAL)}
    for direction in (LOWER, HIGHER):
        for level in direction:
            whole[level] = capture(level)
            if whole[level] > FAR * min(whole.values()):
                break
    least = min(whole.values())
    order = [level for level in whole if level in (AUTO, USUAL) or whole[level] <= FAR * least]
    fastest = min(float(run["seconds"]) for runs_of_level in results.values() for run in runs_of_level)
    for _round in range(max(runs, math.ceil(ENOUGH / fastest)) - 1):
        order = [*order[2:], *order[:2]]
        for level in order:
            capture(level)
    return results


def _whole(result: dict[str, Any]) -> float:
    """Seconds of a capture, and of the restores of its image."""
    return float(result["seconds"] + RESTORES * result["sent_bytes"] / GIGABIT)


def _bar(link: str, results: Results) -> Bar:
    whole = {level: statistics.median(map(_whole, runs)) for level, runs in results.items()}
    best = min(whole.keys() - {AUTO}, key=lambda level: whole[level])
    seconds = {level: [float(run["seconds"]) for run in runs] for level, runs in results.items()}
    details = {"seconds": seconds, "best": best, "whole": whole}
    what = f"time of a capture and {RESTORES} restores, of those at the best fixed level ({best})"
    return Bar(f"level auto, {link}", what, whole[AUTO] / whole[best], OF_BEST, "x", details)
