#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_share: the reference's end of a clone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_share
short_description: Let other laptops take a whole disk from this machine
version_added: 0.1.0
description:
  - Maps the used space of a disk, checks its file systems, and begins to hash it on all cores of the machine. After this task the
    module stays and holds the disk, and laptops on which M(fleet.imaging.image_restore) runs with
    O(fleet.imaging.image_restore#module:shared=true) take the data from there, the first one directly and the others from one another, while it is
    still hashed. The hashes go to them through the controller.
  - All is hashed within this task if the disk rotates, because reading it at two places at once would take longer, or with
    O(bad_sectors=zero), because the description names what can't be read.
  - What is taken is read again, checked against the hashes, and compressed on all cores. So the disk is read twice. For laptops that take the same
    at about the same time, this is done once.
  - A second task with O(state=ended) ends the sharing. Without it, the module ends by itself once no laptop and no controller has been connected for
    O(link_timeout) seconds.
  - The disk is held exclusively and never written. It fails if anything of the disk is mounted. If the disk changes while it is shared, nothing more
    is sent, and no disk that was not finished before boots.
  - One disk can be shared in a run of C(ansible-playbook).
attributes:
  check_mode:
    description: In check mode, maps the used space and returns what decides whether another disk can hold it. Nothing is hashed or shared.
options:
  compression_level:
    description:
      - Level of zstd, from V(-7) (fastest) to V(19) (smallest), for what is sent.
      - With V(auto), the level follows the bottleneck, as in a capture.
    type: str
    default: auto
  used_map:
    description:
      - Which parts of the disk are used, as in M(fleet.imaging.image_capture).
    type: str
    choices: [auto, all]
    default: auto
  bad_sectors:
    description:
      - What to do with sectors of the disk that can't be read, as in M(fleet.imaging.image_capture).
    type: str
    choices: [fail, zero]
    default: fail
  facts:
    description:
      - Facts of the disk that are added to its description, such as C(systems) and C(generalization) of M(fleet.imaging.source_info).
    type: dict
    default: {}
  state:
    description:
      - V(begun) shares the disk. V(ended) ends the sharing that an earlier task of the run began.
    type: str
    choices: [begun, ended]
    default: begun
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
  - fleet.imaging.transfer
seealso:
  - module: fleet.imaging.image_capture
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
---
- name: Share the disk of the reference
  fleet.imaging.image_share:
    device: /dev/nvme0n1
  become: true
  register: sharing

- name: End that, when all laptops are done
  fleet.imaging.image_share:
    device: /dev/nvme0n1
    state: ended
  become: true
"""

RETURN = r"""
image:
  description:
    - What other disks become equal to, in the form in which M(fleet.imaging.image_info) describes an image. It is named after the host.
  returned: success, with O(state=begun)
  type: dict
  contains:
    name:
      description: The host's name in the inventory.
      type: str
    minimum_size:
      description: Size in bytes of the smallest disk that can hold it.
      type: int
    minimum_reason:
      description: What determines that size.
      type: str
    logical_sector_size:
      description: Size of a logical sector of the disk in bytes.
      type: int
    source_host:
      description: The host's name in the inventory.
      type: str
    source_device:
      description: The disk's path.
      type: str
    source_serial:
      description: The disk's serial number.
      type: str
    source_wwn:
      description: The disk's world wide name.
      type: str
    generalization:
      description: Whether the system on the disk was prepared for copying, as far as that is known.
      returned: success, not in check mode
      type: str
    boot_order:
      description: The loaders that the firmware of the machine started from the disk, as M(fleet.imaging.image_info) has them.
      returned: success, not in check mode
      type: list
      elements: dict
device:
  description: The disk.
  returned: success
  type: str
disk_size:
  description: Size of the disk in bytes.
  returned: success
  type: int
used_bytes:
  description: Used bytes of the disk.
  returned: success
  type: int
seconds:
  description: Seconds until other laptops could begin to take the disk. It may be hashed for longer.
  returned: success, with O(state=begun), not in check mode
  type: float
model:
  description: The disk's model.
  returned: success, with O(state=ended)
  type: str
serial:
  description: The disk's serial number.
  returned: success, with O(state=ended)
  type: str
wwn:
  description: The disk's world wide name.
  returned: success, with O(state=ended)
  type: str
used_chunks:
  description: Number of chunks with at least one used byte.
  returned: success, with O(state=ended)
  type: int
root_digest:
  description:
    - SHA-256 in hexadecimal of the content. An image of this disk has the same. Empty if the sharing ended before all was hashed, so that no laptop
      could finish.
  returned: success, with O(state=ended)
  type: str
bytes_read:
  description: Bytes that were read of the disk's content, for the description and for other laptops.
  returned: success, with O(state=ended)
  type: int
passed_on:
  description: Bytes of compressed chunks that other laptops took from this one.
  returned: success, with O(state=ended)
  type: int
links_made:
  description: How many links the controller made.
  returned: success, with O(state=ended)
  type: int
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import SHARE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import CaptureRequest
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import open_session, run_transfer
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.sharing import look, run_share
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import take_ticket
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd


def share(module: AnsibleModule) -> dict[str, object]:
    """Look at the disk or, unless in check mode, share it until the controller says that all are done; returns the module's result."""
    ticket = None if module.check_mode else take_ticket(module.params["ticket"])
    run, request = module_runner(module), CaptureRequest.of(module.params)
    if ticket is None:
        return dict(asdict(look(run, request)), changed=False)
    with open_session(module.params, ticket) as session:
        result, warnings = run_share(run, request, ticket, find_zstd(), session)
        notes = session.notes
    for warning in (*notes, *warnings):
        module.warn(warning)
    return dict(asdict(result), changed=False)


def main() -> None:
    module = AnsibleModule(argument_spec=SHARE_ARGUMENTS, supports_check_mode=True)
    run_transfer(module, lambda: share(module))


if __name__ == "__main__":
    main()
