#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_info: documentation only, its action plugin does the work on the controller."""

DOCUMENTATION = r"""
module: image_info
short_description: List, and on request check, the images in the image store
version_added: 0.1.0
description:
  - Describes the images in the image store on the controller. The task's host is not contacted.
  - An image that can't be opened is listed with the error.
options:
  names:
    description:
      - Names of the images to list, without folder and ending. A missing image is an error.
      - By default, all images are listed.
    type: list
    elements: str
  verify:
    description:
      - Whether to read every record of the images and check its content. Uses all cores of the controller.
      - The task fails if images are damaged, and names all of them.
    type: bool
    default: false
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.store
seealso:
  - module: fleet.imaging.image_capture
  - module: fleet.imaging.image_upload
  - module: fleet.imaging.image_restore
"""

EXAMPLES = r"""
- name: List the images
  fleet.imaging.image_info:
  register: store

- name: Check every record of one image
  fleet.imaging.image_info:
    names:
      - win11-lab
    verify: true
"""

RETURN = r"""
store:
  description: The image store, as an absolute path or a URL.
  returned: success, and when a damaged image is found
  type: str
uploads:
  description: Images that are complete on the controller, and whose uploads to this store did not end. M(fleet.imaging.image_upload) finishes them.
  returned: success, and when a damaged image is found
  type: list
  elements: dict
  contains:
    name:
      description: Name of the image.
      returned: always
      type: str
    path:
      description: The file on the controller.
      returned: always
      type: str
    stored_bytes:
      description: Size of that file in bytes.
      returned: always
      type: int
    root_digest:
      description: SHA-256 in hexadecimal of the image's content; empty when the upload can't be finished.
      returned: always
      type: str
    sent_bytes:
      description: How many bytes of it the server says that it has; null when it can't be asked, or knows of no such upload.
      returned: when the server says so
      type: int
    running:
      description: Whether another run uploads it now.
      returned: always
      type: bool
    error:
      description: Why the upload can't be finished; empty when it can.
      returned: always
      type: str
images:
  description: One entry for each image, sorted by name when all are listed. If an image can't be opened, only its name, path and error are known.
  returned: success, and when a damaged image is found
  type: list
  elements: dict
  contains:
    name:
      description: Name of the image.
      returned: always
      type: str
    path:
      description: The file, as an absolute path or a URL.
      returned: always
      type: str
    error:
      description: The error of the image; null when there is no known error.
      returned: when something is wrong
      type: str
    codes:
      description: The error as codes of C(docs/codes.md); empty when no code is more specific than RV(images[].error).
      returned: always
      type: list
      elements: str
    intact:
      description: Whether every record is undamaged; null when that was not checked.
      returned: when O(verify=true), or the image can't be opened
      type: bool
    created:
      description: When it was captured (RFC 3339, UTC).
      returned: when the image can be opened
      type: str
    source_host:
      description: Inventory name of the laptop that it was captured from.
      returned: when the image can be opened
      type: str
    source_model:
      description: Model of the disk that it was captured from.
      returned: when the image can be opened
      type: str
    source_serial:
      description: Serial number of that disk.
      returned: when the image can be opened
      type: str
    source_device:
      description: That disk's path on the host.
      returned: when the image can be opened
      type: str
    source_wwn:
      description: World wide name of that disk.
      returned: when the image can be opened
      type: str
    disk_size:
      description: Size of that disk in bytes.
      returned: when the image can be opened
      type: int
    minimum_size:
      description: Size in bytes of the smallest disk that the image fits on.
      returned: when the image can be opened
      type: int
    minimum_reason:
      description: What determines that size.
      returned: when the image can be opened
      type: str
    logical_sector_size:
      description: Size of a logical sector of that disk in bytes.
      returned: when the image can be opened
      type: int
    used_bytes:
      description: Used bytes of the disk.
      returned: when the image can be opened
      type: int
    used_chunks:
      description: Number of chunks with at least one used byte.
      returned: when the image can be opened
      type: int
    stored_bytes:
      description: Size of the image file in bytes.
      returned: when the image can be opened
      type: int
    ratio:
      description: Used bytes divided by stored bytes.
      returned: when the image can be opened
      type: float
    systems:
      description: Descriptions of the operating systems in it.
      returned: when the image can be opened
      type: list
      elements: str
    generalization:
      description: Whether the system in the image was prepared for copying, as far as that is known.
      returned: when the image can be opened
      type: str
    boot_order:
      description: The loaders that the firmware of the captured machine started from that disk, in order; empty when they are not known.
      returned: when the image can be opened
      type: list
      elements: dict
      contains:
        partition:
          description: GUID of the partition, or the MBR's signature and the partition's number.
          type: str
        loader:
          description: Path of the loader on it, with slashes.
          type: str
    bad_ranges:
      description: The ranges of that disk that could not be read and are zeros in the image.
      returned: when the image can be opened
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
    root_digest:
      description: SHA-256 in hexadecimal of the image's content. Images of equal disks have equal digests.
      returned: when the image can be opened
      type: str
"""
