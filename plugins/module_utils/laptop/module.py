# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of all transfers share: how they listen, and how they end when they are terminated."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, Callable

from ..arguments import ANY_ADDRESS, TRANSPORTS
from ..disk.processes import processes, stat_fields
from ..ending import run_module
from ..errors import ImagingError
from ..ticket import Ticket
from .job import remove_killed
from .session import Session, Terminated, arm_termination
from .shown import show


def open_session(params: dict[str, Any], ticket: Ticket) -> Session:
    """Return the session of a module with these arguments."""
    remove_killed(params["ticket"], ticket.timeouts.settled)
    address = ANY_ADDRESS if ticket.relay else TRANSPORTS[params["transport"]]
    device = os.path.realpath(params["device"])
    return Session(
        ticket.run_id, device, ticket.credentials, (address, params["port"]), ticket.timeouts, relay=ticket.relay
    )


def end_children() -> None:
    """End the programs that this process has started (for example partclone), which would otherwise go on without it."""
    for pid, _name in processes():
        if stat_fields(pid)[1:2] == [str(os.getpid())]:
            with contextlib.suppress(OSError):  # it has ended
                os.kill(pid, signal.SIGKILL)


def end_of(result: dict[str, Any]) -> str:
    """Return what the screen shows of the result of a transfer."""
    if "verified" in result:
        return "verified" if result["verified"] else "not equal to the image"
    return "done"


def run_transfer(module: Any, work: Callable[[], dict[str, Any]]) -> None:
    """Run ``work`` and end the module with its result, or with the message of what went wrong, also when it is terminated."""
    arm_termination()

    def terminable() -> dict[str, Any]:
        try:
            result = work()
            show(end_of(result), module.params["device"])
            return result
        except ImagingError as error:
            show(f"FAILED: {error}")
            raise
        except Terminated as error:
            show("FAILED: it was ended")
            end_children()
            message = f"The module was {error}. Run again to finish what it had not finished."
            raise ImagingError(message, **error.facts) from error

    run_module(module, terminable)
