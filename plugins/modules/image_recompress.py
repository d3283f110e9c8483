#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_recompress: documentation only, its action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_recompress
short_description: Compress an image in the image store anew
version_added: 0.1.0
description:
  - Compresses an image again at another level of zstd, in its place and on all cores of the controller. The task's host is not contacted.
  - Every record is checked before, and the whole new file after. The content and its root digest stay the same.
  - The new file replaces the image when it is complete. After a failure, and after an end of any kind on the way, the old image is there.
    Transfers that read the image meanwhile go on with the old file.
  - An image notes the level. It is not compressed again at the level that it notes. A capture that brings the image up to date removes the note.
  - The store needs free space for the new file beside the old one. What an interrupted capture of the same name has left is removed.
attributes:
  check_mode:
    description: Returns whether the image would be compressed.
options:
  image:
    description:
      - Name of the image, without folder and ending.
    type: str
    required: true
  level:
    description:
      - Level of zstd, from V(1) (fastest) to V(19) (smallest).
    type: int
    choices: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    required: true
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.store
seealso:
  - module: fleet.imaging.image_capture
  - module: fleet.imaging.image_info
"""

EXAMPLES = r"""
---
- name: Make an image smaller that is restored every night
  fleet.imaging.image_recompress:
    image: win11-lab
    level: 12
"""

RETURN = r"""
image:
  description: Name of the image.
  returned: success
  type: str
path:
  description: The file.
  returned: success
  type: str
stored_bytes_before:
  description: Size of the image file before, in bytes.
  returned: success
  type: int
stored_bytes:
  description: Size of the image file now, in bytes; in check mode, as before.
  returned: success
  type: int
root_digest:
  description: SHA-256 in hexadecimal of the image's content, which is the same before and after.
  returned: success
  type: str
"""
