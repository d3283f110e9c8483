#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module disk_release: ends what holds a disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_release
short_description: Release a disk, so that it can be captured or restored
version_added: 0.1.0
description:
  - Unmounts the file systems of a disk in the right order, switches off its swap, and takes down the LVM volumes, RAID arrays and encrypted or loop
    devices that are built on it. At the end it opens the disk exclusively, which proves that nothing holds it.
  - Other disks are not changed. It fails if a file system of another disk is mounted inside of one of this disk. A busy file system is not forced to
    unmount; the processes that use it are named.
  - It fails for the disk that the machine runs from.
  - If udisks is running, through which desktops mount disks, it is told to ignore the disk until the next boot.
attributes:
  check_mode:
    description: In check mode, returns the steps and does nothing.
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
seealso:
  - module: fleet.imaging.disk_info
"""

EXAMPLES = r"""
- name: Unmount what a desktop has mounted
  fleet.imaging.disk_release:
    device: /dev/nvme0n1
  become: true
"""

RETURN = r"""
device:
  description: The disk.
  returned: success
  type: str
steps:
  description: The steps that were done or, in check mode, would be done, in order.
  returned: success
  type: list
  elements: dict
  contains:
    words:
      description: A description of the step.
      type: str
    command:
      description: The command that does it.
      type: list
      elements: str
"""

from dataclasses import asdict, dataclass
from typing import TypedDict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.disk.holders import BlockDevices
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import DISK_ARGUMENTS, selected_disk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.release import release_disk, release_steps
from ansible_collections.fleet.imaging.plugins.module_utils.ending import run_module
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import refuse_for


class Ended(TypedDict):
    """One step, in words and as a command."""

    words: str
    command: list[str]


@dataclass(frozen=True)
class Released:
    """The result."""

    changed: bool
    device: str
    steps: list[Ended]


def disk_release(module: AnsibleModule) -> Released:
    """Do it, or say what would be done; raises ImagingError."""
    run = module_runner(module)
    with selected_disk(run, module.params["device"], module.params["expect"]) as disk:
        steps = release_steps(BlockDevices(), disk.path)
        refuse_for(disk.refusals(write=False, release=True), f"{disk.path} can't be released:")
        if not module.check_mode:
            steps = release_disk(run, disk.path)
    return Released(bool(steps), disk.path, [Ended(words=step.words, command=list(step.command)) for step in steps])


def main() -> None:
    module = AnsibleModule(argument_spec=DISK_ARGUMENTS, supports_check_mode=True)
    run_module(module, lambda: asdict(disk_release(module)))


if __name__ == "__main__":
    main()
