#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_restore: the laptop's end of a restore, and of a comparison."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_restore
short_description: Make a disk of this machine equal to an image
version_added: 0.1.0
description:
  - Writes all chunks of a whole disk that differ from an image in the image store. B(Everything else on that disk is lost.)
  - The disk is compared first, as long as that saves time. Equal chunks are neither sent nor written, so a second run changes nothing, and an
    interrupted run is finished by running again.
  - Boot sector and partition table headers are invalidated first and written last, so that an incomplete disk does not boot.
  - What was written is flushed, read back from the medium and compared with the image, chunk by chunk, before the kernel reads the new
    partition table. The disk is held exclusively meanwhile.
  - Only used space is compared. The content of free space is never a difference.
  - The module fails if the kernel still uses an old partition table because a program has a partition open. The disk is verified nevertheless, as
    RV(disk_state) says.
  - In check mode the disk is only read and compared, which verifies an earlier restore.
  - On a disk of another size than the image's, the backup of a GPT is moved to the end, and everything else in the last 2 MiB becomes zeros. A
    comparison expects the same. A smaller disk is accepted if all partitions and all used space fit.
  - It fails for a disk with a mounted file system, active swap, RAID, LVM, encryption or the live medium, for a partition, for a disk that is too
    small or has another sector size, and for the disk that the image was captured from.
attributes:
  check_mode:
    description: In check mode, the disk is compared with the image; RV(ignore:changed) says whether it differs. Nothing is written.
  diff_mode:
    support: full
    description: Shows how many chunks and bytes differ or differed, and where they lie.
options:
  image:
    description: Name of the image, without folder and ending.
    type: str
    required: true
  read_back:
    description:
      - Whether to read the disk back after writing and to compare it with the image.
      - Without this, the result is not RV(verified).
    type: bool
    default: true
  unused:
    description:
      - What to do with the space that the image does not use, if anything on the disk is changed.
      - V(discard) discards it (TRIM), as far as the disk supports that. The content afterwards is undefined, and old data may remain in the medium.
      - V(leave) does not change it, so old data can still be read from the raw disk.
      - V(zero) compares it and overwrites it with zeros. Check mode compares it, too. The whole disk is read.
    type: str
    choices: [discard, leave, zero]
    default: discard
  root_digest:
    description:
      - The root digest that the image must have, as M(fleet.imaging.image_info) returns it. It fails if the image was replaced. Empty accepts any.
    type: str
    default: ""
  shared:
    description:
      - Whether the image is the disk that M(fleet.imaging.image_share) shares in this run, and O(image) the name of its host. O(store) is not used
        then, and O(mirror) must be empty. The data comes from that host and from other laptops that have it already, as O(relay) says, and through
        the controller only where these can't be reached.
    type: bool
    default: false
  rewrite:
    description: Whether to write equal chunks, too. By default, equal chunks are neither sent nor written.
    type: bool
    default: false
  mirror:
    description:
      - URL of a folder on an HTTP server that has a copy of the image, under the name that it has in the image store. The laptop fetches chunks from
        there if possible, and from the controller if they are missing there, differ, are damaged, or come too slowly. The server must support range
        requests.
      - The server can't change what is written, because each chunk is checked against the controller's index. But everybody who can read from the
        server can read the image.
      - Redirects are followed; no proxy is used. If empty, no mirror is used.
    type: str
    default: ""
  relay:
    description:
      - V(auto) has the laptops of a run pass the image on to one another, so that it leaves the controller about once. Each laptop takes chunks from
        one other laptop, checks them, and passes them on while it writes them. A laptop that is slow, or fails, or can't be reached by the others,
        is left out.
      - The laptops must reach each other at O(port), by the addresses that the controller uses; otherwise all take chunks from the controller, after
        a warning. This holds for O(transport=ssh), too, with which only the controller goes through SSH. In check mode nothing is passed on.
      - V(off) has each laptop take chunks from the controller or O(mirror) only.
    type: str
    choices: [auto, "off"]
    default: auto
  site:
    description:
      - Name of the site at which the laptop is. With O(relay), only the laptops of one site take chunks from one another, so that the image comes to
        each site about once, over whatever line leads there.
      - If empty, the site is the laptop's network to which the address belongs by which the controller reaches it. Laptops that have no such network,
        as behind NAT, form one site.
    type: str
    default: ""
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
  - fleet.imaging.store
  - fleet.imaging.transfer
seealso:
  - module: fleet.imaging.image_capture
"""

EXAMPLES = r"""
- name: Restore a laptop
  fleet.imaging.image_restore:
    device: /dev/nvme0n1
    image: win11-lab
  become: true
  register: restored

- name: Have the firmware of the same disk find what was restored
  fleet.imaging.uefi_boot:
    device: "{{ restored.device }}"
    expect: "{{ {'serial': restored.serial, 'wwn': restored.wwn, 'table': restored.table} }}"
  become: true

- name: Compare a laptop's disk with an image, writing nothing
  fleet.imaging.image_restore:
    device: /dev/nvme0n1
    image: win11-lab
  become: true
  check_mode: true
  register: comparison
  failed_when: comparison is changed
