# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why Ansible can't work with a laptop: how its own words, and those of the programs that it runs there, are told from one another, and what to do.

Ansible has no codes for that, and but one exception for all of it, so that only the words are left. Sources: ansible-core 2.19, in
plugins/connection, plugins/become and plugins/action; ssh(1); sudo 1.9, su of util-linux and opendoas 6.8.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownError:
    """Words, of which one is enough, and what to say, as a sentence without its full stop."""

    pattern: re.Pattern[str]
    advice: str


NO_BECOME_PASSWORD = KnownError(
    re.compile(
        r"Missing \S+ password|[Aa] password is required|doas: Authentication required|privilege escalation"
        r"|Timed out waiting for become success"
    ),
    "Becoming root takes a password: run again with -K, which asks for it, set ansible_become_password, or log in as root "
    "(ansible_user: root)",
)

WRONG_BECOME_PASSWORD = KnownError(
    re.compile(
        r"Incorrect \S+ password|Sorry, try again|Duplicate become password prompt|su: Authentication failure|doas: Authentication failed"
    ),
    "The password for becoming root is wrong, or was not given: run again with -K, which asks for it, or set ansible_become_password",
)

NO_LOGIN = KnownError(
    # OpenSSH says in parentheses which ways were left.
    re.compile(
        r"Permission denied \(|Failed to authenticate|Authentication failure\.|Invalid/incorrect (username/)?password"
    ),
    "The SSH login was refused: run again with -k, which asks for the password, or set ansible_user, ansible_password or "
    "ansible_ssh_private_key_file",
)

UNKNOWN_HOST_KEY = KnownError(
    re.compile(
        r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED|Host Key checking is enabled|host key mismatch"
        r"|host connection rejected by user"
    ),
    "The SSH host key is unknown or has changed, as it does when a live system is booted: remove the old one (ssh-keygen -R ADDRESS [-f FILE])",
)

NO_ANSWER = KnownError(
    re.compile(r"Module result deserialization failed"),
    "A shell or sudo prints additional text, so Ansible can't read the results. To see it: ansible HOST -b -m raw -a id",
)

KNOWN_ERRORS = (NO_BECOME_PASSWORD, WRONG_BECOME_PASSWORD, NO_LOGIN, UNKNOWN_HOST_KEY, NO_ANSWER)
"""In the order in which they are looked for: what could not be read may be the complaint that a password is missing."""


def known_error(failure: str) -> KnownError | None:
    """What is in the way, by the message of a failure; None for other failures."""
    return next((each for each in KNOWN_ERRORS if each.pattern.search(failure)), None)
