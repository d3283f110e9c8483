# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport ``tcp``: straight to the port on which the laptop listens."""

from __future__ import annotations

import socket

from ansible_collections.fleet.imaging.plugins.module_utils.stream.handshake import connect_handshake
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link, LinkError, SocketChannel

CONNECT_TIME = 10.0
"""Seconds that a connection attempt may take."""

NAME_FIRST = "Set ansible_host to the laptop's address."


class Unreachable(LinkError):
    """Nothing answers at the laptop's port."""


class Refused(Unreachable):
    """The laptop answers, but nobody listens at that port."""


def connect(
    address: str, port: int, secret: bytes, silence: float | None = None, connect_time: float = CONNECT_TIME
) -> Link:
    """Make a link to the module that listens on a laptop; raises LinkError (Unreachable when there was no connection at all)."""
    try:
        connection = socket.create_connection((address, port), connect_time)
    except socket.gaierror as error:
        raise Unreachable(f"The name {address!r} can't be resolved: {error.strerror}. {NAME_FIRST}") from error
    except TimeoutError as error:
        raise Unreachable(
            f"Connecting to {address} port {port} timed out. The module listens there, so something in between drops the packets: a firewall on "
            f"the laptop, on this machine, or in the network. Open TCP port {port} from here to the laptop, or set imaging_port to one that is open."
        ) from error
    except ConnectionRefusedError as error:
        raise Refused(f"Connecting to {address} port {port} failed: {error.strerror}.") from error
    except OSError as error:
        raise Unreachable(f"Connecting to {address} port {port} failed: {error.strerror or error}.") from error
    channel = SocketChannel(connection)
    try:
        keys = connect_handshake(channel, secret)
    except LinkError:
        channel.close()
        raise
    return Link(channel, keys, silence)
