# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of all transfers share: how they listen, and how an error of ours ends a module."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable, NoReturn, Protocol

from ..arguments import TRANSPORTS
from ..disk.processes import processes
from ..errors import ImagingError
from ..ticket import Ticket
from .job import forget_killed
from .session import Session, Terminated, arm_termination


def open_session(params: dict[str, Any], ticket: Ticket) -> Session:
    """The session of a module with these arguments."""
    forget_killed(params["ticket"])
    address = TRANSPORTS[params["transport"]]
    device = os.path.realpath(params["device"])
    return Session(ticket.run_id, device, ticket.secret_bytes, (address, params["port"]), params["link_timeout"])


class Module(Protocol):
    """What is used of AnsibleModule."""

    params: dict[str, Any]

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        """End the module with a failure."""

    def exit_json(self, **kwargs: Any) -> NoReturn:
        """End the module with a result."""


def end_children() -> None:
    """End the programs that this process has started (partclone, say), which would otherwise go on without it."""
    for pid, _name in processes():
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError, IndexError):
            continue  # it has ended


def run_module(module: Module, work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Run ``work`` and end the module with its result, or with the message of what went wrong."""
    arm_termination()
    try:
        result = work()
    except ImagingError as error:
        module.fail_json(msg=str(error), **error.facts)
    except Terminated as error:
        end_children()
        module.fail_json(msg=f"The module was {error}. Run again to finish what it had not finished.", **error.facts)
    module.exit_json(**result)
