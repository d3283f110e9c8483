# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugin hands to its module: the secret of the run, and what only the controller knows.

It travels as a file of mode 0600 that the module reads and removes at once, because the arguments of a detached module lie on the
laptop's disk in plain text for as long as it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass

from .errors import ImagingError
from .stream.handshake import SECRET_SIZE

LARGEST_TICKET = 64 << 10

TICKET = "ticket"
"""The file's name, in the folder that Ansible makes for the module."""

RUN_AGAIN = "Run again."


@dataclass(frozen=True)
class Ticket:
    """One run: its name, its secret (hexadecimal), and for the image's header host, time (RFC 3339, UTC) and version.

    ``root_digest`` (hexadecimal) says which image is to be restored.
    """

    run_id: str
    secret: str
    host: str
    created: str
    collection_version: str
    root_digest: str = ""

    def pack(self) -> str:
        """The file's content."""
        return json.dumps(asdict(self))

    @property
    def secret_bytes(self) -> bytes:
        """The secret as the link takes it."""
        return bytes.fromhex(self.secret)


def take_ticket(path: str | None) -> Ticket:
    """Read the ticket and remove its file, before anything else can fail; raises ImagingError."""
    if not path:
        raise ImagingError(
            "This module is one end of a transfer and its action plugin the other: it can't be started without it."
        )
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST_TICKET)
    except OSError as error:
        raise ImagingError(
            f"The ticket of this run is not where it should be ({path}: {error.strerror}). {RUN_AGAIN}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    try:
        ticket = Ticket(**json.loads(text))
        usable = len(ticket.secret_bytes) == SECRET_SIZE and ticket.run_id.isalnum()
    except (AttributeError, TypeError, ValueError):
        usable = False
    if not usable:
        raise ImagingError(f"The ticket of this run can't be read. {RUN_AGAIN}")
    return ticket
