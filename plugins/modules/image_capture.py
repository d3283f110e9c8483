#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_capture: the laptop's end of a capture."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_capture
short_description: Capture a whole disk of this machine as an image on the controller
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Reads what matters of a disk, hashes and compresses it on all cores of the machine, and streams it to the controller, which writes it
    to C(NAME.img.zst) in the image store.
  - A capture that breaks off leaves C(NAME.img.zst.partial) behind. Capturing under the same name again checks that and goes on from it.
  - The image is there whole, or not at all. It is a multi-frame zstd file; C(zstd -dc) turns it into the whole disk without this collection.
  - The disk is held exclusively and is never written. A disk with anything mounted is refused.
  - The module listens on the machine and its action plugin connects to it, over TCP or SSH. Both prove to one another that they know a secret
    made for this one run, and every message is authenticated. Over TCP the data is not encrypted.
attributes:
  check_mode:
    support: full
    description: In check mode, the disk is examined, its file systems are checked, and what would be captured is reported; nothing is stored.
  diff_mode:
    support: none
    description: There is nothing before an image.
options:
  image:
    description:
      - Name of the image, without folder and ending.
      - The image must not exist yet, unless O(update) is set.
    type: str
    required: true
  compression_level:
    description:
      - Level of zstd, from V(-7) (fastest) to V(19) (smallest).
      - With V(auto) it follows what limits the capture. It begins at 3 and moves between -5 and 12, so that compression does not hold a fast
        link up, and processors that have nothing to do make what goes over a slow one smaller.
    type: str
    default: auto
  used_map:
    description:
      - V(auto) reads only the used parts of file systems that C(partclone) can map, that are flagged clean and that a check proves consistent, and
        all of everything else.
      - The checks write nothing. C(e2fsck), C(xfs_repair), and, for FAT, exFAT and NTFS, a check of the directories or of the MFT run beside the
        capture, which is not finished before they are. A file system that is found inconsistent, or that can't be checked, is read whole.
      - V(all) reads the whole disk. Zeros are left out in any case.
    type: str
    choices: [auto, all]
    default: auto
  update:
    description:
      - Whether the image may exist already, and is to become what the disk is now.
      - Chunks that did not change are neither compressed nor sent, but taken from the old image, which stays as it is until the new one is
        whole. When nothing has changed the file is not touched.
    type: bool
    default: false
  facts:
    description:
      - What is known of the source and goes into the image's header, such as C(systems) and C(generalization) of M(fleet.imaging.source_info).
    type: dict
    default: {}
  bad_sectors:
    description:
      - What to do about sectors of the disk that can't be read.
      - With V(fail) the capture ends and names them.
      - With V(zero) they are taken for zeros, and RV(bad_ranges) and the image's header name them.
    type: str
    choices: [fail, zero]
    default: fail
extends_documentation_fragment:
  - fleet.imaging.disk
  - fleet.imaging.store
  - fleet.imaging.transfer
seealso:
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
---
- name: Capture the reference
  fleet.imaging.image_capture:
    device: /dev/nvme0n1
    image: win11-lab
  become: true
"""

RETURN = r"""
image:
  description: Name of the image.
  returned: success
  type: str
path:
  description: Where the image lies on the controller.
  returned: success, not in check mode
  type: str
device:
  description: The disk that was captured.
  returned: success
  type: str
disk_size:
  description: Size of the disk in bytes.
  returned: success
  type: int
used_bytes:
  description: Bytes of the disk that matter.
  returned: success
  type: int
sent_bytes:
  description: Bytes that the laptop sent over the link.
  returned: success, not in check mode
  type: int
stored_bytes:
  description: Size of the image file in bytes.
  returned: success, not in check mode
  type: int
ratio:
  description: Used bytes divided by stored bytes.
  returned: success, not in check mode
  type: float
seconds:
  description: Duration of the transfer, from the first question to the image on the medium.
  returned: success, not in check mode
  type: float
throughput:
  description: Used bytes for each second of the transfer.
  returned: success, not in check mode
  type: int
root_digest:
  description: SHA-256 in hexadecimal over what the image says of the disk. Equal disks have equal digests.
  returned: success, not in check mode
  type: str
kept_chunks:
  description: Number of chunks that were taken from the old image, or from what a capture that broke off had stored.
  returned: success, not in check mode
  type: int
kept_bytes:
  description: Bytes of the unfinished image that are kept in the store, from which the next capture of this name goes on.
  returned: failure
  type: int
