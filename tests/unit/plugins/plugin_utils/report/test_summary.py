# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report says of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.outcome import CAPTURE, COMPARE, SHARE, Failure
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.summary import limits, summary
from ansible_collections.fleet.imaging.plugins.plugin_utils.run import Run, failure_message

from .runs import BEGAN, IMAGE, closed, end, fleet, new_run, relayed, restored


def states(report: dict[str, Any]) -> dict[str, str]:
    return {entry["host"]: entry["state"] for entry in report["laptops"]}


def test_all_went_well() -> None:
    report = summary(fleet(3))
    assert (report["level"], report["verdict"]) == ("good", "All 3 laptops restored and verified.")
    assert (report["image"], report["seconds"], report["started"]) == ("win11-lab", 70.0, "2026-11-26T04:36:16Z")
    assert report["limits"] == {"network": 0.81, "target disk write": 0.19}
    assert report["versions"] == {"fleet.imaging": "0.1.0", "zstd (laptops)": "zstandard"}


def test_who_failed_is_first_and_says_why() -> None:
    report = summary(fleet(40, failed=2))
    assert (report["level"], report["verdict"]) == ("bad", "38 of 40 laptops restored and verified; 2 failed.")
    assert [entry["host"] for entry in report["laptops"]][:3] == ["lab-039", "lab-040", "lab-001"]
    assert report["laptops"][0]["failures"][0]["message"] == "the disk is failing"
    # The result of a task that failed says little of the disk; the task's arguments do.
    assert (report["laptops"][0]["device"], report["laptops"][0]["serial"]) == ("/dev/nvme0n1", "S1")


def test_every_failure_counts_once_and_in_words() -> None:
    run = fleet(2)
    run.expect(["lab-003", "lab-004", "lab-005"])
    run.fail("lab-003", Failure("List the disks", "No route to host", unreachable=True))
    run.fail("lab-004", Failure("List the disks", "no disk"))
    run.fail("lab-001", Failure("Make UEFI firmware find the disk", "no efibootmgr"))
    report = summary(run)
    assert states(report) == {
        "lab-001": "restored and verified, then failed",
        "lab-002": "restored and verified",
        "lab-003": "unreachable",
        "lab-004": "failed",
        "lab-005": "not begun",
    }
    assert report["verdict"] == (
        "1 of 5 laptops restored and verified; 1 restored and verified, then failed; 1 unreachable; 1 failed; 1 not begun."
    )


def test_nothing_was_to_do() -> None:
    run = new_run()
    for host in ("a", "b"):
        end(run, host, restored(changed=False))
    assert summary(closed(run))["verdict"] == "All 2 laptops equal to the image already."
    end(run, "c", restored())
    assert summary(run)["verdict"] == "All 3 laptops restored and verified (2 of them were equal already)."


def test_what_was_not_read_back_is_not_called_verified() -> None:
    run = new_run()
    end(run, "a", restored(verified=False))
    report = summary(closed(run))
    assert (report["level"], report["verdict"]) == ("open", "a: restored, not verified.")
    end(run, "a", restored(changed=False, sent_bytes=1), COMPARE)
    report = summary(run)
    assert (report["level"], report["laptops"][0]["state"]) == ("good", "restored and verified")
    # The figures are those of the restore.
    assert report["laptops"][0]["sent_bytes"] == restored()["sent_bytes"]


def test_who_passed_the_image_on() -> None:
    run = new_run()
    end(run, "a", restored(passed_on=7, taken_from=[]))
    taken = [{"host": "a", "bytes": 7}, {"host": "router", "bytes": 9}, {"host": "c", "bytes": -1}]
    left = [{"host": "a", "code": "lost"}, {"host": "router", "code": "damage"}]
    end(run, "b", restored(passed_on=0, taken_from=taken, left=left))
    end(run, "c", restored(slow=True))
    found = {entry["host"]: entry for entry in summary(closed(run))["laptops"]}
    assert found["a"]["taken_from"] == [] and found["a"]["passed_on"] == 7
    # Only laptops of the run are believed in.
    assert found["b"]["left"] == [{"host": "a", "code": "lost"}]
    assert found["c"]["slow"] and not found["a"]["slow"]
    assert found["b"]["taken_from"] == [{"host": "a", "bytes": 7}, {"host": "c", "bytes": None}]


def test_how_many_images_came_from_where() -> None:
    report = summary(relayed(8))
    assert report["sources"] == {
        # What was sent to a laptop that failed counts.
        "controller": {"bytes": IMAGE + 7 * (1 << 10), "images": 1.0},
        "store": {"bytes": 0, "images": 0.0},
        "mirror": {"bytes": 0, "images": 0.0},
        "laptops": {"bytes": 6 * IMAGE, "images": 6.0},
    }
    run = new_run("clone")
    end(run, "a", restored(frame_bytes={"peers": 5}))
    assert summary(closed(run))["sources"]["laptops"] == {"bytes": 5, "images": None}


def test_a_comparison() -> None:
    run = new_run("verify")
    end(run, "a", restored(changed=False), COMPARE)
    end(run, "b", restored(verified=False, differing_chunks=3), COMPARE)
    run.fail("b", Failure("Check that every chunk is equal", "3 of 9 chunks differ"))
    report = summary(closed(run))
    assert states(report) == {"b": "not equal", "a": "equal"}
    assert report["verdict"] == "1 of 2 laptops equal to the image; 1 not equal."


