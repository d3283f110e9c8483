# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of 2 TiB: what the processes take must not grow with it, and a little data on it is captured in little time.

It is a lab of its own. The disks' files are sparse: what takes room is the data alone.
"""

from __future__ import annotations

from pathlib import Path

from ..integration.labs import running_lab
from ..lab.lab import Plan
from .ours import Ours, Run
from .speed import Say, cool_down

SIZE = 2 << 40
USED = 256 << 20
MAX_CAPTURE = 120.0


def measure_big_disk(folder: Path, say: Say) -> tuple[Run, Run]:
    """Capture a disk of 2 TiB, restore another one from its image, and return both runs."""
    plan = Plan(1, SIZE, SIZE, isolated=True, used_share=USED / SIZE, blank=True)
    say("make a reference of 2 TiB")
    with running_lab(plan) as lab:
        ours = Ours(lab, folder / "store")
        ours.remove_image()
        cool_down()
        capture = ours.capture()
        say(f"capture of 2 TiB: {capture.result['seconds']:.1f} s, the playbook {capture.playbook_seconds:.1f} s")
        cool_down()
        restore = ours.restore()
        say(f"restore of 2 TiB: {restore.result['seconds']:.1f} s, the playbook {restore.playbook_seconds:.1f} s")
        return capture, restore
