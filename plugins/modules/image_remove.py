#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module image_remove: documentation only, its action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_remove
short_description: Remove images from the image store
version_added: 0.1.0
description:
  - Removes images from the image store, for good. The task's host is not contacted.
attributes:
  check_mode:
    description: Says which images would be removed.
options:
  names:
    description:
      - Names of the images, without folder and ending. One that is not there is left out.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - fleet.imaging.common
  - fleet.imaging.store
seealso:
  - module: fleet.imaging.image_info
"""

EXAMPLES = r"""
---
- name: Remove two images
  fleet.imaging.image_remove:
    names:
      - win10-lab
      - test
"""

RETURN = r"""
removed:
  description: Names of the images that were removed or, in check mode, would be.
  returned: success
  type: list
  elements: str
"""
