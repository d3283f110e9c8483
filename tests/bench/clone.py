# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long one laptop and eight take to become equal to a reference, against a capture of the same disk followed by nothing.

The links are so slow that they are the limit and not the processors of this machine, which all laptops share, and both sides compress at the same
level. The time of a clone is that until the reference is described, and from the start of the restores until the last laptop has written and flushed
everything: what a capture is for the image. The reference hashes its disk meanwhile, and while Ansible starts the restores, too. The read-back, which
a capture does not have, and the whole playbooks are in the details.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ..integration.labs import running_lab
from ..integration.playbooks import YES, playbook
from ..lab.lab import Lab, Plan
from .ours import Ours, PlaybookFailed
from .speed import CAPTURE, Say, cool_down
from .state import REWRITE, Bar

DISK = 2 << 30
MBIT = 40
BARS = {1: 1.05, 8: 1.15}
"""By the number of laptops."""

LEVEL = ("-e", "imaging_compression_level=3")


@dataclass(frozen=True)
class Clone:
    """The seconds of one run."""

    describing: float
    writing: float
    """Of the laptop that took longest."""
    reading_back: float
    """Of the laptop that took longest."""
    playbook: float
    taken_from: list[list[str]]
    """For each laptop, the hosts that it took chunks from."""

    @property
    def seconds(self) -> float:
        """Until the last laptop has everything."""
        return self.describing + self.writing


def measure_clone(folder: Path, runs: int, say: Say) -> list[Bar]:
    """Measure captures and clones in turn."""
    say("bring the lab for clones up")
    store = folder / "clone"
    store.mkdir(mode=0o700)
    with running_lab(Plan(max(BARS), DISK, DISK, isolated=True, link_mbit=MBIT)) as lab:
        ours = Ours(lab, store)
        captures: list[float] = []
        playbooks: list[float] = []
        clones: dict[int, list[Clone]] = {count: [] for count in BARS}
        for _turn in range(runs):
            ours.remove_image()
            cool_down()
            captured = ours.run(CAPTURE, "image_capture", "reference", *LEVEL)
            captures.append(float(captured.result["seconds"]))
            playbooks.append(captured.playbook_seconds)
            say(f"clone: a capture takes {captures[-1]:.1f} s, its playbook {playbooks[-1]:.1f} s")
            for count, found in clones.items():
                cool_down()
                found.append(_clone(lab, store, count))
                say(f"clone: {count} laptops: {found[-1]}")
    alone = statistics.median(captures)
    return [
        Bar(
            f"clone-{count}",
            f"{count} laptops, of a capture",
            statistics.median(run.seconds for run in found) / alone,
            BARS[count],
            details={"captures": captures, "playbooks": playbooks, "clones": [asdict(run) for run in found]},
        )
        for count, found in clones.items()
    ]


def _clone(lab: Lab, store: Path, count: int) -> Clone:
    """Have so many laptops become equal to the reference, whatever they hold; raises PlaybookFailed."""
    names = [laptop.name for laptop in lab.targets[:count]]
    began = time.monotonic()
    limit = ("-l", ",".join(["reference", *names]))
    outcome = playbook(lab, "clone", *limit, "-e", f"imaging_store={store}", *YES, *REWRITE, *LEVEL)
    taken = time.monotonic() - began
    shared = [each.result for each in outcome.of("image_share") if "seconds" in each.result]
    restored = [each.result for each in outcome.of("image_restore") if each.result.get("write_seconds")]
    if outcome.status or len(shared) != 1 or len(restored) != count:
        raise PlaybookFailed(f"clone ended with status {outcome.status}:\n{outcome.stdout}{outcome.stderr}")
    return Clone(
        describing=float(shared[0]["seconds"]),
        writing=max(float(result["write_seconds"]) for result in restored),
        reading_back=max(float(result["compare_seconds"]) for result in restored),
        playbook=taken,
        taken_from=[[each["host"] for each in result["taken_from"]] for result in restored],
    )
