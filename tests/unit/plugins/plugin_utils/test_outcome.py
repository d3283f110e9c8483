# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said in the end of what became of the disks, and the command that goes on."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.outcome import (
    CAPTURE,
    COMPARE,
    RESTORE,
    Outcome,
    command,
)

CALL = ["/usr/bin/ansible-playbook", "restore.yml", "-i", "my hosts.yml", "-e", "imaging_image=one"]
AGAIN = "ansible-playbook restore.yml -i 'my hosts.yml' -e imaging_image=one"


def run(*names: str) -> Outcome:
    outcome = Outcome()
    outcome.expect(names)
    return outcome


def restored(outcome: Outcome, name: str, **result: Any) -> None:
    outcome.begin(name, RESTORE)
    outcome.end(name, RESTORE, result)
    if result.get("failed"):
        outcome.fail(name, str(result.get("msg", "")))


def test_where_all_goes_well_nothing_is_said() -> None:
    outcome = run("lab-01", "lab-02")
    for name in ("lab-01", "lab-02"):
        restored(outcome, name, disk_state="verified")
        outcome.begin(name, COMPARE)
        outcome.end(name, COMPARE, {"verified": True, "disk_state": "verified"})
    assert outcome.lines(False, CALL) == []


def test_each_disk_is_named_by_what_it_is_now() -> None:
    outcome = run(*(f"lab-{number:02}" for number in range(1, 9)))
    outcome.fail("lab-01", "No route to host", unreachable=True)
    restored(outcome, "lab-02", disk_state="incomplete", failed=True)
    restored(outcome, "lab-03", failed=True)
    restored(outcome, "lab-04", unreachable=True, failed=True)
    restored(outcome, "lab-05", disk_state="verified")
    outcome.end("lab-05", COMPARE, {"verified": False})
    outcome.fail("lab-05", "not equal")
    restored(outcome, "lab-06", disk_state="verified")
    outcome.fail("lab-06", "no boot entry")
    restored(outcome, "lab-07", disk_state="verified")
    restored(outcome, "lab-08", disk_state=["odd"], failed=True)
    assert outcome.lines(False, [*CALL, "-l", "lab_laptops"]) == [
        "These disks do not boot now: lab-02.",
        "These disks may not boot now, because their laptops did not report how the restore ended: lab-03, lab-08.",
        "These disks were written, but not verified: lab-05.",
        "These disks were restored and verified, but the steps after that did not finish: lab-06.",
        "Nothing was written to these disks: lab-01 (not reached), lab-04.",
        f"To go on with them: {AGAIN} -l lab-01,lab-02,lab-03,lab-04,lab-05,lab-06,lab-08",
    ]


def test_a_transfer_that_was_interrupted_is_not_known_to_have_ended_well() -> None:
    outcome = run("lab-01", "lab-02", "lab-03")
    outcome.begin("lab-01", RESTORE)
    restored(outcome, "lab-02", disk_state="verified")
    outcome.begin("lab-03", RESTORE)
    outcome.skip("lab-03")
    assert outcome.lines(True, CALL) == [
        "These disks may not boot now, because their laptops did not report how the restore ended: lab-01.",
        "These disks were restored and verified, but the steps after that did not finish: lab-02.",
        "Nothing was written to these disks: lab-03.",
        f"To go on with them: {AGAIN}",
    ]


def test_before_anything_was_begun_there_is_nothing_to_say() -> None:
    outcome = run("lab-01")
    outcome.fail("lab-01", "erase 1 was not typed")
    assert outcome.lines(False, CALL) == [] == run().lines(True, CALL)


@pytest.mark.parametrize(
    ("kept", "said"), [(1 << 20, "What was stored is kept. To go on from there"), (0, "To try again")]
)
def test_of_a_capture_it_is_said_what_is_kept(kept: int, said: str) -> None:
    outcome = run("reference-01")
    outcome.begin("reference-01", CAPTURE)
    outcome.end("reference-01", CAPTURE, {"failed": True, "kept_bytes": kept})
    outcome.fail("reference-01", "the disk is failing")
    assert outcome.lines(False, CALL) == [f"{said}: {AGAIN}"]


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
    outcome = run("lab-01", "lab-02")
    outcome.fail("lab-02", words)
    (line,) = outcome.lines(False, CALL)
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
