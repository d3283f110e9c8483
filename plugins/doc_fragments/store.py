# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that works with the image store."""


class ModuleDocFragment:
    """Documentation of the option that selects the store."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - The image store, a folder on the controller. A capture or an import creates it with mode 0700 if necessary.
    type: path
    default: ~/fleet-images
"""
