# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugin hands to its module: the laptop's certificate and key, and what only the controller knows.

It travels as a file of mode 0600 that the module reads and removes at once, because the arguments of a detached module lie on the
laptop's disk in plain text for as long as it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass

from .errors import ImagingError
from .sources.http_file import HttpLocation
from .stream.credentials import Credentials
from .timeouts import DEFAULTS, Timeouts

MAX_TICKET_SIZE = 1 << 20

TICKET = "ticket"
"""The file's name, in the folder that Ansible makes for the module."""

RUN_AGAIN = "Run again."


@dataclass(frozen=True)
class Ticket:
    """One transfer: its name, the laptop's credentials, and for the image's header host, time (RFC 3339, UTC) and version.

    ``root_digest`` (hexadecimal) says which image is to be restored, ``relay`` whether laptops pass it on to one another, and ``store`` where the
    laptop reads it itself. ``timeouts`` are those by which both ends go.
    """

    run_id: str
    credentials: Credentials
    host: str
    created: str
    collection_version: str
    root_digest: str = ""
    relay: bool = False
    store: HttpLocation | None = None
    timeouts: Timeouts = DEFAULTS

    def pack(self) -> str:
        """The file's content."""
        return json.dumps(dict(asdict(self), timeouts=self.timeouts.differing))

    @classmethod
    def unpack(cls, text: str) -> Ticket:
        """The ticket that a file's content says; raises AttributeError, LookupError, TypeError or ValueError when it is none."""
        values = json.loads(text)
        credentials, timeouts = Credentials(**values["credentials"]), Timeouts.from_values(values["timeouts"])
        store = HttpLocation(**values["store"]) if values["store"] is not None else None
        ticket = cls(**dict(values, credentials=credentials, store=store, timeouts=timeouts))
        texts = [*asdict(credentials).values(), *(asdict(store).values() if store else ())]
        if (
            not ticket.run_id.isalnum()
            or not all(isinstance(text, str) for text in texts)
            or not isinstance(ticket.relay, bool)
        ):
            raise ValueError("no run")
        return ticket


def take_ticket(path: str | None) -> Ticket:
    """Read the ticket and remove its file, before anything else can fail; raises ImagingError."""
    if not path:
        raise ImagingError(
            "This module is one end of a transfer, and its action plugin is the other end: it can't run without the action plugin."
        )
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_TICKET_SIZE)
    except OSError as error:
        raise ImagingError(f"The ticket of this run is missing ({path}: {error.strerror}). {RUN_AGAIN}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    try:
        return Ticket.unpack(text)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ImagingError(f"The ticket of this run can't be read. {RUN_AGAIN}") from error
