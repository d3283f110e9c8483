# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ends of a run, with their certificates."""

from __future__ import annotations

import socket
import threading
from typing import Callable

from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import (
    LAPTOP,
    THE_CONTROLLER,
    Credentials,
    Name,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import SocketChannel
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import TlsChannel, accept_tls, connect_tls
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_authority import Authority

AUTHORITY = Authority()
LAB_01 = Name(LAPTOP, "lab-01")
LAB_02 = Name(LAPTOP, "lab-02")
CONTROLLER_CREDENTIALS = AUTHORITY.controller
CREDENTIALS = {name: AUTHORITY.issue(name) for name in (LAB_01, LAB_02)}
CREDENTIALS[THE_CONTROLLER] = CONTROLLER_CREDENTIALS


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _address = server.accept()
    return left, right


def channel_pair() -> tuple[SocketChannel, SocketChannel]:
    """The same as channels."""
    left, right = socket_pair()
    return SocketChannel(left), SocketChannel(right)


def connect(port: int, credentials: Credentials = CONTROLLER_CREDENTIALS, expected: Name = LAB_01) -> TlsChannel:
    """Connect to a listener; raises LinkError."""
    channel = SocketChannel(socket.create_connection(("127.0.0.1", port)))
    return connect_tls(channel, credentials.context(server_side=False), expected, 5)


def shaken(
    near: SocketChannel,
    far: SocketChannel,
    connecting: Credentials = CONTROLLER_CREDENTIALS,
    listening: Credentials = CREDENTIALS[LAB_01],
    expected: Callable[[Name], bool] = lambda name: name == THE_CONTROLLER,
) -> tuple[TlsChannel, TlsChannel]:
    """Shake hands over two ends of a connection, the near one as lab-01 is connected to."""
    accepted: list[TlsChannel] = []

    def accept() -> None:
        accepted.append(accept_tls(far, listening.context(server_side=True), expected, 5)[1])

    thread = threading.Thread(target=accept)
    thread.start()
    connected = connect_tls(near, connecting.context(server_side=False), LAB_01, 5)
    thread.join()
    return connected, accepted[0]
