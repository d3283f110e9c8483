# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs programs of the controller."""

import subprocess
from collections.abc import Sequence

from ..module_utils.disk.command import CommandResult, MissingTool, ending_with_parent, english, find_program


def run_command(command: Sequence[str]) -> CommandResult:
    """A ``RunCommand`` (``disk.command``). Programs speak English and are found in the system folders, too, and end with this process."""
    program = find_program(command[0])
    if program is None:
        raise MissingTool(command[0])
    done = subprocess.run(
        ending_with_parent([program, *command[1:]]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=english(),
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)
