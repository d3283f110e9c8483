#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module confirm: documentation only, its action plugin does the work on the controller."""

DOCUMENTATION = r"""
module: confirm
short_description: Ask the user to confirm what will be lost
version_added: 0.1.0
description:
  - Shows what will be lost and, unless everything was confirmed in advance, asks the user to type a word. Fails when another word is typed, or when
    there is no terminal.
  - Run it with C(run_once). No host is contacted.
options:
  about:
    description: What will be lost.
    type: str
    required: true
  word:
    description: The word to type.
    type: str
    required: true
  unconfirmed:
    description: The hosts that were not confirmed in advance. The question is asked unless this list is empty.
    type: list
    elements: str
    required: true
  subject:
    description:
      - What is confirmed. It is returned as RV(confirmed). Later tasks should use that value, so that they fail when this task was skipped.
    type: dict
    required: true
extends_documentation_fragment:
  - fleet.imaging.common
seealso:
  - module: fleet.imaging.settings
"""

EXAMPLES = r"""
- name: Confirm erasing a disk
  fleet.imaging.confirm:
    about: Everything on /dev/nvme0n1 of lab-01 will be lost.
    word: erase 1
    unconfirmed: [lab-01]
    subject:
      lab-01: "{{ hostvars['lab-01'].found.expect }}"
  register: confirmation
  run_once: true
"""

RETURN = r"""
confirmed:
  description: The O(subject).
  returned: success
  type: dict
"""
