# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last lines of a run that failed: the state of each disk, and the command to continue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.closing_lines import closing_lines, command
from ansible_collections.fleet.imaging.plugins.plugin_utils.outcome import CAPTURE, COMPARE, RESTORE, SHARE, Failure
from ansible_collections.fleet.imaging.plugins.plugin_utils.run import Run

NOW = datetime(2026, 11, 26, 4, 36, 16, tzinfo=UTC)
CALL = ["/usr/bin/ansible-playbook", "restore.yml", "-i", "my hosts.yml", "-e", "imaging_image=one"]
AGAIN = "ansible-playbook restore.yml -i 'my hosts.yml' -e imaging_image=one"


def new_run(*names: str) -> Run:
    run = Run("restore", "ada", "imaging-01", NOW)
    run.expect(names)
    return run


def fail(run: Run, name: str, message: str, unreachable: bool = False) -> None:
    run.fail(name, Failure("a task", message, unreachable))


def end(run: Run, name: str, kind: str, failed: bool = False, **result: Any) -> None:
    run.begin(name, kind, NOW)
    run.end(name, kind, {}, result, failed, NOW)
    if failed:
        fail(run, name, str(result.get("msg", "")))


def test_where_all_goes_well_nothing_is_said() -> None:
    run = new_run("lab-01", "lab-02")
    for name in ("lab-01", "lab-02"):
        end(run, name, RESTORE, disk_state="verified")
        end(run, name, COMPARE, verified=True, disk_state="verified")
    assert closing_lines(run, False, CALL) == []


def test_each_disk_is_named_by_what_it_is_now() -> None:
    run = new_run(*(f"lab-{number:02}" for number in range(1, 9)))
    fail(run, "lab-01", "No route to host", unreachable=True)
    end(run, "lab-02", RESTORE, failed=True, disk_state="incomplete")
    end(run, "lab-03", RESTORE, failed=True)
    end(run, "lab-04", RESTORE, failed=True, unreachable=True)
    end(run, "lab-05", RESTORE, disk_state="verified")
    end(run, "lab-05", COMPARE, verified=False)
    fail(run, "lab-05", "not equal")
    end(run, "lab-06", RESTORE, disk_state="verified")
    fail(run, "lab-06", "no boot entry")
    end(run, "lab-07", RESTORE, disk_state="verified")
    end(run, "lab-08", RESTORE, failed=True, disk_state=["odd"])
    assert closing_lines(run, False, CALL) == [
        "These disks do not boot now: lab-02.",
        "These disks may not boot now, because their laptops did not report how the restore ended: lab-03, lab-08.",
        "These disks were written, but not verified: lab-05.",
        "These disks were restored and verified, but the steps after that did not finish: lab-06.",
        "Nothing was written to these disks: lab-01 (not reached), lab-04.",
        f"To go on with them: {AGAIN} -l lab-01,lab-02,lab-03,lab-04,lab-05,lab-06,lab-08",
    ]


def test_a_transfer_that_was_interrupted_is_not_known_to_have_ended_well() -> None:
    run = new_run("lab-01", "lab-02", "lab-03")
    run.begin("lab-01", RESTORE, NOW)
    end(run, "lab-02", RESTORE, disk_state="verified")
    run.begin("lab-03", RESTORE, NOW)
    run.skip("lab-03")
    assert closing_lines(run, True, CALL) == [
        "These disks may not boot now, because their laptops did not report how the restore ended: lab-01.",
        "These disks were restored and verified, but the steps after that did not finish: lab-02.",
        "Nothing was written to these disks: lab-03.",
        f"To go on with them: {AGAIN}",
    ]


def test_a_task_that_runs_once_fails_for_all() -> None:
    run = new_run("lab-01", "lab-02")
    for name in ("lab-01", "lab-02"):
        end(run, name, RESTORE, disk_state="verified")
    run.fail("lab-01", Failure("Show the result of every laptop", "no"), for_all=True)
    assert closing_lines(run, False, CALL) == [
        "These disks were restored and verified, but the steps after that did not finish: lab-01, lab-02.",
        f"To go on with them: {AGAIN}",
    ]


def test_only_the_laptops_of_the_last_play_are_named() -> None:
    run = new_run("lab-01", "lab-02")
    end(run, "lab-01", RESTORE, failed=True)
    run.expect(["lab-02"])
    assert closing_lines(run, False, CALL) == []


def test_to_go_on_with_a_clone_needs_the_reference() -> None:
    run = Run("clone", "ada", "imaging-01", NOW)
    run.expect(["reference-01"])
    end(run, "reference-01", SHARE, passed_on=1)
    run.expect(["lab-01", "lab-02"])
    end(run, "lab-01", RESTORE, failed=True, disk_state="incomplete")
    end(run, "lab-02", RESTORE, disk_state="verified")
    run.expect(["lab-02"])
    assert closing_lines(run, False, ["ansible-playbook", "clone.yml"]) == [
        "These disks do not boot now: lab-01.",
        "To go on with it: ansible-playbook clone.yml -l reference-01,lab-01",
    ]


def test_before_anything_was_begun_there_is_nothing_to_say() -> None:
    run = new_run("lab-01")
    fail(run, "lab-01", "erase 1 was not typed")
    assert closing_lines(run, False, CALL) == [] == closing_lines(new_run(), True, CALL)


@pytest.mark.parametrize(
    ("kept", "said"), [(1 << 20, "What was stored is kept. To go on from there"), (0, "To try again")]
)
def test_of_a_capture_it_is_said_what_is_kept(kept: int, said: str) -> None:
    run = new_run("reference-01")
    end(run, "reference-01", CAPTURE, failed=True, kept_bytes=kept)
    assert closing_lines(run, False, CALL) == [f"{said}: {AGAIN}"]
    run.check_mode = True
    assert closing_lines(run, False, CALL) == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("Task failed: Missing sudo password", "-K"),
        ("sudo: a password is required", "-K"),
        ("Task failed: Incorrect su password", "-K"),
        ("Timeout (17s) waiting for privilege escalation prompt: Welcome!", "-K"),
        ("Failed to connect to the host via ssh: live@198.18.0.14: Permission denied (password).", "-k"),
        ("Host Key checking is enabled, and sshpass does not support this", "ssh-keygen -R"),
        ("Module result deserialization failed: No start of json char found", "-m raw"),
    ],
)
def test_the_option_that_is_missing_is_named(words: str, hint: str) -> None:
    run = new_run("lab-01", "lab-02")
    fail(run, "lab-02", words)
    (line,) = closing_lines(run, False, CALL)
    assert line.startswith("lab-02: ") and hint in line


@pytest.mark.parametrize(
    ("more", "rest"),
    [
        (["-l", "lab_laptops"], ""),
        (["-llab_laptops", "-K"], " -K"),
        (["--limit=lab_laptops", "--list-hosts"], " --list-hosts"),
        (["--lim", "lab_laptops", "-v"], " -v"),
    ],
)
def test_the_command_has_one_limit(more: list[str], rest: str) -> None:
    assert command([*CALL, *more], ["lab-02", "lab-07"]) == f"{AGAIN}{rest} -l lab-02,lab-07"


def test_passwords_do_not_get_into_the_command() -> None:
    secrets = [
        "ansible_become_pass=hunter2 imaging_disk=/dev/sda",
        '{"ansible_password": "hunter2 too"}',
        "api_token='hunter2'",
    ]
    shown = command(["ansible-playbook", *(word for secret in secrets for word in ("-e", secret))], None)
    assert "hunter2" not in shown and "imaging_disk=/dev/sda" in shown and "ansible_become_pass=..." in shown
