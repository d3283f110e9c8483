#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_import: documentation only, its action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_import
short_description: Make an image of a file that holds a whole disk
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Takes a file as C(dd) makes it of a whole disk, plain or compressed with gzip, bzip2, xz or zstd, and makes an image in the image store of
    it. What the file is, its content says, not its name. The host of the task is not touched.
  - An image of this collection is taken over as it is, after every record was checked.
  - A compressed file is unpacked into the store first, as a sparse file that is removed afterwards; there must be room for it. It must be whole
    and undamaged, and nothing may follow it.
  - A file that the image was made from already, and that was not changed since (by size and time), is not imported again.
attributes:
  check_mode:
    support: full
    description: Says whether the file would be imported.
  diff_mode:
    support: none
    description: There is nothing before an image.
options:
  source:
    description:
      - The file, on the controller.
    type: path
    required: true
  image:
    description:
      - Name of the image, without folder and ending. Without it, the name of the file without its endings.
    type: str
  used_map:
    description:
      - V(auto) leaves out what the file systems in the file do not use, where the controller can tell. It needs Linux, C(partclone) and
        C(sfdisk), and to be run by root, who alone may make loop devices; without these, only zeros are left out.
      - V(all) leaves out zeros only.
    type: str
    choices: [auto, all]
    default: auto
  compression_level:
    description:
      - Level of zstd, from V(-7) (fastest) to V(19) (smallest). V(auto) is 3, as there is no link here to follow.
    type: str
    default: auto
  update:
    description:
      - Whether an image of that name that was made of something else may be replaced.
    type: bool
    default: false
extends_documentation_fragment:
  - fleet.imaging.store
seealso:
  - module: fleet.imaging.image_capture
  - module: fleet.imaging.image_export
"""

EXAMPLES = r"""
---
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
  description: Where the image lies.
  returned: success, in check mode only when the image is there already
  type: str
format:
  description: What the file is (raw, gzip, bzip2, xz, zstd, or fleet.imaging).
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
  description: Bytes of the disk that matter.
  returned: success, in check mode only when the image is there already
  type: int
stored_bytes:
  description: Size of the image in bytes.
  returned: success, in check mode only when the image is there already
  type: int
root_digest:
  description: What identifies the content of the image.
  returned: success, in check mode only when the image is there already
  type: str
partitions:
  description: The partitions, and how it is known what of them is used, as of M(fleet.imaging.image_capture).
  returned: success, in check mode only when the image is there already
  type: list
  elements: dict
"""
