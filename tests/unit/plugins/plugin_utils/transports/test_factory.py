# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transports: what can be asked for can be made, and is in the README."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import SSH_CLIENTS, TRANSPORTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.factory import CLIENTS, MAKERS

README = Path(__file__).resolve().parents[5] / "README.md"


def test_every_transport_and_every_client_that_can_be_asked_for_can_be_made() -> None:
    assert MAKERS.keys() == TRANSPORTS.keys()
    assert CLIENTS.keys() == set(SSH_CLIENTS)


def test_the_readme_names_every_transport_and_every_client() -> None:
    rows = {line.split("`")[1]: line for line in README.read_text().splitlines() if line.startswith("| `imaging_")}
    assert all(f"`{name}`" in rows["imaging_transport"] for name in TRANSPORTS)
    assert all(f"`{name}`" in rows["imaging_ssh_client"] for name in SSH_CLIENTS)