def test_check_mode() -> None:
    run = new_run()
    run.check_mode = True
    end(run, "a", restored(changed=False), COMPARE)
    end(run, "b", restored(verified=False), COMPARE)
    report = summary(closed(run))
    assert (report["level"], report["purpose"]) == ("open", "check")
    assert report["verdict"] == "1 of 2 laptops equal already; 1 would be restored; nothing was written (check mode)."


def test_captures() -> None:
    run = new_run("capture")
    end(run, "reference", restored(verified=None), CAPTURE)
    assert summary(closed(run))["verdict"] == "reference: captured."
    run = new_run("capture")
    end(run, "reference", restored(changed=False), CAPTURE)
    assert summary(closed(run))["verdict"] == "reference: unchanged since the last capture."
    run.check_mode = True
    assert summary(run)["verdict"] == "reference: can be captured; nothing was written (check mode)."


def test_the_reference_of_a_clone_counts_only_if_something_is_wrong_with_it() -> None:
    run = fleet(2)
    end(run, "reference", {"passed_on": 1}, SHARE)
    report = summary(closed(run))
    assert (report["purpose"], report["verdict"]) == ("restore", "All 2 laptops restored and verified.")
    assert states(report)["reference"] == "shared its disk"
    run.fail("reference", Failure("Let go of the reference's disk", "it has changed"))
    assert summary(run)["verdict"] == "2 of 3 laptops restored and verified; 1 shared its disk, then failed."


def test_what_ended_the_run_for_all() -> None:
    run = new_run()
    run.expect(["a", "b"])
    run.fail("a", Failure("Go on only with a yes", "Nothing was touched"), for_all=True)
    report = summary(closed(run))
    assert (report["level"], report["verdict"]) == ("bad", "None of 2 laptops restored and verified; 2 not begun.")
    assert [failure["message"] for failure in report["failures"]] == ["Nothing was touched"]


def test_an_interrupted_run() -> None:
    run = fleet(1)
    run.begin("b", "restore", BEGAN)
    report = summary(closed(run, interrupted=True))
    assert states(report) == {"b": "broken off", "lab-001": "restored and verified"}
    assert report["verdict"] == "Interrupted. 1 of 2 laptops restored and verified; 1 broken off."


def test_a_run_with_nothing_is_not_worth_a_report() -> None:
    run = new_run()
    run.expect(["a"])
    assert not run.worth_a_report
    run.begin("a", "restore", BEGAN)
    assert run.worth_a_report
    run.skip("a")
    assert not run.worth_a_report
    run.fail("a", Failure("Ask", "no"))
    assert run.worth_a_report
    run.forgive(["a"])
    assert not run.worth_a_report
    other = new_run("site")
    other.fail("a", Failure("Something else", "no"))
    assert not other.worth_a_report


def empty_results(run: Run) -> None:
    end(run, "a", {})


def strange_results(run: Run) -> None:
    names = (
        "seconds",
        "used_bytes",
        "sent_bytes",
        "taken_from",
        "frame_bytes",
        "left",
        "slow",
        "throughput",
        "limits",
        "limited_by",
        "timeline",
        "started",
        "model",
    )
    values: list[Any] = [None, "x", [1], {"a": {}}, float("nan"), float("inf"), -1, 10**400, True, b"\xff"]
    for position, value in enumerate(values):
        end(run, f"h{position}", dict.fromkeys(names, value))


def nobody(run: Run) -> None:
    assert run.laptops == {}


@pytest.mark.parametrize("happens", [empty_results, strange_results, nobody])
def test_whatever_results_hold_becomes_plain_data(happens: Callable[[Run], None]) -> None:
    run = new_run()
    happens(run)
    report = summary(closed(run))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert len(report["laptops"]) == len(run.laptops)


def test_the_clock_may_go_back() -> None:
    run = new_run()
    run.close(BEGAN.replace(year=2025), interrupted=False)
    assert summary(run)["seconds"] == 0.0


def test_shares_sum_to_one() -> None:
    assert limits({"network": 3, "target disk write": 1, "nothing": 0, "wrong": "x"}) == {
        "network": 0.75,
        "target disk write": 0.25,
    }
    assert limits({"network": 0}) == limits({}) == limits(None) == {}


def test_the_model_is_what_disk_info_said_of_the_disk() -> None:
    run = new_run()
    run.learn_disks("a", [{"path": "/dev/nvme0n1", "model": "Known"}, {"path": "/dev/sda", "model": "Other"}, 7])
    end(run, "a", {"msg": "failing"}, failed=True)
    assert summary(closed(run))["laptops"][0]["model"] == "Known"


def test_a_message_is_all_that_was_said() -> None:
    assert (
        failure_message({"msg": "short", "stderr": "short and more", "module_stderr": "short"})
        == "short\nshort and more"
    )
    assert failure_message({"msg": ["one", "two"]}) == "one\ntwo"
    items = [{"failed": True, "item": "x", "msg": "lost"}, {"failed": False, "msg": "fine"}]
    assert failure_message({"msg": "One or more items failed", "results": items}) == "One or more items failed\nx: lost"
    assert failure_message({}) == "It failed without a message."
    long = "word " * 20000
    assert failure_message({"msg": long}) == long.strip()
