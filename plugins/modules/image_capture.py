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
description:
  - Reads the used space of a disk, hashes and compresses it on all cores of the machine, and streams it to the controller, which writes it to
    C(NAME.img.zst) in the image store.
  - An interrupted capture leaves C(NAME.img.zst.partial) behind. The next capture with the same name checks that file and continues from it.
  - The image appears only when it is complete. It is a multi-frame zstd file; C(zstd -dc) turns it into the whole disk without this collection.
  - The disk is held exclusively and never written. It fails if anything of the disk is mounted.
attributes:
  check_mode:
    description: In check mode, examines the disk, checks its file systems and returns what would be captured; stores nothing.
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
      - With V(auto), the level follows the bottleneck of the capture. It begins at 3 and moves between 3 and 12, so that idle processors reduce the
        data on a slow link. A lower one makes a capture over a fast link shorter and the image larger, which is then restored many times.
    type: str
    default: auto
  used_map:
    description:
      - V(auto) reads only the used parts of file systems that C(partclone) can map, that are flagged clean and that a check proves consistent, and
        all of everything else.
      - The checks write nothing. C(e2fsck), C(xfs_repair), and, for FAT, exFAT and NTFS, a check of the directories or of the MFT run beside the
        capture, which is not finished before they are. A file system that is inconsistent or can't be checked is read whole.
      - V(all) reads the whole disk. Zeros are left out in any case.
    type: str
    choices: [auto, all]
    default: auto
  update:
    description:
      - Whether to update an existing image to the current content of the disk.
      - Unchanged chunks are neither compressed nor sent, but copied from the old image, which stays until the new one is complete. If nothing has
        changed, the file is not changed.
    type: bool
    default: false
  facts:
    description:
      - Facts of the source that are added to the image's header, such as C(systems) and C(generalization) of M(fleet.imaging.source_info).
    type: dict
    default: {}
  bad_sectors:
    description:
      - What to do with sectors of the disk that can't be read.
      - With V(fail) the capture ends and names them.
      - With V(zero) they become zeros, and RV(bad_ranges) and the image's header name them.
    type: str
    choices: [fail, zero]
    default: fail
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
  - fleet.imaging.store
  - fleet.imaging.transfer
seealso:
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
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
  description: Path of the image on the controller, or its URL.
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
  description: Used bytes of the disk.
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
  description: Duration of the transfer in seconds, from the first message to the complete image on the medium.
  returned: success, not in check mode
  type: float
throughput:
  description: Used bytes for each second of the transfer.
  returned: success, not in check mode
  type: int
root_digest:
  description: SHA-256 in hexadecimal of the image's content. Images of equal disks have equal digests.
  returned: success, not in check mode
  type: str
kept_chunks:
  description: Number of chunks that were copied from the old image, or from an interrupted capture.
  returned: success, not in check mode
  type: int
kept_bytes:
  description:
    - Bytes of the incomplete image, or of the complete one that could not be uploaded, that are kept on the controller. The next capture with this
      name continues from them.
  returned: failure
  type: int
used_chunks:
  description: Number of chunks with at least one used byte.
  returned: success, not in check mode
  type: int
bad_ranges:
  description: The ranges of the disk that could not be read and are zeros in the image.
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
  description: The partitions, and how their used space was determined.
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
      description: Its used bytes.
      type: int
    method:
      description:
        - How the used space was determined. V(partclone), by the map of partclone; V(swap header), by the header of a swap area; V(extended), the
          part of an extended partition outside of logical ones; V(whole), all of it counts as used.
      type: str
    reason:
      description: Why all of it counts as used; empty when only a part does.
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
          description: Another signature that was found in addition to that of the type; empty when there is none.
          type: str
        ambivalent:
          description: Whether its signatures contradict one another.
          type: bool
started:
  description: When it began, RFC 3339, UTC.
  returned: success, not in check mode
  type: str
limited_by:
  description:
    - The resource that limited the transfer for most of the time, in the form of RV(fleet.imaging.image_restore#module:limited_by); null when the
      transfer was too short to determine it.
  returned: success, not in check mode, when it could be told
  type: dict
limits:
  description: For each resource that was the limit for a while, the share of the time for which it was.
  returned: success, not in check mode
  type: dict
timeline:
  description: The progress over time, as lists of seconds since the beginning, bytes done, and their phase.
  returned: success, not in check mode
  type: list
  elements: list
past_cache:
  description: Whether the disk was read past the page cache, from the medium itself.
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
  description: The zstd library that the laptop used, and its version.
  returned: success, not in check mode
  type: str
stages:
  description: For each stage of the pipeline, the seconds for which its threads were busy, had a processor, and waited.
  returned: success, not in check mode
  type: dict
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import (
    CaptureRequest,
    Examined,
    examine,
    run_capture,
)
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import open_session, run_transfer
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import take_ticket
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd


def capture(module: AnsibleModule) -> dict[str, object]:
    """Examine the disk and, unless in check mode, serve it to the controller; returns the module's result."""
    ticket = None if module.check_mode else take_ticket(module.params["ticket"])
    zstd, run, request = find_zstd(), module_runner(module), CaptureRequest.of(module.params)
    result: Examined
    if ticket is None:
        result, warnings = examine(run, request)
    else:
        with open_session(module.params, ticket) as session:
            result, warnings = run_capture(run, request, ticket, zstd, session)
            warnings = [*session.notes, *warnings]
    for warning in warnings:
        module.warn(warning)
    return dict(asdict(result), changed=True)


def main() -> None:
    module = AnsibleModule(argument_spec=CAPTURE_ARGUMENTS, supports_check_mode=True)
    run_transfer(module, lambda: capture(module))


if __name__ == "__main__":
    main()
