#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module source_info: what is on a disk, and whether it is fit to be captured."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_info
short_description: Examine the content of a disk, and whether it is fit to be captured
version_added: 0.1.0
description:
  - Examines the partitions of a disk, or the disk as a whole if it has none, the file systems in them, and the files of the operating systems.
    Nothing is written, and no mount is visible to other programs.
  - Returns the reasons against capturing the disk, with their evidence and how to remove them.
  - Whether a Windows was generalized by sysprep is decided by its C(State.ini), C(Sysprep_succeeded.tag) and registry, which must agree. If one of
    these can't be read, that is a separate finding.
  - Windows is looked for on NTFS (with C(ntfsls) and C(ntfscat)), Linux on ext2, ext3 and ext4 (with C(debugfs)), and on clean XFS and btrfs, which
    Linux 5.9 or newer reads for this module alone. A warning names partitions that may hold a system but were not examined, such as physical volumes
    of LVM and F2FS.
  - Another warning says why a system will not boot, such as Windows on a GPT disk without an EFI system partition.
  - RV(partitions) say which file systems will be captured whole because they are not flagged clean. File systems that are flagged clean are not
    checked for consistency, because that means reading all of their metadata. M(fleet.imaging.image_capture) checks them during a capture and in
    check mode, and then returns which are captured whole.
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
seealso:
  - module: fleet.imaging.image_capture
"""

EXAMPLES = r"""
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
  description: V(generalized) when every Windows on the disk is, V(not generalized) when one is not, V(unknown) when there is none or it can't be
    determined.
  returned: success
  type: str
partitions:
  description: The content of each partition.
  returned: success
  type: list
  elements: dict
  contains:
    number:
      description: Its number, V(0) for a disk without partitions.
      type: int
    node:
      description: The block device, or the name that it would have.
      type: str
    start:
      description: Where it begins, in bytes of the disk.
      type: int
    size:
      description: Size in bytes.
      type: int
    type:
      description: Its type, as the partition table has it.
      type: str
    content:
      description: What it holds, by C(blkid)'s name; empty when that is not known.
      type: str
    label:
      description: Label of what it holds.
      type: str
    clean:
      description: Whether its file system is flagged clean. Null when that is not known.
      returned: where it is known
      type: bool
    distrust:
      description:
        - Why its map of free space is not trusted. V(dirty), it is not clean; V(hibernated), a Windows has it open; V(unmappable), it can't be
          mapped; empty when nothing is known against it.
      type: str
    reason:
      description: The reason as text.
      type: str
    file_system_size:
      description: Size in bytes according to the file system. Null when that is not known.
      returned: where it is known
      type: int
    used:
      description: Used bytes of the file system according to partclone's map. Null when that is not known.
      returned: where it is known
      type: int
    systems:
      description: The systems that were found in it, as in RV(systems), before the parts of a system in several partitions were joined.
      type: list
      elements: dict
      contains: &system
        kind:
          description: V(windows), V(linux), or the name of the part of a Linux in a separate file system.
          type: str
        name:
          description: Its name.
          type: str
        generalization:
          description: V(generalized), V(not generalized) or V(unknown).
          type: str
        problem:
          description: Why it is not fit to be captured; empty when it is.
          type: str
        evidence:
          description: The evidence for its generalization.
          type: list
          elements: str
        edition:
          description: Edition, empty when it is not known.
          type: str
        build:
          description: Build number, empty when it is not known.
          type: str
        architecture:
          description: Architecture, empty when it is not known.
          type: str
        computer_name:
          description: Name of the computer, empty when it is not known.
          type: str
        unread:
          description: Why a registry, or a part of it, was not read; empty when it was.
          type: str
        notes:
          description: Unusual facts of a Windows.
          type: list
          elements: str
        shared:
          description: What all copies of a Linux would share.
          type: list
          elements: dict
          contains:
            what:
              description: A description.
              type: str
            clear:
              description: The command that clears it.
              type: str
        apart:
          description: Folders of a Linux that were not examined, because they are in separate file systems that were not found.
          type: list
          elements: str
        partition:
          description: Number of its partition.
          type: int
    hibernated:
      description: A file in which a Linux is hibernated; empty when there is none.
      type: str
    unread:
      description: Why a partition that may hold a Windows was not examined; empty when it was.
      type: str
systems:
  description: The operating systems that were found.
  returned: success
  type: list
  elements: dict
  contains: *system
findings:
  description: The reasons against a capture. Empty when there are none.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The check that found it, by the name that C(imaging_allow) takes, such as V(dirty).
      type: str
    partition:
      description: Number of the partition, V(0) for the disk as a whole.
      type: int
    words:
      description: A description.
      type: str
    evidence:
      description: The evidence.
      type: str
    way_out:
      description: What to do about it.
      type: str
    sentence:
      description: All of it in one sentence.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import examine_disk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import DISK_ARGUMENTS, selected_disk
from ansible_collections.fleet.imaging.plugins.module_utils.ending import run_module


def source_info(module: AnsibleModule) -> dict[str, object]:
    """Look at the disk; raises ImagingError."""
    run = module_runner(module)
    with selected_disk(run, module.params["device"], module.params["expect"]) as disk:
        fitness = examine_disk(run, disk.path)
    for warning in [*fitness.warnings, fitness.boot_problem]:
        if warning:
            module.warn(warning)
    return fitness.to_json()


def main() -> None:
    module = AnsibleModule(argument_spec=DISK_ARGUMENTS, supports_check_mode=True)
    run_module(module, lambda: dict(source_info(module), changed=False))


if __name__ == "__main__":
    main()
