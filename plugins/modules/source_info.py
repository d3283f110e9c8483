#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module source_info: what is on a disk, and whether it is fit to be captured."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_info
short_description: Say what is on a disk, and whether it is fit to be captured
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Examines the partitions of a disk, or the disk as a whole if it has none, the file systems in them, and the files of the operating systems.
    Nothing is written, and no mount is visible to other programs.
  - Reports the reasons against capturing the disk, with the evidence and the way out.
  - Whether a Windows was generalized by sysprep is decided by its C(State.ini), C(Sysprep_succeeded.tag) and registry, which must agree. If one of
    these can't be read, that is a finding of its own.
  - Windows is looked for on NTFS (with C(ntfsls) and C(ntfscat)), Linux on ext2, ext3 and ext4 (with C(debugfs)), and on clean XFS and btrfs, which
    Linux 5.9 or newer reads for this module alone. A warning names what may hold a system and was not examined, such as physical volumes of LVM
    and F2FS.
  - Another warning says why a system will not boot, such as Windows on a GPT disk without an EFI system partition.
attributes:
  check_mode:
    support: full
    description: Changes nothing in any case.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  device:
    description:
      - The whole disk, as a path of the machine, or a regular file that stands for one.
    type: path
    required: true
seealso:
  - module: fleet.imaging.image_capture
"""

EXAMPLES = r"""
---
- name: Is the reference fit to be captured?
  fleet.imaging.source_info:
    device: /dev/nvme0n1
  become: true
  register: source
"""

RETURN = r"""
device:
  description: The disk.
  returned: success
  type: str
boot_mode:
  description:
    - V(UEFI) when the disk has an EFI system partition; V(BIOS) when it has none, but boot code in its MBR or a BIOS boot partition; else
      V(unknown).
  returned: success
  type: str
generalization:
  description: V(generalized) when every Windows on the disk is, V(not generalized) when one is not, or V(unknown) when there is none or when that
    can't be determined.
  returned: success
  type: str
partitions:
  description:
    - What is in each partition. C(clean) says whether its file system is proven clean, null when nothing can tell; C(reason) why it is not.
      C(number) is V(0) for a disk without a partition table.
    - C(file_system_size) is what the file system says of itself, and C(used) what of it is used, by partclone's map; null when nothing can tell.
  returned: success
  type: list
  elements: dict
systems:
  description:
    - The operating systems that were found, with their C(generalization) and the C(evidence) for it, C(name), C(edition), C(build),
      C(architecture) and C(computer_name), as far as they are found, and the C(partition). C(unread) says why a registry, or a part of it, was not
      read, and C(notes) what is unusual about a Windows.
    - C(shared) lists what all copies of a Linux would have in common, with C(what) it is and the command to C(clear) it. C(apart) lists folders that
      were not examined, because they are file systems of their own that were not found.
  returned: success
  type: list
  elements: dict
findings:
  description: What speaks against a capture. Empty when nothing does.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: What kind of reason it is (C(not_generalized), C(unknown_state), C(hibernated), C(dirty), C(encrypted)).
      type: str
    partition:
      description: Number of the partition, V(0) for the disk as a whole.
      type: int
    words:
      description: What it is.
      type: str
    evidence:
      description: How that is known.
      type: str
    way_out:
      description: What to do about it.
      type: str
    sentence:
      description: All of it.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import describe
from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import examine_disk
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError


def source_info(module: AnsibleModule) -> dict[str, object]:
    """Look at the disk; raises ImagingError."""
    run = module_runner(module)
    fitness = examine_disk(run, describe(run, module.params["device"]).path)
    for warning in [*fitness.warnings, fitness.boot_problem]:
        if warning:
            module.warn(warning)
    return fitness.to_json()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"device": {"type": "path", "required": True}}, supports_check_mode=True)
    try:
        result = source_info(module)
    except ImagingError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