used_chunks:
  description: Number of chunks with at least one used byte.
  returned: success, not in check mode
  type: int
bad_ranges:
  description: What could not be read of the disk and is zeros in the image.
  returned: success, not in check mode
  type: list
  elements: dict
  contains:
    start:
      description: The first byte.
      type: int
    end:
      description: The byte after the last one.
      type: int
    partition:
      description: Number, content and label of the partitions that it lies in.
      type: str
partitions:
  description: The partitions, and how it is known what of each is used.
  returned: success
  type: list
  elements: dict
  contains:
    number:
      description: Its number.
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
    used:
      description: Bytes of it that are used.
      type: int
    method:
      description:
        - How that is known. V(partclone), by its map; V(swap header), V(extended), what of it is in no logical partition; or V(whole), all of
          it counts as used.
      type: str
    reason:
      description: Why all of it counts as used; empty when it does not.
      type: str
    seen:
      description: What C(blkid) sees in it. Null when C(blkid) can't say.
      returned: where it is known
      type: dict
      contains:
        type:
          description: C(TYPE), empty when there is none.
          type: str
        uuid:
          description: C(UUID), empty when there is none.
          type: str
        label:
          description: C(LABEL), empty when there is none.
          type: str
        partition_table:
          description: C(PTTYPE), empty when there is none.
          type: str
        stray:
          description: A signature that was found beside that of the type, and is not what it holds; empty when there is none.
          type: str
        ambivalent:
          description: Whether it looks like several things at once.
          type: bool
started:
  description: When it began, RFC 3339, UTC.
  returned: success, not in check mode
  type: str
limited_by:
  description: What limited most of the time; null when it was over before that could be told.
  returned: success, not in check mode, when it could be told
  type: dict
  contains:
    limit:
      description: Its name, such as V(network) or V(target disk write).
      type: str
    share:
      description: How busy it was while it was the limit, from 0 to 1.
      type: float
    advice:
      description: A sentence that says so, and what would help.
      type: str
limits:
  description: For each thing that limited for a while the share of the time for which it did.
  returned: success, not in check mode
  type: dict
timeline:
  description: How far it was, as lists of seconds since the beginning, bytes done, and the phase that these are of.
  returned: success, not in check mode
  type: list
  elements: list
past_cache:
  description: Whether the disk was read past the page cache, so that the medium itself answered.
  returned: success
  type: bool
model:
  description: The disk's model.
  returned: success
  type: str
serial:
  description: The disk's serial number.
  returned: success
  type: str
wwn:
  description: The disk's world wide name.
  returned: success
  type: str
bytes_read:
  description: Bytes that were read of the disk's content.
  returned: success, not in check mode
  type: int
links_made:
  description: How many links were made; more than one when a link broke.
  returned: success, not in check mode
  type: int
workers:
  description: Number of threads that compressed or decompressed, and hashed.
  returned: success, not in check mode
  type: int
zstd:
  description: What compressed or decompressed on the laptop, and its version.
  returned: success, not in check mode
  type: str
stages:
  description: For each stage of the pipeline the seconds that its threads were busy, how many of these they had a processor, and that they waited.
  returned: success, not in check mode
  type: dict
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import parse_level
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import DEFAULT_CHUNK_SIZE
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import (
    CaptureRequest,
    Examined,
    examine,
    run_capture,
)
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import (
    open_session,
    run_module,
)
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import take_ticket
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd


def capture(module: AnsibleModule) -> dict[str, object]:
    """Examine the disk and, unless in check mode, serve it to the controller; returns the module's result."""
    ticket = None if module.check_mode else take_ticket(module.params["ticket"])
    zstd = find_zstd()
    request = CaptureRequest(
        device=module.params["device"],
        used_map=module.params["used_map"],
        level=parse_level(module.params["compression_level"]),
        chunk_size=DEFAULT_CHUNK_SIZE,
        zero_bad_sectors=module.params["bad_sectors"] == "zero",
        expect=module.params["expect"],
        facts=module.params["facts"],
    )
    run = module_runner(module)
    notes: list[str] = []
    result: Examined
    if ticket is None:
        result, warnings = examine(run, request)
    else:
        with open_session(module.params, ticket) as session:
            result, warnings = run_capture(run, request, ticket, zstd, session)
            notes = session.notes
    for warning in (*notes, *warnings):
        module.warn(warning)
    return dict(asdict(result), changed=True)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=CAPTURE_ARGUMENTS, supports_check_mode=True)
    run_module(module, lambda: capture(module))


if __name__ == "__main__":
    main()
