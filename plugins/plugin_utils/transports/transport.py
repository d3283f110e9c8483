# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of transports, which provide a byte stream to the module that listens on a laptop.

To add one, write its class beside the others here, add its maker to ``factory.py``, and its name to ``arguments.TRANSPORTS``.
"""

from typing import Protocol

from ...module_utils.errors import ImagingError
from ...module_utils.stream.link import Channel, LinkError


class Unreachable(LinkError):
    """Nothing answers at the laptop's port."""


class Refused(Unreachable):
    """The laptop answers, but nothing listens at that port."""


class Transport(Protocol):
    """Makes channels to one laptop."""

    @property
    def address(self) -> str:
        """The laptop's address, for messages."""

    def open(self, port: int, seconds: float) -> Channel:
        """Return a channel to the laptop's ``port``, connected within so many seconds.

        Raises LinkError when another attempt may help (Unreachable when there was no connection at all), otherwise ImagingError.
        """


def forbidden(address: str) -> ImagingError:
    """Return the error for a laptop whose sshd forbids connections through it."""
    return ImagingError(
        f"The sshd of {address} does not allow what imaging_transport: ssh needs: TCP forwarding to a port of its own. In its sshd_config, set "
        "AllowTcpForwarding yes (or local), see that DisableForwarding and PermitOpen do not forbid it either, and reload sshd; a key in "
        "authorized_keys must not be marked no-port-forwarding or restrict. Or set imaging_transport: tcp."
    )


def denied(address: str, details: str) -> ImagingError:
    """Return the error for a login that was refused in all ways."""
    return ImagingError(
        f"The sshd of {address} let nobody in for the data's connection, though Ansible's own came through: {details} Set "
        "ansible_ssh_private_key_file or ansible_password, load the key into ssh-agent, or set imaging_ssh_client: openssh."
    )
