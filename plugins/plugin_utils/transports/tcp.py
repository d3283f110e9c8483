# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport ``tcp``: connects directly to the port on which the laptop listens."""

import socket

from ...module_utils.stream.link import Channel, TcpChannel
from .transport import Refused, Unreachable

NAME_FIRST = "Set ansible_host to the laptop's address."


def connect(address: str, port: int, seconds: float, way_out: str) -> socket.socket:
    """Return a TCP connection; raises Unreachable. ``way_out``: what to do if something drops the packets."""
    try:
        return socket.create_connection((address, port), seconds)
    except socket.gaierror as error:
        raise Unreachable(f"The name {address!r} can't be resolved: {error.strerror}. {NAME_FIRST}") from error
    except TimeoutError as error:
        raise Unreachable(f"Connecting to {address} port {port} timed out. {way_out}") from error
    except ConnectionRefusedError as error:
        raise Refused(f"Connecting to {address} port {port} failed: {error.strerror}.") from error
    except OSError as error:
        raise Unreachable(f"Connecting to {address} port {port} failed: {error.strerror or error}.") from error


class Tcp:
    """Connects to the address of a laptop."""

    def __init__(self, address: str) -> None:
        self.address = address

    def open(self, port: int, seconds: float) -> Channel:
        way_out = (
            "The module listens there, so something in between drops the packets: a firewall on the laptop, on this machine, or in the network. "
            f"Open TCP port {port} from here to the laptop, set imaging_port to one that is open, or set imaging_transport: ssh."
        )
        return TcpChannel(connect(self.address, port, seconds, way_out))