"""

RETURN = r"""
image:
  description: Name of the image.
  returned: success
  type: str
device:
  description: The disk.
  returned: success
  type: str
disk_state:
  description:
    - The state in which the disk was left.
    - V(untouched), nothing was written. V(incomplete), it was written in part and does not boot. V(unverified), it was written completely, but not
      found equal by reading it back. V(verified), it is equal to the image. V(unknown), the laptop did not report how the restore ended, and the
      disk may not boot.
  returned: always
  type: str
disk_size:
  description: Size of the disk in bytes.
  returned: success
  type: int
larger_by:
  description: By how many bytes the disk is larger than the image's; negative when it is smaller.
  returned: success
  type: int
used_bytes:
  description: Used bytes of the image.
  returned: success
  type: int
used_chunks:
  description: Number of chunks with at least one used byte.
  returned: success
  type: int
sent_bytes:
  description: Bytes that the controller sent over the link.
  returned: success, and after a failure if there are any
  type: int
frame_bytes:
  description: Bytes of compressed chunks that the laptop fetched from each source.
  returned: success
  type: dict
  contains:
    controller:
      description: From the controller, over the link.
      type: int
    mirror:
      description: From O(mirror).
      type: int
    store:
      description: From the server of the image store, without the controller.
      type: int
    peers:
      description: From other laptops.
      type: int
taken_from:
  description: The laptops from which it took chunks, in the order in which it used them; after a failure, those that were named to it.
  returned: success, and after a failure if there are any
  type: list
  elements: dict
  contains:
    host:
      description: Its name in the inventory.
      type: str
    bytes:
      description: Bytes of compressed chunks that were taken from there; null after a failure.
      returned: unless the transfer failed
      type: int
left:
  description: The laptops from which it took nothing any more, and why.
  returned: success, and after a failure if there are any
  type: list
  elements: dict
  contains:
    host:
      description: Its name in the inventory.
      type: str
    code:
      description: V(lost) if its link broke or fell silent, V(unreachable) if none could be made, V(damage) if it sent damaged data.
      type: str
slow:
  description: Whether it was slower than the others, so that no laptop took chunks from it any more.
  returned: success, and after a failure if it was
  type: bool
passed_on:
  description: Bytes of compressed chunks that other laptops took from this one.
  returned: success
  type: int
stored_bytes:
  description: Size of the image file in bytes.
  returned: success, unless O(shared=true)
  type: int
ratio:
  description: Used bytes divided by stored bytes.
  returned: success, unless O(shared=true)
  type: float
bytes_written:
  description: Bytes written to the disk; zero when it was equal before.
  returned: success
  type: int
seconds:
  description: Duration of the whole transfer in seconds, including the comparison.
  returned: success
  type: float
write_seconds:
  description: Seconds until everything was written and flushed.
  returned: success
  type: float
compare_seconds:
  description: Seconds of the comparison.
  returned: success
  type: float
throughput:
  description: Used bytes for each second of writing or, if nothing was written, of comparing.
  returned: success
  type: int
root_digest:
  description: SHA-256 in hexadecimal of the image's content. Images of equal disks have equal digests.
  returned: success
  type: str
verified:
  description:
    - Whether every used chunk was read from the medium in this run and equals the image's. Written chunks were read after writing.
  returned: success
  type: bool
equal_chunks:
  description: Number of chunks that were found equal, and were neither sent nor written.
  returned: success
  type: int
written_chunks:
  description: Number of chunks that were written.
  returned: success
  type: int
bytes_discarded:
  description: Bytes of unused space that were discarded.
  returned: success
  type: int
changes:
  description: The ranges of the disk that were written or, in check mode, would be; the first hundred of them.
  returned: success
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
more_changes:
  description: How many more such ranges there are.
  returned: success
  type: int
differing_chunks:
  description: Number of chunks that differ, in check mode from the image, otherwise from what was written.
  returned: success
  type: int
differing_bytes:
  description: Number of used bytes in these chunks.
  returned: success
  type: int
seen_differences:
  description:
    - Differences between what C(sfdisk) and C(blkid) find on the disk and on the reference, as sentences. If there are any, the disk is not
      RV(verified), even if no chunk differs.
  returned: success
  type: list
  elements: str
started:
  description: When it began, RFC 3339, UTC.
  returned: success
  type: str
limited_by:
  description: The resource that limited the transfer for most of the time; null when the transfer was too short to determine it.
  returned: success, when it could be told
  type: dict
  contains:
    code:
      description: Its code, for playbooks to decide by. V(source_read), V(laptop_cpu), V(network), V(other_laptops), V(mirror), V(store_server),
        V(controller_cpu), V(store),
        V(target_write), V(target_read) or V(target_cpu).
      type: str
    limit:
      description: Its name, such as V(network) or V(target disk write).
      type: str
    share:
      description: How busy it was while it was the limit, from 0 to 1.
      type: float
    advice:
      description: A sentence that names the limit and says what would help.
      type: str
    explanation:
      description: The explanation in RV(limited_by.advice), without name and share.
      type: str
