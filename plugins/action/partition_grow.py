# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module on the laptop, and returns only the part of its result that is documented."""

from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_action import LaptopAction


class ActionModule(LaptopAction):
    """Action plugin of M(fleet.imaging.partition_grow)."""
