#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_export: documentation only, its action plugin does the work on the controller."""

DOCUMENTATION = r"""
module: image_export
short_description: Write the disk that an image holds into a file for other programs
version_added: 0.1.0
description:
  - Writes the whole disk as a sparse file, compressed with gzip or xz, or as a virtual disk in the format qcow2. Unused space becomes zeros. The
    task's host is not contacted.
  - Every record of the image is checked on the way. The file appears only when it is complete; an existing file is never overwritten.
attributes:
  check_mode:
    description: Checks that the image can be opened and the file does not exist.
options:
  image:
    description: Name of the image, without folder and ending.
    type: str
    required: true
  dest:
    description: The file, on the controller.
    type: path
    required: true
  format:
    description:
      - The format of the file. By default, the ending of O(dest) determines it.
      - V(gz) and V(xz) consist of one member or stream for each 4 MiB of the disk, which all programs for these formats read.
      - V(qcow2) is made by C(qemu-img), and compared with the disk.
    type: str
    choices: [raw, gz, xz, qcow2]
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.store
seealso:
  - module: fleet.imaging.image_import
"""

EXAMPLES = r"""
- name: Make a virtual disk of an image
  fleet.imaging.image_export:
    image: win11-lab
    dest: /var/lib/libvirt/images/win11-lab.qcow2
"""

RETURN = r"""
image:
  description: Name of the image.
  returned: success
  type: str
dest:
  description: The file, as an absolute path.
  returned: success
  type: str
format:
  description: The format of the file.
  returned: success
  type: str
disk_size:
  description: Size of the disk in bytes.
  returned: success
  type: int
root_digest:
  description: The root digest of the image.
  returned: success
  type: str
size:
  description: Size of the file in bytes, including holes.
  returned: success, not in check mode
  type: int
"""