limits:
  description: For each resource that was the limit for a while, the share of the time for which it was.
  returned: success
  type: dict
timeline:
  description: The progress over time, as lists of seconds since the beginning, bytes done, and their phase.
  returned: success
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
table:
  description:
    - Kind and id of the current partition table of the disk, empty when there is none.
    - A restore changes it. Later modules recognise the disk by O(expect), with this table in it.
  returned: success
  type: str
links_made:
  description: How many links were made; more than one when a link broke.
  returned: success
  type: int
workers:
  description: Number of threads that compressed or decompressed, and hashed.
  returned: success
  type: int
zstd:
  description: The zstd library that the laptop used, and its version.
  returned: success
  type: str
stages:
  description: For each stage of the pipeline, the seconds for which its threads were busy, had a processor, and waited.
  returned: success
  type: dict
"""

import contextlib
from dataclasses import asdict
from typing import Any, Mapping

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import RESTORE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.disk_state import UNTOUCHED
from ansible_collections.fleet.imaging.plugins.module_utils.engine.goal import ZERO_UNUSED
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import open_session, run_transfer
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.restore import RestoreSink
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.restore_phases import RESTART
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.restore_result import Restored
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Terminated
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.target_disk import RestoreRequest, TargetDisk
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.view import summarize
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import (
    KERNEL_TABLE,
    READ_BACK_DIFFERS,
    SEEN_DIFFERENTLY,
)
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation, image_url
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import MIRROR, STORE
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import Ticket, take_ticket
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd


def restore(module: AnsibleModule) -> dict[str, object]:
    """Write (in check mode only compare) the disk; returns the module's result. Errors carry the state of the disk."""
    sinks: list[RestoreSink] = []
    try:
        return _restore(module, sinks)
    except (ImagingError, Terminated) as error:
        error.facts["disk_state"] = sinks[0].disk_state if sinks else UNTOUCHED
        raise


def _restore(module: AnsibleModule, sinks: list[RestoreSink]) -> dict[str, object]:
    ticket = take_ticket(module.params["ticket"])
    zstd = find_zstd()
    request = RestoreRequest(
        device=module.params["device"],
        root_digest=bytes.fromhex(ticket.root_digest),
        expect=module.params["expect"],
        write=not module.check_mode,
        read_back=module.params["read_back"],
        host=ticket.host,
        unused=module.params["unused"],
        rewrite=module.params["rewrite"],
        servers=servers(module.params, ticket),
        relay=ticket.relay and not module.check_mode,
        shared=module.params["shared"],
    )
    run = module_runner(module)
    with open_session(module.params, ticket) as session, TargetDisk(run, request) as disk, contextlib.closing(
        RestoreSink(disk, request, zstd, session)
    ) as sink:
        sinks.append(sink)
        session.converse(sink.converse)
        result = sink.result()
    for warning in (*session.notes, *sink.outcome.warnings):
        module.warn(warning)
    check_end(sink, request, result)
    return asdict(result)


def servers(parameters: Mapping[str, Any], ticket: Ticket) -> dict[str, HttpLocation]:
    """Return the HTTP servers that have the image, in the order in which they are asked."""
    found = {}
    if parameters["mirror"]:
        found[MIRROR] = HttpLocation(url=image_url(parameters["mirror"], parameters["image"]))
    if ticket.store is not None:
        found[STORE] = ticket.store
    return found


def check_end(sink: RestoreSink, request: RestoreRequest, result: Restored) -> None:
    """Raise ImagingError when a disk that was written, or was to be, can't be used as it should."""
    outcome = sink.outcome
    if request.write and outcome.unlike:
        zero = "" if request.unused == ZERO_UNUSED else "run again with imaging_unused: zero, or "
        raise ImagingError(
            f"{result.device} holds every byte that the image uses, but a system sees something else on it than on the reference: "
            f"{summarize(outcome.unlike)}. Most likely, old signatures are left in space that the image does not use. The disk does not "
            f"boot. To repair it, {zero}capture the reference again: images made now hold every place where such signatures lie.",
            [SEEN_DIFFERENTLY],
        )
    if request.write and outcome.differs:
        first = f"chunk {outcome.differing[0]}" if outcome.differing else "the end of the disk"
        raise ImagingError(
            f"{result.device}: {result.differing_chunks} of {result.used_chunks} chunks read back differ from what was written "
            f"(the first: {first}). The disk is failing or lies about what it stores: replace it. It is not restored.",
            [READ_BACK_DIFFERS],
        )
    if outcome.stale:
        raise ImagingError(
            f"{result.device} holds the image, but the kernel of this laptop still uses another partition table: {summarize(outcome.stale)}. "
            f"{RESTART}, and run again: equal chunks are neither sent nor written.",
            [KERNEL_TABLE],
        )


def main() -> None:
    module = AnsibleModule(argument_spec=RESTORE_ARGUMENTS, supports_check_mode=True)
    run_transfer(module, lambda: restore(module))


if __name__ == "__main__":
    main()
