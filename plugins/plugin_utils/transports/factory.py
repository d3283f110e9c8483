# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the transport that a task requests."""

from collections.abc import Callable
from typing import Any

from ansible.plugins.connection import ConnectionBase

from ...module_utils.arguments import OPENSSH, PARAMIKO, SSH, TCP
from ...module_utils.timeouts import Timeouts
from .ssh_openssh import OpenSsh
from .ssh_paramiko import Paramiko
from .ssh_settings import SshSettings, settings_of
from .tcp import Tcp
from .transport import Transport

CLIENTS: dict[str, Callable[[SshSettings, Timeouts], Transport]] = {PARAMIKO: Paramiko, OPENSSH: OpenSsh}
"""The functions that make the transport ``ssh``, by the names in ``arguments.SSH_CLIENTS``."""

MAKERS: dict[str, Callable[[dict[str, Any], ConnectionBase, str, Timeouts], Transport]] = {
    TCP: lambda _arguments, _connection, address, _timeouts: Tcp(address),
    SSH: lambda arguments, connection, _address, timeouts: CLIENTS[arguments["ssh_client"]](
        settings_of(connection), timeouts
    ),
}
"""The functions that make a transport, by the names in ``arguments.TRANSPORTS``."""


def make_transport(
    arguments: dict[str, Any], connection: ConnectionBase, address: str, timeouts: Timeouts
) -> Transport:
    """Return the transport that the module's arguments select, to the laptop of Ansible's connection; raises ImagingError."""
    return MAKERS[arguments["transport"]](arguments, connection, address, timeouts)
