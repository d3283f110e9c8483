# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that takes a laptop's key to its module."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import Ticket, take_ticket
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.ends import CREDENTIALS, LAB_01

TICKET = Ticket("run1", CREDENTIALS[LAB_01], "lab-01", "2026-01-02T03:04:05Z", "0.1.0")

LOCATION = HttpLocation(
    url="https://store/a?Signature=1", ca="ca", certificate="client", key="PRIVATE KEY", token="a token"
)
WITH_STORE = replace(TICKET, store=LOCATION)


def changed(**values: Any) -> str:
    """The text of a ticket with other values."""
    return json.dumps(dict(json.loads(TICKET.pack()), **values))


@pytest.mark.parametrize("ticket", [TICKET, WITH_STORE])
def test_a_ticket_is_read_once(tmp_path: Path, ticket: Ticket) -> None:
    path = tmp_path / "ticket"
    path.write_text(ticket.pack())
    assert take_ticket(str(path)) == ticket
    assert not path.exists()
    with pytest.raises(ImagingError, match="missing"):
        take_ticket(str(path))


def test_what_is_shown_of_a_ticket_has_no_key() -> None:
    assert not any(secret in repr(WITH_STORE) for secret in ("PRIVATE KEY", "token", "Signature"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        TICKET.pack()[:-10],
        changed(run_id="../run"),
        changed(credentials=None),
        changed(credentials={}),
        changed(credentials={"key": 1, "certificate": "", "authority": ""}),
        changed(credentials={"key": "", "certificate": "", "authority": "", "more": ""}),
        changed(store={}),
        changed(store={"url": 1}),
        changed(store="https://store/a"),
    ],
)
def test_what_is_no_ticket_is_removed_all_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ticket"
    path.write_text(text)
    with pytest.raises(ImagingError, match="can't be read"):
        take_ticket(str(path))
    assert not path.exists()
