# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH errors that both clients have in common."""

from ...module_utils.errors import ImagingError


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


def host_key_refused(address: str, details: str) -> ImagingError:
    """Return the error for a host key that OpenSSH does not accept."""
    return ImagingError(
        f"The host key of {address} is not the one that is known, or none is known: {details} Either something else answers at that address, or "
        "the laptop was booted anew (live media make new keys at every boot). If you know that it was, remove the old key with ssh-keygen -R, "
        "connect once by ssh to accept the new one, and run again."
    )
