# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done in a restore or a comparison: made once, when the image was described, and valid over all links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from ..engine.goal import DISCARD, Goal, OwnChunk
from ..engine.guards import Guards
from ..engine.look import Look
from ..engine.restore import Restore
from ..engine.scan import Scan
from ..engine.stopwatch import Stopwatches
from ..image.header import ImageHeader
from ..image.index import Index
from ..sources.router import Router
from ..zstd import Zstd
from .disk_change import DiskChange
from .target_disk import RestoreRequest, TargetDisk
from .view import ExpectedView


@dataclass(frozen=True)
class DescribedImage:
    """An image that was found to be the one that was asked for, and who can give its chunks."""

    header: ImageHeader
    index: Index
    router: Router


@dataclass(frozen=True)
class RestorePlan:
    """The image, what the disk is to hold by it (``goal``), and what compares, changes and writes the disk."""

    image: DescribedImage
    goal: Goal
    guards: Guards
    scan: Scan
    look: Look
    engine: Restore
    change: DiskChange
    view: ExpectedView


def make_plan(
    image: DescribedImage,
    own: Mapping[int, OwnChunk],
    view: ExpectedView,
    disk: TargetDisk,
    request: RestoreRequest,
    zstd: Zstd,
    watches: Stopwatches,
) -> RestorePlan:
    """Decide what the disk is to hold; ``own`` are the chunks in which it differs from the image on purpose."""
    raw = disk.raw
    goal = Goal(image.index, raw.size, request.unused, own)
    guards = Guards(raw, goal.geometry)
    scan = Scan(raw, goal, watches)
    return RestorePlan(
        image=image,
        goal=goal,
        guards=guards,
        scan=scan,
        look=Look(scan, goal, guards.chunks(), disk.disk.rotational),
        engine=Restore(raw, goal, image.index, guards, zstd, watches),
        change=DiskChange(raw, goal, guards, discard=request.unused == DISCARD),
        view=view,
    )
