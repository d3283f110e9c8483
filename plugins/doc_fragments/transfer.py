# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of all modules that transfer data between controller and laptop."""


class ModuleDocFragment:
    """Documentation of the link between controller and laptop."""

    DOCUMENTATION = r"""
options:
  port:
    description: The port on which the laptop listens, for every transport; V(0) lets its kernel choose one.
    type: int
    default: 19000
  transport:
    description:
      - How the controller reaches the port. V(tcp) connects to it directly; V(ssh) goes through the laptop's sshd. The laptop then listens on its
        own address V(127.0.0.1) only, unless other laptops take chunks from it (O(fleet.imaging.image_restore#module:relay)).
      - The data is encrypted and authenticated by TLS with both. V(ssh) encrypts it once more.
    type: str
    choices: [tcp, ssh]
    default: tcp
  ssh_client:
    description:
      - The SSH client of O(transport=ssh). Both use the settings of Ansible's own connection and of OpenSSH's configuration files.
      - V(paramiko) is a Python library. V(openssh) starts C(ssh -W), for hardware keys, GSSAPI and everything else that only OpenSSH supports.
    type: str
    choices: [paramiko, openssh]
    default: paramiko
  link_timeout:
    description:
      - Seconds after which either end gives up when it can't reach the other. The link is made again until then.
    type: int
    default: 120
  ticket:
    description:
      - Not for users. The path of the file with the certificate and key of this machine, which the action plugin makes for the module.
    type: path
notes:
  - The module listens on the machine and its action plugin connects to it, over TCP or SSH. All data is encrypted by TLS 1.3, and
    both ends have certificates that were made for this run only. Python's C(ssl) module on the machine must be built with OpenSSL 1.1.1 or newer.
"""
