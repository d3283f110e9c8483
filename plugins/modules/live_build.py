#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module live_build: documentation only, its action plugin does the work on the controller."""

DOCUMENTATION = r"""
module: live_build
short_description: Build the live system from which laptops are imaged
version_added: 0.1.0
description:
  - Builds an ISO image for USB sticks and DVDs of Debian packages, which starts by BIOS and by UEFI, also with Secure Boot, and the kernel,
    initrd and squashfs of it for a start over the network. For amd64. The task's host is not contacted.
  - A build is reused until one of these options, the lab's keys or the collection changes. Builds of the same packages are equal, byte by byte.
  - The folder changes only when a build is complete.
  - Needs root, Debian or Ubuntu, and the packages C(mmdebstrap), C(squashfs-tools), C(xorriso), C(dosfstools), C(mtools), C(openssh-client)
    and C(debian-archive-keyring).
attributes:
  check_mode:
    description: Says whether a live system would be built.
options:
  files:
    description: The folder with the files that are laid over the packages. The role P(fleet.imaging.live_system#role) has it.
    type: path
    required: true
  folder:
    description: The folder for the result, on the controller. It is made with mode 0700, as its files hold the private host key of the laptops.
    type: path
    default: ~/fleet-live
  ca:
    description:
      - The folder with the keys of the lab, on the controller, which are made when they are missing. They are those of a certificate authority,
        which stay there, and the host key that it has signed, which all laptops have that are started from a build.
      - The file C(known_hosts) in it is for C(UserKnownHostsFile) of OpenSSH.
    type: path
    default: ~/fleet-live-ca
  authorized_keys:
    description: The public keys whose owners may log in as root, or files with such keys. By default those in C(~/.ssh).
    type: list
    elements: str
    default: []
  mirror:
    description:
      - URL of a mirror of Debian, or lines as C(sources.list) has them. By default, what the machine's own apt uses, if it runs Debian, or what
        C(mmdebstrap) uses.
    type: list
    elements: str
    default: []
  firmware:
    description:
      - V(nonfree) adds firmware of network cards and updates for processors, which are not free software.
    type: str
    choices: [free, nonfree]
    default: free
  packages:
    description: More Debian packages for the live system.
    type: list
    elements: str
    default: []
  update:
    description: Build again from the packages that the mirror has now. Nothing changes when all of them are still the same.
    type: bool
    default: false
extends_documentation_fragment:
  - fleet.imaging.common
"""

EXAMPLES = r"""
- name: Build the live system
  fleet.imaging.live_build:
    files: "{{ role_path }}/files/root"
"""

RETURN = r"""
iso:
  description: The ISO image.
  returned: success
  type: str
kernel:
  description: The kernel.
  returned: success
  type: str
initrd:
  description: The initrd.
  returned: success
  type: str
squashfs:
  description: The file with the live system, which the initrd mounts or fetches.
  returned: success
  type: str
known_hosts:
  description: The file by which SSH knows the laptops.
  returned: success
  type: str
label:
  description: The label of the medium, which is different for every build. Empty when nothing was built yet, in check mode.
  returned: success
  type: str
kernel_parameters:
  description:
    - The kernel's parameters. For a start over the network, C(fleet.fetch=URL) is added.
  returned: success
  type: str
size:
  description: Size of the ISO image in bytes.
  returned: success
  type: int
packages:
  description: The packages of the build, each with its version.
  returned: success
  type: list
  elements: str
"""
