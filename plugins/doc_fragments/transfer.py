# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that both ends of every transfer have."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by image_capture and image_restore."""

    DOCUMENTATION = r"""
options:
  device:
    description:
      - The whole disk, as a path of the laptop, such as V(/dev/nvme0n1), a link below V(/dev/disk/by-id), or a regular file.
    type: path
    required: true
  store:
    description:
      - The image store, a folder on the controller. Made with mode 0700 when a capture needs it.
    type: path
    default: ~/fleet-images
  port:
    description:
      - The TCP port on which the laptop listens; V(0) lets its kernel choose one.
    type: int
    default: 19000
  link_timeout:
    description:
      - Seconds after which either end gives up when it can't reach the other. The link is made again until then.
    type: int
    default: 120
  ticket:
    description:
      - Not for users. Where the action plugin left the secret of this run for the module.
    type: path
  expect:
    description:
      - What is known of the disk since it was selected. It is compared again once the disk is held; when anything given here differs,
        nothing is done.
    type: dict
    default: {}
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
"""
