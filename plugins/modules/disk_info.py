#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module disk_info: the disks of this machine, and what they may be used for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_info
short_description: List the disks of this machine, and why each may or may not be captured or restored
version_added: 0.1.0
description:
  - Lists the whole disks of this machine with their properties, contents and holders.
  - For each disk, it returns the reasons against capturing and against restoring it, and how to remove them.
  - With O(purpose), selects the one disk that is safe to use, or fails with a table of all disks and the reasons against each.
  - Disks that are connected by USB or over a network, removable or hot-pluggable disks, boot areas of an eMMC, virtual devices and files are selected
    only when O(device) names them.
  - Run it as root; an ordinary user sees less of the contents and holders of a disk.
options:
  device:
    description:
      - List only this disk. The path of a whole disk, a link to it such as one below V(/dev/disk/by-id), or a regular file that stands for a disk.
    type: path
  purpose:
    description: Select a disk to be captured (V(source)) or to be restored (V(target)).
    type: str
    choices: [source, target]
  match:
    description:
      - A description of the disk to select, instead of O(device). Omitted properties do not matter; exactly one disk must match.
      - A disk that is only used when it is named, such as one connected by USB, matches only if its serial number, its WWN or its transport is given.
    type: dict
    suboptions:
      serial:
        description: Serial number.
        type: str
      wwn:
        description: World wide name.
        type: str
      model:
        description: Model, as a pattern with C(*) and C(?), in capital or small letters.
        type: str
      transport:
        description: How it is connected, such as V(nvme), V(sata) or V(usb).
        type: str
      min_size:
        description: The minimum size, such as V(200GB).
        type: str
      max_size:
        description: The maximum size, such as V(1TB).
        type: str
  release:
    description: Whether a disk may be selected that is in use, but that M(fleet.imaging.disk_release) can release.
    type: bool
    default: false
  image:
    description:
      - The image that the selected disk should hold, as M(fleet.imaging.image_info) describes it. A disk that the image does not fit is refused. With
        O(purpose=target), so is the disk that it was captured from.
    type: dict
  host:
    description:
      - The name by which the controller knows this machine. With O(image), this name identifies the reference if its disk has neither a serial number
        nor a WWN.
    type: str
    default: ""
extends_documentation_fragment:
  - fleet.imaging.common
seealso:
  - module: fleet.imaging.image_capture
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
- name: Look at all disks
  fleet.imaging.disk_info:
  become: true
  register: found

- name: Select the one disk that is safe to restore
  fleet.imaging.disk_info:
    purpose: target
  become: true
  register: found

- name: Use the disk that is named, if nothing is in the way
  fleet.imaging.disk_info:
    device: /dev/disk/by-id/nvme-SAMSUNG_MZVL2512_S1234
    purpose: target
  become: true
"""

RETURN = r"""
disks:
  description: The disks of this machine, or the one that O(device) names.
  returned: success
  type: list
  elements: dict
  contains: &disk
    path:
      description: The block device or file.
      type: str
      sample: /dev/nvme0n1
    size: &size
      description: Size in bytes.
      type: int
    logical_sector_size: &logical_sector_size
      description: The smallest unit that can be written, in bytes.
      type: int
    physical_sector_size:
      description: The unit in which the disk works internally, in bytes.
      type: int
    model:
      description: Model, empty when it is not known.
      type: str
    serial: &serial
      description: Serial number, empty when it is not known.
      type: str
    wwn: &wwn
      description: World wide name, empty when it is not known.
      type: str
    transport:
      description: How it is connected, empty when that is not known.
      type: str
      sample: nvme
    rotational:
      description: Whether it has rotating platters.
      type: bool
    removable:
      description: Whether its medium can be removed.
      type: bool
    hotplug:
      description: Whether it can be unplugged while the machine runs.
      type: bool
    read_only:
      description: Whether it can't be written.
      type: bool
    kind:
      description: The kind of device. V(disk), V(loop), V(zram), V(raid1), V(file), V(part) and so on.
      type: str
    by_id:
      description: The links below C(/dev/disk/by-id) that lead to it.
      type: list
      elements: str
    partitions:
      description: Its partitions.
      type: list
      elements: dict
      contains:
        node:
          description: The block device, or the name it would have.
          type: str
        size:
          description: Size in bytes.
          type: int
        fstype:
          description: Its content, empty when that is not known.
          type: str
          sample: ntfs
        label:
          description: Label of what it holds.
          type: str
        mount_points:
          description: Where it, or something built on it, is mounted.
          type: list
          elements: str
    holders:
      description: Devices that are built on it or on its partitions, such as those of LVM, RAID and crypt.
      type: list
      elements: str
    mount_points:
      description: Where it, its partitions, and what is built on them are mounted.
      type: list
      elements: str
    swap:
      description: Active swap areas on it.
      type: list
      elements: str
    live_medium:
      description: Whether this machine runs from it.
      type: bool
    source_refusals:
      description: The reasons against capturing it. Empty when it can be captured.
      type: list
      elements: dict
      contains: &refusal
        code:
          description: Its code in C(docs/codes.md), for playbooks to decide by.
          type: str
        message:
          description: The reason, and how to remove it.
          type: str
        releasable:
          description: Whether M(fleet.imaging.disk_release) can remove this reason.
          type: bool
    target_refusals:
      description: The reasons against restoring it. Empty when it can be restored.
      type: list
      elements: dict
      contains: *refusal
    not_default:
      description: Why it is used only when it is named.
      type: list
      elements: dict
      contains:
        code:
          description: The reason's code, of C(docs/codes.md).
          type: str
        message:
          description: The reason.
          type: str
