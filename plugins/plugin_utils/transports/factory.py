# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the transport that a task requests."""

from collections.abc import Callable, Mapping
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import connection_loader

from ...module_utils.arguments import OPENSSH, PARAMIKO, SSH, TCP
from ...module_utils.timeouts import Timeouts
from .ssh_openssh import OpenSsh
from .ssh_paramiko import Paramiko
from .ssh_settings import SshSettings, settings_of
from .tcp import Tcp
from .transport import Transport

CLIENTS: dict[str, Callable[[SshSettings, Timeouts], Transport]] = {PARAMIKO: Paramiko, OPENSSH: OpenSsh}
"""The functions that make the transport ``ssh``, by the names in ``arguments.SSH_CLIENTS``."""

MAKERS: dict[str, Callable[[Mapping[str, Any], ConnectionBase, str, Timeouts], Transport]] = {
    TCP: lambda _arguments, _connection, address, _timeouts: Tcp(address),
    SSH: lambda arguments, connection, _address, timeouts: CLIENTS[arguments["ssh_client"]](
        settings_of(connection), timeouts
    ),
}
"""The functions that make a transport, by the names in ``arguments.TRANSPORTS``."""


def make_transport(
    arguments: Mapping[str, Any], connection: ConnectionBase, address: str, timeouts: Timeouts
) -> Transport:
    """Return the transport that the module's arguments select, to the laptop of Ansible's connection; raises ImagingError."""
    return MAKERS[arguments["transport"]](arguments, connection, address, timeouts)


def connection_of(host: str, action: ActionBase, task_vars: Mapping[str, Any]) -> ConnectionBase:
    """Return Ansible's connection plugin for any host of the run, not connected, with the options that Ansible would set for a task there.

    Source: TaskExecutor._set_connection_options of ansible-core 2.19.
    """
    task, play, variables = action._task, action._play_context, task_vars["hostvars"][host]
    connection: ConnectionBase = connection_loader.get(variables.get("ansible_connection", task.connection), play)
    names = constants.config.get_plugin_vars("connection", connection._load_name)
    keywords = {name: value for name, value in task.dump_attrs().items() if name != "retries"}
    keywords["timeout"] = play.timeout
    # The password of the play is that of the command line, unless the task's own host has one, which is not for other hosts.
    if play.password and not any(name in task_vars for name in constants.MAGIC_VARIABLE_MAPPING["password"]):
        keywords["password"] = play.password
    connection.set_options(
        task_keys=keywords, var_options={name: variables[name] for name in names if name in variables}
    )
    return connection
