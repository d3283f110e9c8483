# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides whether a laptop takes part in a relay, and where other laptops reach it."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ansible import constants

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import RELAY_AUTO

from .board import MAX_NAME, Board
from .participant import Address, Participant


def passes_on(arguments: Mapping[str, Any]) -> bool:
    """Return whether the laptops of a restore with these arguments pass the image on."""
    return bool(arguments["relay"] == RELAY_AUTO)


def shared_ip(address: str) -> str | None:
    """Return the IP address of a host as other laptops use it; None when there is none that means the same everywhere."""
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4]
        ip = ipaddress.ip_address(str(found[0]))
    except (OSError, ValueError, LookupError):
        return None
    return None if ip.is_loopback or ip.is_link_local or ip.is_unspecified else str(ip)


def network_of(ip: str, networks: str) -> str:
    """Return the smallest of a laptop's networks with the address by which it is reached; empty when there is none, as behind NAT.

    ``networks`` is what the laptop says (``Run.networks``).
    """
    address, found = ipaddress.ip_address(ip), []
    for text in networks.split(","):
        with contextlib.suppress(ValueError):
            network = ipaddress.ip_network(text)
            if address in network:
                found.append(network)
    return str(max(found, key=lambda network: network.prefixlen, default=""))


def make_participant(
    host: str, image_id: bytes, warn: Callable[[str], object], origin: Address | None = None
) -> Participant | None:
    """Return what takes part for a laptop; None, after a warning, when it can't take part. ``origin`` is as of Participant."""
    if len(host.encode()) > MAX_NAME:
        warn(f"This laptop does not take part in the relay, because its name is longer than {MAX_NAME} bytes.")
        return None
    return Participant(lambda site: open_board(image_id, site), warn, origin=origin)


def open_board(image_id: bytes, site: str) -> Board:
    """Open the board of the laptops of a site that restore one image; raises OSError.

    All workers of a run have the same folder for temporary files, which Ansible makes at its start and removes at its end.
    """
    name = f"relay-{image_id.hex()}-{hashlib.sha256(site.encode()).hexdigest()}"
    return Board(os.path.join(constants.DEFAULT_LOCAL_TMP, name))
