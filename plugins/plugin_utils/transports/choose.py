# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport that a task asks for."""

from __future__ import annotations

from typing import Any

from ansible.plugins.connection import ConnectionBase

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import OPENSSH, TCP
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts

from .ssh_openssh import OpenSsh
from .ssh_paramiko import MISSING, Paramiko
from .ssh_settings import settings_of
from .tcp import Tcp
from .transport import Transport

NO_PARAMIKO = (
    "imaging_transport: ssh needs the Python package paramiko for the Python that runs ansible-playbook ({error}): install it (pip install "
    "paramiko), or set imaging_ssh_client: openssh."
)


def choose_transport(
    arguments: dict[str, Any], connection: ConnectionBase, address: str, timeouts: Timeouts
) -> Transport:
    """The transport by a module's arguments, to the laptop at the other end of Ansible's connection; raises ImagingError."""
    if arguments["transport"] == TCP:
        return Tcp(address)
    settings = settings_of(connection)
    if arguments["ssh_client"] == OPENSSH:
        return OpenSsh(settings, timeouts)
    if MISSING:
        raise ImagingError(NO_PARAMIKO.format(error=MISSING)) from MISSING
    return Paramiko(settings, timeouts)
