# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network connection of this machine by which a laptop is reached, and how fast the system says that it is."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from ..module_utils.errors import ImagingError
from .run_command import run_command


@dataclass(frozen=True)
class Nic:
    """An interface and its Mbit/s."""

    interface: str
    mbit: int


def nic_towards(address: str) -> Nic | None:
    """The interface towards an address; None where the system does not say which one, or how fast it is (Wi-Fi, other systems than Linux)."""
    try:
        resolved = str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
        interface = str(json.loads(run_command(["ip", "-json", "route", "get", resolved]).out)[0]["dev"])
        mbit = int(Path("/sys/class/net", interface, "speed").read_text(encoding="ascii"))
    except (OSError, ImagingError, ValueError, LookupError, TypeError):
        return None
    return Nic(interface, mbit) if mbit > 0 else None
