# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that works on one disk of a laptop."""


class ModuleDocFragment:
    """Documentation of the options that select the disk."""

    DOCUMENTATION = r"""
options:
  device:
    description:
      - The whole disk, as a path of the laptop, such as V(/dev/nvme0n1), a link below V(/dev/disk/by-id), or a regular file.
    type: path
    required: true
  expect:
    description:
      - The identity of the disk when it was selected or restored, as M(fleet.imaging.disk_info) and M(fleet.imaging.image_restore) return it.
      - It is compared after the disk was opened (and locked, if the module locks it). If anything differs, the module fails without any change.
    type: dict
    suboptions:
      size:
        description: Size in bytes.
        type: int
      serial:
        description: Serial number.
        type: str
      wwn:
        description: World wide name.
        type: str
      logical_sector_size:
        description: Size of a logical sector in bytes.
        type: int
      diskseq:
        description: The kernel's sequence number of the disk, which no other disk gets until the next boot; for a regular file, the number of its
          inode.
        type: int
      boot_id:
        description: The kernel's boot id, which changes with each boot of the machine.
        type: str
      table:
        description: Kind and id of the partition table, empty when there is none.
        type: str
"""
