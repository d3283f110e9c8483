# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a restore or a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, TypedDict

from ..disk_state import VERIFIED
from ..engine.delta_scan import EQUAL, WANTED, WRITTEN
from ..engine.partition_names import MAX_RANGES, NamedRange, describe_range, merge, name_ranges
from ..sources.http_image import MIRROR, STORE
from ..sources.peers import PEERS
from .restore_job import RestoreJob, bytes_of
from .restore_plan import RestorePlan


class Diff(TypedDict):
    """What ``--diff`` shows."""

    before: str
    after: str


class Taken(TypedDict):
    """Another laptop, and the bytes of frames that were taken from there."""

    host: str
    bytes: int


@dataclass(frozen=True)
class Restored:
    """The result of a restore or a comparison. Sizes in bytes; ``status`` is a packed ``engine.status.Status``.

    ``frame_bytes`` are the bytes of frames from each source, by its name, of which those that were not used have 0. ``taken_from`` are the other
    laptops among them, in the order in which they were used, and ``passed_on`` the bytes of frames that other laptops took from this one.
    """

    changed: bool
    disk_state: str
    device: str
    model: str
    serial: str
    wwn: str
    table: str
    disk_size: int
    larger_by: int
    root_digest: str
    used_chunks: int
    used_bytes: int
    equal_chunks: int
    written_chunks: int
    bytes_written: int
    bytes_discarded: int
    frame_bytes: dict[str, int]
    taken_from: list[Taken]
    passed_on: int
    differing_chunks: int
    differing_bytes: int
    seen_differences: list[str]
    changes: list[NamedRange]
    more_changes: int
    verified: bool
    past_cache: bool
    write_seconds: float
    compare_seconds: float
    links_made: int
    workers: int
    status: str
    zstd: str
    diff: Diff


def restore_result(job: RestoreJob, plan: RestorePlan) -> Restored:
    """Return the module's result after the last phase."""
    delta, outcome, image, raw = plan.delta, job.outcome, plan.image, job.disk.raw
    relay = job.relay
    begun, seconds = plan.change.begun, job.watches.seconds()
    writing = outcome.write_seconds if begun and outcome.write_seconds else 0.0
    chunks = [row.chunk for row in delta.rows(WRITTEN if job.request.write else WANTED)]
    places = list(_byte_ranges(plan, chunks))
    changes = name_ranges(places[:MAX_RANGES], image.header.source.get("partitions") or ())
    more_changes = len(places) - len(changes)
    verified = not outcome.differs and (outcome.compared or not begun)
    return Restored(
        changed=begun or outcome.differs,
        disk_state=VERIFIED if verified else plan.change.state,
        device=raw.path,
        **job.disk.identity(),
        table=job.disk.table_id(),
        disk_size=raw.size,
        larger_by=raw.size - image.index.geometry.disk_size,
        root_digest=job.hashes.root.hex(),
        used_chunks=len(plan.goal),
        used_bytes=image.index.used_bytes(),
        equal_chunks=delta.count(EQUAL),
        written_chunks=delta.count(WRITTEN),
        bytes_written=plan.engine.bytes_written,
        bytes_discarded=plan.change.bytes_discarded,
        frame_bytes={MIRROR: 0, STORE: 0, PEERS: 0, **image.router.frame_bytes()},
        taken_from=[Taken(host=host, bytes=size) for host, size in (relay.source.received.items() if relay else ())],
        passed_on=relay.sent if relay else 0,
        differing_chunks=len(outcome.differing),
        differing_bytes=bytes_of(plan, map(plan.goal.row, outcome.differing)),
        seen_differences=outcome.unlike,
        changes=changes,
        more_changes=more_changes,
        verified=verified,
        past_cache=raw.past_cache,
        write_seconds=round(writing, 3),
        compare_seconds=round(seconds - writing, 3) if outcome.compared or not begun else 0.0,
        links_made=job.links_made,
        workers=plan.engine.workers,
        status=job.status(plan).pack().decode(),
        zstd=job.zstd.name,
        diff=_diff(plan, chunks, changes, more_changes, outcome.unlike),
    )


def _diff(plan: RestorePlan, chunks: list[int], changes: list[NamedRange], more: int, unlike: list[str]) -> Diff:
    size = bytes_of(plan, map(plan.goal.row, chunks))
    lines = [f"{len(chunks)} of {len(plan.goal)} chunks ({size} used bytes) differ"]
    lines += [describe_range(place) for place in changes]
    lines += [f"and {more} more ranges"] if more else []
    lines += unlike
    return Diff(before="\n".join(lines) + "\n", after=f"0 of {len(plan.goal)} chunks (0 used bytes) differ\n")


def _byte_ranges(plan: RestorePlan, chunks: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of these chunks, with adjacent ones merged."""
    geometry = plan.goal.geometry
    yield from merge((geometry.offset(chunk), geometry.offset(chunk) + geometry.length(chunk)) for chunk in chunks)
