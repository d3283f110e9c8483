#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_import: documentation only, its action plugin does the work on the controller."""

DOCUMENTATION = r"""
module: image_import
short_description: Make an image of a file that holds a whole disk
version_added: 0.1.0
description:
  - Makes an image in the image store from a file of a whole disk, as C(dd) writes it, plain or compressed with gzip, bzip2, xz or zstd. The content
    of the file determines its format, not the name. The task's host is not contacted.
  - An image of this collection is copied unchanged, after every record was checked.
  - A compressed file is first unpacked into a sparse file in the store, which needs free space and is removed afterwards. The file must be complete
    and undamaged, without any data after its end.
  - A file is not imported again if the image was made from it and the file has not changed since, according to its size and time.
attributes:
  check_mode:
    description: Returns whether the file would be imported.
options:
  source:
    description: The file, on the controller.
    type: path
    required: true
  image:
    description: Name of the image, without folder and ending. Without it, the name of the file without its endings.
    type: str
  used_map:
    description:
      - V(auto) leaves out the free space of file systems, if the controller can determine it. That needs Linux, C(partclone), C(sfdisk), and root,
        who alone may create loop devices. Otherwise only zeros are left out.
      - V(all) leaves out zeros only.
    type: str
    choices: [auto, all]
    default: auto
  compression_level:
    description: Level of zstd, from V(-7) (fastest) to V(19) (smallest). V(auto) is 3, because an import has no link.
    type: str
    default: auto
  update:
    description: Whether to replace an existing image of that name that was made from another source.
    type: bool
    default: false
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.store
seealso:
  - module: fleet.imaging.image_capture
  - module: fleet.imaging.image_export
"""

EXAMPLES = r"""
- name: Make an image of what dd and gzip have made
  fleet.imaging.image_import:
    source: /backup/win11-lab.img.gz
"""

RETURN = r"""
image:
  description: Name of the image.
  returned: success, in check mode only when the image is there already
  type: str
path:
  description: Path of the image, or its URL.
  returned: success, in check mode only when the image is there already
  type: str
format:
  description: The format of the file (raw, gzip, bzip2, xz, zstd, or fleet.imaging).
  returned: success, in check mode only when the image is there already
  type: str
unpacked_by:
  description: The program that unpacked the file; C(python) when that was Ansible's own process.
  returned: success, in check mode only when the image is there already
  type: str
disk_size:
  description: Size of the disk in bytes.
  returned: success, in check mode only when the image is there already
  type: int
used_bytes:
  description: Used bytes of the disk.
  returned: success, in check mode only when the image is there already
  type: int
stored_bytes:
  description: Size of the image in bytes.
  returned: success, in check mode only when the image is there already
  type: int
root_digest:
  description: The root digest of the image.
  returned: success, in check mode only when the image is there already
  type: str
partitions:
  description: The partitions, and how their used space was determined, as in M(fleet.imaging.image_capture).
  returned: success, in check mode only when the image is there already
  type: list
  elements: dict
"""
