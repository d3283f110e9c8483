#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module partition_grow: gives the rest of a disk to a partition."""

from __future__ import annotations

DOCUMENTATION = r"""
module: partition_grow
short_description: Grow a partition and its file system to the end of a disk
version_added: 0.1.0
description:
  - Extends a partition and its file system over the free space behind it. The file system is NTFS, ext2, ext3, ext4, XFS or btrfs. All GUIDs
    are kept.
  - Fails without any change for a partition with others behind it, for a file system that is not clean or of another kind, and for a disk that is in
    use.
  - Needs C(sfdisk), and C(ntfsresize), C(resize2fs) and C(e2fsck), C(xfs_growfs), or C(btrfs). XFS and btrfs grow only while they are mounted, which
    happens in a private mount namespace.
  - NTFS is marked for a check, which Windows runs at its next start.
attributes:
  check_mode:
    description: Returns what would be grown.
options:
  partition:
    description: V(last) for the last partition on the disk, or its name in a GPT, or its number.
    type: str
    default: last
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
seealso:
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
- name: Use all of the larger disk
  fleet.imaging.partition_grow:
    device: /dev/nvme0n1
    partition: last
  become: true
"""

RETURN = r"""
partition:
  description: Number of the partition.
  returned: success
  type: int
content:
  description: Its content, such as C(ntfs).
  returned: success
  type: str
old_size:
  description: Size of the partition before, in bytes.
  returned: success
  type: int
new_size:
  description: Size of the partition now or, in check mode, after growing, in bytes.
  returned: success
  type: int
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.disk.grow import grow
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import DISK_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.ending import run_module


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(DISK_ARGUMENTS, partition={"type": "str", "default": "last"}), supports_check_mode=True
    )
    device, expect, which = (module.params[name] for name in ("device", "expect", "partition"))
    run_module(module, lambda: asdict(grow(module_runner(module), device, which, not module.check_mode, expect)))


if __name__ == "__main__":
    main()