selected:
  description: The selected disk.
  returned: success, with O(purpose)
  type: dict
  contains: *disk
expect:
  description: The identity of the selected disk, for the option C(expect) of the modules that work on it.
  returned: success, with O(purpose)
  type: dict
  contains:
    size: *size
    serial: *serial
    wwn: *wwn
    logical_sector_size: *logical_sector_size
    diskseq:
      description:
        - The kernel's sequence number of the disk, which no other disk gets until the next boot; 0 before Linux 5.15.
        - For a regular file, the number of its inode.
      type: int
    boot_id:
      description: The kernel's boot id, which changes with each boot of the machine.
      type: str
    table:
      description: Kind and id of the partition table, empty when there is none.
      type: str
"""

from dataclasses import asdict
from typing import Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import Disk, describe, list_disks
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import look_at
from ansible_collections.fleet.imaging.plugins.module_utils.disk.image_fit import ImageFacts, reasons_against
from ansible_collections.fleet.imaging.plugins.module_utils.disk.select import TARGET, Wanted, select_disk
from ansible_collections.fleet.imaging.plugins.module_utils.ending import run_module
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import refuse_for


def wanted_disk(match: dict[str, str | None] | None) -> Wanted | None:
    """What a user says of the disk that is meant; raises ImagingError when a size is none."""
    if not match:
        return None
    try:
        least, most = (human_to_bytes(match.get(name) or "0") for name in ("min_size", "max_size"))
    except ValueError as error:
        raise ImagingError(f"A size in imaging_disk can't be understood: {error}. Write 200GB or 1TB.") from error
    serial, wwn, model, transport = (match.get(name) or "" for name in ("serial", "wwn", "model", "transport"))
    return Wanted(serial=serial, wwn=wwn, model=model, transport=transport, min_size=least, max_size=most)


def disk_info(module: AnsibleModule) -> dict[str, object]:
    """Look at the disks, and select one if that is asked for; raises ImagingError."""
    run, device, purpose = module_runner(module), module.params["device"], module.params["purpose"]
    release, wanted = module.params["release"], wanted_disk(module.params["match"])
    disks = [describe(run, device)] if device else list_disks(run)
    result: dict[str, object] = {"disks": [asdict(disk) for disk in disks]}
    if purpose:
        selected = select_disk(disks, disks[0].path if device else None, purpose, release, wanted)
        result["selected"] = asdict(selected)
        result["expect"] = look_at(selected)
        if module.params["image"]:
            check_image(selected, module.params["image"], module.params["host"], purpose)
    return result


def check_image(disk: Disk, image: Mapping[str, object], host: str, purpose: str) -> None:
    """Raise ImagingError when a disk can't hold an image, or must not."""
    size, sector_size, serial, wwn = disk.size, disk.logical_sector_size, disk.serial, disk.wwn
    facts = ImageFacts.of(image)
    refuse_for(reasons_against(facts, disk.path, size, sector_size, serial, wwn, host, erase=purpose == TARGET))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "path"},
            "purpose": {"type": "str", "choices": ["source", "target"]},
            "release": {"type": "bool", "default": False},
            "image": {"type": "dict"},
            "host": {"type": "str", "default": ""},
            "match": {
                "type": "dict",
                "options": {
                    name: {"type": "str"} for name in ("serial", "wwn", "model", "transport", "min_size", "max_size")
                },
            },
        },
        mutually_exclusive=[("device", "match")],
        supports_check_mode=True,
    )
    run_module(module, lambda: dict(disk_info(module), changed=False))


if __name__ == "__main__":
    main()
