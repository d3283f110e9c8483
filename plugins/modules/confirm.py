#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module confirm: documentation only, its action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: confirm
short_description: Ask a person to confirm what will be lost
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Shows what will be lost and, unless all of it was confirmed beforehand, asks a person to type a word. Fails when another word is typed, or when
    there is no terminal.
  - Run it with C(run_once). No host is contacted.
attributes:
  check_mode:
    support: full
    description: The module changes nothing.
  diff_mode:
    support: none
    description: The module changes nothing.
options:
  about:
    description:
      - What will be lost.
    type: str
    required: true
  word:
    description:
      - What has to be typed.
    type: str
    required: true
  unconfirmed:
    description:
      - The hosts that were not confirmed beforehand. The question is asked unless this is empty.
    type: list
    elements: str
    required: true
  subject:
    description:
      - What is confirmed. It is returned as RV(confirmed). Tasks that follow should take it from there, so that they fail when this task was skipped.
    type: dict
    required: true
seealso:
  - module: fleet.imaging.settings
"""

EXAMPLES = r"""
---
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
