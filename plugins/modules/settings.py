#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module settings: documentation only, its action plugin does the work on the controller."""

DOCUMENTATION = r"""
module: settings
short_description: Check the variables of all hosts before any host is contacted
version_added: 0.1.0
description:
  - Reads all variables that begin with C(imaging_), for every host of the play that follows, from inventory, group_vars and C(-e), and fails when
    one is unknown, has an invalid value, or contradicts another one.
  - Returns their values. From then on, playbooks use only these values, so that no later result of a host can change them.
  - Run it with C(run_once). No host is contacted.
options:
  pattern:
    description:
      - The host pattern of the play that follows. It may consist of groups, separated by colons, with C(!) before groups to leave out.
      - Fails when it matches no host within the limit. Without it, the settings of the task's own host are read.
    type: str
  purpose:
    description:
      - What the settings are for. It decides which settings must be the same for all hosts, and which must not be empty.
      - For V(clone), exactly one host of the group C(reference) must be within the limit, and at least one other of C(lab_laptops).
    type: str
    choices: [capture, restore, clone, images, live, import, export]
    required: true
extends_documentation_fragment:
  - fleet.imaging.common
seealso:
  - module: fleet.imaging.confirm
"""

EXAMPLES = r"""
- name: Check all variables before a laptop is contacted
  fleet.imaging.settings:
    pattern: lab_laptops:!reference
    purpose: restore
  register: checked_settings
  run_once: true
"""

RETURN = r"""
hosts:
  description:
    - For each host, the values of all settings by their names. A setting without a value has its default.
    - For O(purpose=capture), C(imaging_image) is the name that the image will have.
  returned: success
  type: dict
arguments:
  description:
    - For each host, those of RV(hosts) that are arguments of this collection's modules, for C(module_defaults), grouped by the action group or the
      module that takes them.
  returned: success
  type: dict
reference:
  description: The host that the others become equal to.
  returned: success, with O(purpose=clone)
  type: str
"""
