# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's own words, as they stand in the source of the one that is installed: when it changes them, this fails."""

from __future__ import annotations

import inspect
import shutil
import subprocess
from pathlib import Path

import ansible
import pytest
from ansible.errors import AnsibleAuthenticationFailure
from ansible.plugins.become import BecomeBase
from ansible.plugins.become.su import BecomeModule as Su
from ansible.plugins.become.sudo import BecomeModule as Sudo

from ansible_collections.fleet.imaging.plugins.plugin_utils.connection_errors import (
    KNOWN_ERRORS,
    NO_ANSWER,
    NO_BECOME_PASSWORD,
    NO_LOGIN,
    UNKNOWN_HOST_KEY,
    WRONG_BECOME_PASSWORD,
    KnownError,
    known_error,
)

SOURCE = Path(inspect.getfile(ansible)).parent
SSH, PARAMIKO, LOCAL = (f"plugins/connection/{name}.py" for name in ("ssh", "paramiko_ssh", "local"))

WORDS = [
    (SSH, "'Missing %s password' % self.become.name", "Missing sudo password", NO_BECOME_PASSWORD),
    (SSH, "'Missing %s password' % self.become.name", "Missing community.general.doas password", NO_BECOME_PASSWORD),
    (SSH, "'Incorrect %s password' % self.become.name", "Incorrect sudo password", WRONG_BECOME_PASSWORD),
    (SSH, "'Incorrect %s password' % self.become.name", "Incorrect su password", WRONG_BECOME_PASSWORD),
    (
        SSH,
        "'Timeout (%ds) waiting for privilege escalation prompt: %s'",
        "Timeout (12s) waiting for privilege escalation prompt: Welcome!",
        NO_BECOME_PASSWORD,
    ),
    (
        PARAMIKO,
        "'ssh timed out waiting for privilege escalation",
        "ssh timed out waiting for privilege escalation.",
        NO_BECOME_PASSWORD,
    ),
    (
        PARAMIKO,
        '"A password is required but none was supplied"',
        "A password is required but none was supplied",
        NO_BECOME_PASSWORD,
    ),
    (LOCAL, "f'{reason} waiting for become success'", "Timed out waiting for become success.", NO_BECOME_PASSWORD),
    (
        LOCAL,
        "'Duplicate become password prompt encountered'",
        "Duplicate become password prompt encountered waiting for become success.",
        WRONG_BECOME_PASSWORD,
    ),
    (
        LOCAL,
        "become_error_msg('Premature end of stream')",
        "Premature end of stream waiting for become success.\n>>> Standard Error\nsudo: a password is required",
        NO_BECOME_PASSWORD,
    ),
    (
        SSH,
        "'Invalid/incorrect password:'",
        "Invalid/incorrect password: Permission denied, please try again.",
        NO_LOGIN,
    ),
    (
        SSH,
        "'Invalid/incorrect username/password. ",
        "Invalid/incorrect username/password. Skipping remaining 3 retries",
        NO_LOGIN,
    ),
    (
        SSH,
        '"Failed to connect to the host via %s: %s"',
        "Failed to connect to the host via ssh: live@198.18.0.2: Permission denied (publickey,password).",
        NO_LOGIN,
    ),
    (PARAMIKO, "raise AnsibleAuthenticationFailure() from ex", "Failed to authenticate.", NO_LOGIN),
    ("plugins/action/__init__.py", "'Authentication failure.'", "Authentication failure.", NO_LOGIN),
    (
        SSH,
        "because Host Key checking is enabled",
        "not possible because Host Key checking is enabled.",
        UNKNOWN_HOST_KEY,
    ),
    (SSH, 'b"Host key verification failed" in b_stderr', "Host key verification failed.", UNKNOWN_HOST_KEY),
    (PARAMIKO, "'host key mismatch for %s'", "host key mismatch for 198.18.0.2", UNKNOWN_HOST_KEY),
    (PARAMIKO, '"host connection rejected by user"', "host connection rejected by user", UNKNOWN_HOST_KEY),
    (
        "plugins/action/__init__.py",
        '"Module result deserialization failed."',
        "Module result deserialization failed.",
        NO_ANSWER,
    ),
]


@pytest.mark.parametrize(("file", "literal", "said", "obstacle"), WORDS)
def test_what_ansible_says_is_understood_and_it_still_says_it(
    file: str, literal: str, said: str, obstacle: KnownError
) -> None:
    assert literal in (SOURCE / file).read_text()
    assert known_error(f"Task failed: {said}") is obstacle


def test_what_ansible_takes_for_a_missing_or_a_wrong_password_is_taken_for_one_here() -> None:
    """Where the answer holds them and Ansible did not look, as without a prompt."""
    assert {known_error(words) for words in Sudo.missing} == {NO_BECOME_PASSWORD}
    assert {known_error(words) for words in Sudo.fail} == {WRONG_BECOME_PASSWORD}
    assert {known_error(f"su: {words}") for words in Su.fail} == {WRONG_BECOME_PASSWORD}
    # su has no words for a password that is missing: without -K Ansible waits in vain for it to go on.
    assert Su.missing == BecomeBase.missing == ()
    assert known_error(AnsibleAuthenticationFailure().message) is NO_LOGIN


@pytest.mark.parametrize(
    ("program", "words", "obstacle"),
    [
        ("doas", "Authentication required", NO_BECOME_PASSWORD),
        ("doas", "Authentication failed", WRONG_BECOME_PASSWORD),
        ("ssh", "Permission denied (%s).", NO_LOGIN),
        ("ssh", "Host key verification failed.", UNKNOWN_HOST_KEY),
        ("ssh", "REMOTE HOST IDENTIFICATION HAS CHANGED!", UNKNOWN_HOST_KEY),
    ],
)
def test_what_programs_say_is_understood_and_they_still_say_it(program: str, words: str, obstacle: KnownError) -> None:
    path = shutil.which(program, path="/usr/bin:/bin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    assert words.encode() in Path(path).read_bytes()
    assert known_error(f"{program}: {words}") is obstacle


def test_what_could_not_be_read_may_be_a_complaint() -> None:
    said = "Module result deserialization failed. It printed: doas: Authentication required"
    assert known_error(said) is NO_BECOME_PASSWORD


@pytest.mark.parametrize(
    "said",
    [
        "/dev/sda can't be opened: Permission denied. Disks belong to root: set ansible_become: true for this laptop.",
        "mkdir: cannot create directory '/root/.ansible': Permission denied",
        "/dev/sda is not the disk that was selected",
    ],
)
def test_other_failures_are_no_matter_of_passwords(said: str) -> None:
    assert known_error(said) is None


@pytest.mark.parametrize("obstacle", KNOWN_ERRORS)
def test_advice_is_not_taken_for_another_obstacle(obstacle: KnownError) -> None:
    """It stands in the message of a task, which is looked at again for the last lines."""
    assert known_error(obstacle.advice) is None


def test_sudo_of_this_machine_says_what_is_known() -> None:
    """The real one, run by a user that may do nothing without a password."""
    if not shutil.which("sudo") or not shutil.which("setpriv"):
        pytest.skip("sudo or setpriv is not installed")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = subprocess.run([*nobody, "sudo", "-n", "true"], capture_output=True, text=True, check=False)
    if not done.returncode or "no new privileges" in done.stderr or "setpriv" in done.stderr:
        pytest.skip("sudo can't be refused here")
    assert known_error(done.stderr) is NO_BECOME_PASSWORD
