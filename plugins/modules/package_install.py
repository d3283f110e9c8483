#!/usr/bin/python
# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module package_install: documentation only, its action plugin runs M(ansible.builtin.package)."""

DOCUMENTATION = r"""
module: package_install
short_description: Install packages, and drop everything else from the result
version_added: 0.1.0
description:
  - Installs packages with M(ansible.builtin.package), and returns only whether that changed anything. Facts and all other additions of a laptop to
    the result are dropped, so that the laptop can't influence other hosts.
  - C(module_defaults) of the package manager's own module apply.
attributes:
  check_mode:
    description: Installs nothing, and returns whether it would.
options:
  name:
    description: Names of the packages.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - fleet.imaging.common
seealso:
  - module: ansible.builtin.package
"""

EXAMPLES = r"""
- name: Install partclone
  fleet.imaging.package_install:
    name: [partclone]
  become: true
"""

RETURN = r""" # """
