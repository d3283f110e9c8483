# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a restore or a comparison. It is made once, after the image was described, and is valid over all links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from ..engine.delta_scan import DeltaScan
from ..engine.goal import DISCARD, Goal, PatchedChunk
from ..engine.guards import Guards
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
    """The requested image, checked, and the router for its chunks."""

    header: ImageHeader
    index: Index
    router: Router


@dataclass(frozen=True)
class RestorePlan:
    """The image, the desired content of the disk (``goal``), and the objects that compare, change and write the disk."""

    image: DescribedImage
    goal: Goal
    guards: Guards
    scan: Scan
    delta: DeltaScan
    engine: Restore
    change: DiskChange
    view: ExpectedView


def make_plan(
    image: DescribedImage,
    patched: Mapping[int, PatchedChunk],
    view: ExpectedView,
    disk: TargetDisk,
    request: RestoreRequest,
    zstd: Zstd,
    watches: Stopwatches,
) -> RestorePlan:
    """Make the plan; ``patched`` are the chunks in which the disk differs from the image on purpose."""
    raw = disk.raw
    goal = Goal(image.index, raw.size, request.unused, patched)
    guards = Guards(raw, goal.geometry)
    scan = Scan(raw, goal, watches)
    return RestorePlan(
        image=image,
        goal=goal,
        guards=guards,
        scan=scan,
        delta=DeltaScan(scan, goal, guards.chunks(), disk.disk.rotational),
        engine=Restore(raw, goal, image.index, guards, zstd, watches),
        change=DiskChange(raw, goal, guards, discard=request.unused == DISCARD),
        view=view,
    )
