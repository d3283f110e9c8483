#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_upload: documentation only, its action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_upload
short_description: Finish or drop uploads of images that did not end
version_added: 0.1.0
description:
  - A capture into S3 writes a file on the controller, which is uploaded when it is complete. The same holds for imports and for images that are
    compressed anew. If the upload breaks off, the file stays in the folder O(store_staging), and the server keeps what it has.
  - This module uploads the rest, or removes both. The task's host is not contacted.
  - The whole file is checked before. A part that the server has is not sent again if its size and MD5 are those in the file. If the server has
    dropped the parts, all are sent.
  - The image appears in the store completely or not at all. An image of the same name that was created or changed since the upload began is left
    as it is; the task then fails, and the file stays.
  - Uploads that another run works on are left alone; the task then fails.
attributes:
  check_mode:
    description: Returns which uploads would be finished or dropped.
options:
  names:
    description:
      - Names of the images, without folder and ending. One without such an upload is left out.
      - By default, all uploads to this store are meant that began on this controller, with this folder O(store_staging).
    type: list
    elements: str
  drop:
    description:
      - Whether to remove the files and what the server has of them, instead of uploading the rest.
    type: bool
    default: false
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.store
seealso:
  - module: fleet.imaging.image_info
  - module: fleet.imaging.image_capture
"""

EXAMPLES = r"""
---
- name: Finish all uploads that broke off
  fleet.imaging.image_upload:
    store: s3://fleet/images

- name: Drop one
  fleet.imaging.image_upload:
    store: s3://fleet/images
    names:
      - win11-lab
    drop: true
"""

RETURN = r"""
store:
  description: The image store, as an absolute path or a URL.
  returned: success
  type: str
uploads:
  description: The uploads as they were before, sorted by name.
  returned: success
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
"""
