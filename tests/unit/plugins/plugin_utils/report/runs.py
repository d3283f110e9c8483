# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs for the tests of the report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.fleet.imaging.plugins.plugin_utils.outcome import RESTORE, Failure
from ansible_collections.fleet.imaging.plugins.plugin_utils.run import Run

BEGAN = datetime(2026, 11, 26, 4, 36, 16, tzinfo=UTC)
ARGUMENTS = {"device": "/dev/nvme0n1", "image": "win11-lab", "expect": {"serial": "S1", "wwn": "eui.1"}}
GIB = 1 << 30
IMAGE = 850 << 20
"""Bytes of the image file in a run whose laptops pass it on."""


def timeline(seconds: int = 60, size: int = 12 * GIB) -> list[list[Any]]:
    """Samples of a restore that takes so many seconds, and is read back in a tenth of that; two each second."""
    streaming = [[step / 2, size * step // (2 * seconds), "streaming"] for step in range(2 * seconds + 1)]
    reading = max(seconds // 10, 1)
    verifying = [[seconds + step / 2, size * step // (2 * reading), "verifying"] for step in range(2 * reading + 1)]
    return streaming + verifying


def restored(**changes: Any) -> dict[str, Any]:
    """The result of a restore that went well."""
    return {
        "changed": True,
        "device": "/dev/nvme0n1",
        "image": "win11-lab",
        "model": "Samsung SSD 980 PRO",
        "verified": True,
        "used_bytes": 12 * GIB,
        "disk_size": 500 * GIB,
        "sent_bytes": 7 * GIB,
        "seconds": 66.0,
        "write_seconds": 60.0,
        "compare_seconds": 6.0,
        "throughput": 12 * GIB // 60,
        "limits": {"network": 0.81, "target disk write": 0.19},
        "limited_by": {
            "code": "network",
            "limit": "network",
            "share": 0.81,
            "advice": "network 81% busy: Connect the controller with more than 1 Gbit/s.",
            "explanation": "Connect the controller with more than 1 Gbit/s.",
        },
        "timeline": timeline(),
        "started": "2026-11-26T04:36:20Z",
        "zstd": "zstandard",
        **changes,
    }


def new_run(playbook: str = "restore") -> Run:
    """A run in which nothing has happened yet."""
    run = Run(playbook, "ada", "imaging-01", BEGAN)
    run.versions = {"fleet.imaging": "0.1.0"}
    return run


def end(run: Run, host: str, result: dict[str, Any], kind: str = RESTORE, failed: bool = False) -> None:
    """A transfer of a host, from its beginning to its end."""
    run.begin(host, kind, BEGAN)
    run.end(host, kind, dict(ARGUMENTS), result, failed, BEGAN + timedelta(seconds=66))
    if failed:
        run.fail(host, Failure("Make the disk equal", str(result.get("msg"))))


def closed(run: Run, interrupted: bool = False) -> Run:
    """The run, which is over after 70 seconds."""
    run.close(BEGAN + timedelta(seconds=70), interrupted)
    return run


def fleet(count: int, failed: int = 0, seconds: int = 60) -> Run:
    """A run with so many laptops, of which the last ones failed."""
    run = new_run()
    for number in range(1, count + 1):
        if number > count - failed:
            end(run, f"lab-{number:03d}", {"msg": "the disk is failing"}, failed=True)
        else:
            end(run, f"lab-{number:03d}", restored(timeline=timeline(seconds)))
    return closed(run)


def relayed(count: int) -> Run:
    """A run of at least 8 laptops that passed an image of 850 MiB on: one was slow, one was lost, and one sent damage."""
    run, names = new_run(), [f"lab-{number:03d}" for number in range(1, count + 1)]
    slow, lost, liar = names[count // 4], names[count // 2], names[3 * count // 4]
    reasons = {lost: [{"host": lost, "code": "lost"}], liar: [{"host": liar, "code": "damage"}]}
    for name, before, above in zip(names, ["", *names], ["", "", *names], strict=False):
        if name == lost:
            said = {"msg": "The link did not come back.", "taken_from": [{"host": before, "bytes": None}]}
            end(run, name, {**said, "sent_bytes": 1 << 10}, failed=True)
            continue
        taken = {before: IMAGE} if before else {}
        if before in (slow, lost, liar):
            taken = {before: IMAGE // 8, above: IMAGE - IMAGE // 8}
        result = restored(
            stored_bytes=IMAGE,
            frame_bytes={"controller": 0 if before else IMAGE, "store": 0, "mirror": 0, "peers": sum(taken.values())},
            sent_bytes=(1 << 10) if before else IMAGE,
            taken_from=[{"host": host, "bytes": size} for host, size in taken.items()],
            left=reasons.get(before, []),
            slow=name == slow,
        )
        end(run, name, result)
    return closed(run)
