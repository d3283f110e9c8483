#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_probe: the laptop's end of a forecast."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_probe
short_description: Forecast how long a capture or a restore of this machine takes, and what limits it
version_added: 0.1.0
description:
  - Tries a capture or a restore for ten seconds (minutes over a slow link), as the modules of these names do it, on samples from all over the
    disk or the image. By that it says how long the whole of it will take, what will limit it, and what would help most.
  - Nothing is written to any disk of the machine. How fast a disk is written is therefore not measured but assumed, which RV(notes) say. What
    a capture brings goes into a file in the image store that has no name, and is gone whatever happens.
  - A disk that is in use is read all the same. Its used space can't be determined then, so the forecast is for all of it.
  - For a restore nothing of the image is expected to be on the disk already.
options:
  purpose:
    description: What is to be forecast.
    type: str
    choices: [capture, restore]
    required: true
  image:
    description: Name of the image that is to be restored, without folder and ending. Needed with O(purpose=restore).
    type: str
  laptops:
    description:
      - How many laptops are to be restored. All of them are assumed to be like this one. Without O(relay), they share the controller's processors,
        its network connection and its store.
    type: int
    default: 1
  forks:
    description: How many of them are worked on at the same time, at the most.
    type: int
    default: 64
  relay:
    description:
      - Whether the laptops will pass the image on to one another, see M(fleet.imaging.image_restore).
    type: str
    choices: [auto, "off"]
    default: auto
  compression_level:
    description:
      - Level of zstd, from V(-7) (fastest) to V(19) (smallest).
      - V(auto) lets the level follow what limits the capture.
    type: str
    default: auto
  used_map:
    description: What of a disk a capture reads, see M(fleet.imaging.image_capture).
    type: str
    choices: [auto, all]
    default: auto
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.disk
  - fleet.imaging.store
  - fleet.imaging.transfer
seealso:
  - module: fleet.imaging.image_capture
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
- name: How long would it take to restore thirty laptops like this one
  fleet.imaging.image_probe:
    device: /dev/nvme0n1
    purpose: restore
    image: win11-lab
    laptops: 30
  become: true
"""

RETURN = r"""
device:
  description: The disk that was read.
  returned: success
  type: str
purpose:
  description: What is forecast.
  returned: success
  type: str
image:
  description: Name of the image.
  returned: when O(image) is given
  type: str
disk_size:
  description: Size of the disk in bytes.
  returned: success
  type: int
rotational:
  description: Whether the disk rotates.
  returned: success
  type: bool
used_bytes:
  description: Bytes of the disk that a capture would read, or of the image that is restored.
  returned: success
  type: int
sent_bytes:
  description: Bytes that will go over the link.
  returned: success
  type: int
rates:
  description: How fast each stage was while it was busy, in bytes for each second.
  returned: success
  type: dict
  contains:
    read:
      description: Reading the disk.
      returned: when it was measured
      type: float
    write:
      description: Writing the disk; assumed, not measured.
      returned: with O(purpose=restore)
      type: float
    compress:
      description: Hashing and compressing chunks of the disk, all processors together.
      returned: when it was measured
      type: float
    decompress:
      description: Decompressing and hashing chunks of the image, all processors together.
      returned: when it was measured
      type: float
    link:
      description: What came over the link in the trial. It carries more if it is not the limit.
      returned: when it was measured
      type: float
    store:
      description: Writing to the image store, flushed, or reading from it, as far as it is not in memory.
      returned: when it was measured
      type: float
alone:
  description: What is expected of one laptop alone.
  returned: success
  type: dict
  contains: &forecast
    seconds:
      description: How long the module O(purpose) names is expected to take, for a restore with the read-back.
      type: float
    limit:
      description: The resource that limits it, empty when there is none.
      type: str
    code:
      description: Its code, as in RV(fleet.imaging.image_restore#module:limited_by.code).
      type: str
    resources:
      description: For how many of these seconds each resource is busy.
      type: dict
    advice:
      description: In a sentence, what would help most, how long it would take then, and what would limit it.
      type: str
together:
  description: What is expected of each laptop when as many as O(laptops) and O(forks) allow are worked on at once.
  returned: success
  type: dict
  contains: *forecast
all_seconds:
  description: What is expected for all laptops.
  returned: success
  type: float
all_sent_bytes:
  description: Bytes that the controller is expected to send to all laptops.
  returned: success
  type: int
notes:
  description: What was assumed.
  returned: success
  type: list
  elements: str
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE, PROBE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import module_runner
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import CaptureRequest
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import open_session, run_transfer
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.probe import try_capture, try_restore
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import take_ticket
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd


def probe(module: AnsibleModule) -> dict[str, object]:
    """Try what is to be forecast; returns the module's result."""
    ticket, zstd, run = take_ticket(module.params["ticket"]), find_zstd(), module_runner(module)
    request = CaptureRequest.of(module.params)
    with open_session(module.params, ticket) as session:
        if module.params["purpose"] == CAPTURE:
            result, warnings = try_capture(run, request, ticket, zstd, session)
        else:
            result, warnings = try_restore(run, request, zstd, session)
    for warning in (*session.notes, *warnings):
        module.warn(warning)
    return dict(asdict(result), changed=False)


def main() -> None:
    module = AnsibleModule(argument_spec=PROBE_ARGUMENTS, supports_check_mode=True)
    run_transfer(module, lambda: probe(module))


if __name__ == "__main__":
    main()
