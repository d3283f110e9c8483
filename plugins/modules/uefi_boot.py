#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module uefi_boot: has UEFI firmware find what is to be started on a disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: uefi_boot
short_description: Make sure that UEFI firmware can start a disk
version_added: 0.1.0
description:
  - Makes the fallback loader, which firmware starts when it has no entry for the disk, if it is missing in the EFI system partition. It is
    C(EFI/BOOT/BOOTX64.EFI), or the name for the machine type in the PE headers of the loaders.
  - If this machine was itself started by UEFI, makes sure that the firmware's list has one active entry for the disk, before all others, and reads
    the list again. Other entries stay, in their order.
  - "Of several loaders, the first of these is used: the one in O(boot_order); the one that the fallback loader is a copy of; shim, GRUB,
    systemd-boot; the loader of Windows. Shim and GRUB can start Windows, but the loader of Windows can't start them."
  - Of several EFI system partitions, the one in O(boot_order) is used, else the first with a fallback loader, else the first with any loader.
  - A disk without an EFI system partition is left alone.
  - Needs C(efibootmgr) for the firmware's list. If it is missing, if a partition can't be read, or if the firmware's variables are not accessible,
    there is a warning, and that part is not changed.
attributes:
  check_mode:
    description: Returns what would be made.
options:
  boot_order:
    description:
      - The loaders that the firmware of the captured machine started from the disk, in order, as M(fleet.imaging.image_info) returns them.
      - Entries that are not well-formed are ignored.
    type: list
    elements: dict
    default: []
    suboptions:
      partition:
        description: GUID of the partition, or the MBR's signature and the partition's number.
        type: str
        required: true
      loader:
        description: Path of the loader on it, with slashes.
        type: str
        required: true
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
seealso:
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
- name: Have the restored disk start
  fleet.imaging.uefi_boot:
    device: /dev/nvme0n1
  become: true
"""

RETURN = r"""
esp:
  description: Number of the EFI system partition.
  returned: when there is one
  type: int
fallback:
  description: Path of the fallback loader on it, empty when there is none.
  returned: success
  type: str
made_from:
  description: Path of the loader that the fallback was copied from, empty when it existed.
  returned: success
  type: str
entry:
  description: Number of the firmware's entry, empty when there is none.
  returned: success
  type: str
entry_made:
  description: Whether the entry was made now.
  returned: success
  type: bool
entry_put_first:
  description: Whether an existing entry was activated or put before all others.
  returned: success
  type: bool
removed:
  description: Numbers of duplicate entries that were removed.
  returned: success
  type: list
  elements: str
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import MissingTool, module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import DISK_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.loaders import boot_choices
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_node import NoNode
from ansible_collections.fleet.imaging.plugins.module_utils.disk.uefi import Boot, make_bootable
from ansible_collections.fleet.imaging.plugins.module_utils.ending import run_module


def uefi_boot(module: AnsibleModule) -> dict[str, object]:
    """Have firmware find the disk; raises ImagingError."""
    device, expect = module.params["device"], module.params["expect"]
    choices = boot_choices(module.params["boot_order"])
    try:
        boot = make_bootable(module_runner(module), device, not module.check_mode, choices, expect)
    except (MissingTool, NoNode) as error:
        boot = Boot(warnings=[f"{str(error).rstrip('.')}. Whether UEFI firmware can start the disk was not checked."])
    result = asdict(boot)
    for warning in result.pop("warnings"):
        module.warn(warning)
    return dict(result, changed=boot.changed)


def main() -> None:
    choice = {"partition": {"type": "str", "required": True}, "loader": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec=dict(
            DISK_ARGUMENTS, boot_order={"type": "list", "elements": "dict", "default": [], "options": choice}
        ),
        supports_check_mode=True,
    )
    run_module(module, lambda: uefi_boot(module))


if __name__ == "__main__":
    main()
