# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore or a comparison returns."""

from __future__ import annotations

from typing import Any, Iterator

from ..disk_state import VERIFIED
from ..engine.look import EQUAL, WANTED, WRITTEN
from ..engine.places import MOST_RANGES, describe_range, merge, name_ranges
from ..sources.http import MIRROR
from .restore_job import RestoreJob, bytes_of
from .restore_plan import RestorePlan


def restore_result(job: RestoreJob, plan: RestorePlan) -> dict[str, Any]:
    """The module's result, once the last phase is over."""
    look, outcome, image = plan.look, job.outcome, plan.image
    seconds = job.watches.seconds()
    begun = plan.change.begun
    writing = outcome.write_seconds if begun and outcome.write_seconds else 0.0
    changes = list(_changes(job, plan))
    verified = not outcome.differs and (outcome.compared or not begun)
    return {
        "changed": begun or outcome.differs,
        "disk_state": VERIFIED if verified else plan.change.state,
        "device": job.disk.raw.path,
        **job.disk.identity(),
        "disk_size": job.disk.raw.size,
        "larger_by": job.disk.raw.size - image.index.geometry.disk_size,
        "root_digest": job.request.root_digest.hex(),
        "used_chunks": len(plan.goal),
        "used_bytes": image.index.used_bytes(),
        "equal_chunks": look.count(EQUAL),
        "written_chunks": look.count(WRITTEN),
        "bytes_written": plan.engine.bytes_written,
        "frame_bytes": {MIRROR: 0, **image.router.frame_bytes()},
        "bytes_discarded": plan.change.bytes_discarded,
        "differing_chunks": len(outcome.differing),
        "differing_bytes": bytes_of(plan, map(plan.goal.row, outcome.differing)),
        "seen_differences": outcome.unlike,
        "changes": name_ranges(changes[:MOST_RANGES], image.header.source.get("partitions") or ()),
        "more_changes": max(0, len(changes) - MOST_RANGES),
        "verified": verified,
        "past_cache": job.disk.raw.past_cache,
        "write_seconds": round(writing, 3),
        "compare_seconds": round(seconds - writing, 3) if outcome.compared or not begun else 0.0,
        "links_made": job.links_made,
        "workers": plan.engine.workers,
        "status": job.status(plan).pack().decode(),
    }


def restore_diff(job: RestoreJob, plan: RestorePlan, result: dict[str, Any]) -> dict[str, str]:
    """What ``--diff`` shows, from the result's numbers."""
    chunks = result["written_chunks"] if job.request.write else result["differing_chunks"]
    changed = plan.look.rows(WRITTEN if job.request.write else WANTED)
    lines = [f"{chunks} of {len(plan.goal)} chunks ({bytes_of(plan, changed)} used bytes) differ"]
    lines += [describe_range(place) for place in result["changes"]]
    lines += [f"and {result['more_changes']} more ranges"] if result["more_changes"] else []
    lines += job.outcome.unlike
    return {
        "before": "\n".join(lines) + "\n",
        "after": f"0 of {len(plan.goal)} chunks (0 used bytes) differ\n",
    }


def _changes(job: RestoreJob, plan: RestorePlan) -> Iterator[tuple[int, int]]:
    """The byte ranges of the disk that were written or, in a comparison, would be."""
    geometry = plan.goal.geometry
    rows = plan.look.rows(WRITTEN if job.request.write else WANTED)
    yield from merge(
        (geometry.offset(row.chunk), geometry.offset(row.chunk) + geometry.length(row.chunk)) for row in rows
    )
