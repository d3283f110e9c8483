# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fuzz one target, in a process of its own: one.py TARGET, then arguments of libFuzzer. Ends at the first crash."""

from __future__ import annotations

import os
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["ansible_collections.fleet.imaging.plugins"]):
    from ansible_collections.fleet.imaging.tests.fuzz.targets import TARGETS, attempt

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "subprocess.Popen",
    "socket.connect",
)


def forbid_changes(event: str, arguments: tuple[Any, ...]) -> None:
    """See to it that nothing is written, started or connected (an audit hook, PEP 578)."""
    if event in FORBIDDEN or (event == "open" and arguments[2] & WRITING):
        raise AssertionError(f"a parser does {event} {arguments}")


def main() -> None:
    """Fuzz until libFuzzer's arguments say that it is enough."""
    target = TARGETS[sys.argv[1]]
    target.seeds()  # makes what is kept, and that writes
    attempt(target, b"")
    sys.addaudithook(forbid_changes)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda data: attempt(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
