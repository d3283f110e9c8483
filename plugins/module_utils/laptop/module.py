# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of both transfers share: their arguments, and how an error of ours ends a module."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable, NoReturn, Protocol

from ..disk.identity import DISK_ARGUMENTS
from ..disk.processes import processes
from ..engine.goal import DISCARD, UNUSED
from ..engine.level import AUTO
from ..errors import ImagingError
from ..stream.listener import LOOPBACK
from .job import forget_killed
from .session import Session, Terminated, arm_termination
from .ticket import Ticket

TCP = "tcp"
SSH = "ssh"
TRANSPORTS = (TCP, SSH)
PARAMIKO = "paramiko"
OPENSSH = "openssh"
SSH_CLIENTS = (PARAMIKO, OPENSSH)

COMMON_ARGUMENTS: dict[str, Any] = {
    **DISK_ARGUMENTS,
    "store": {"type": "path", "default": "~/fleet-images"},
    "port": {"type": "int", "default": 19000},
    "transport": {"type": "str", "choices": list(TRANSPORTS), "default": TCP},
    "ssh_client": {"type": "str", "choices": list(SSH_CLIENTS), "default": PARAMIKO},
    "link_timeout": {"type": "int", "default": 120},
    "ticket": {"type": "path"},
}

CAPTURE_ARGUMENTS: dict[str, Any] = dict(
    COMMON_ARGUMENTS,
    image={"type": "str", "required": True},
    compression_level={"type": "str", "default": AUTO},
    used_map={"type": "str", "choices": ["auto", "all"], "default": "auto"},
    update={"type": "bool", "default": False},
    facts={"type": "dict", "default": {}},
    bad_sectors={"type": "str", "choices": ["fail", "zero"], "default": "fail"},
)

RESTORE_ARGUMENTS: dict[str, Any] = dict(
    COMMON_ARGUMENTS,
    image={"type": "str", "required": True},
    read_back={"type": "bool", "default": True},
    unused={"type": "str", "choices": list(UNUSED), "default": DISCARD},
    rewrite={"type": "bool", "default": False},
    root_digest={"type": "str", "default": ""},
    mirror={"type": "str", "default": ""},
)


def open_session(params: dict[str, Any], ticket: Ticket) -> Session:
    """The session of a module with these arguments. Over SSH it listens on the loopback address alone."""
    forget_killed(params["ticket"], ticket.timeouts.settled)
    address = LOOPBACK if params["transport"] == SSH else ""
    device = os.path.realpath(params["device"])
    return Session(ticket.run_id, device, ticket.secret_bytes, (address, params["port"]), ticket.timeouts)


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
