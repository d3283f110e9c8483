# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a restore."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ansible_collections.fleet.imaging.plugins.action.image_restore import ActionModule
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind


def test_a_laptop_takes_part_over_each_link_although_its_name_is_not_resolved_any_more() -> None:
    action: Any = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(check_mode=False)
    action.running = SimpleNamespace(port=19000)
    addresses = iter(["198.18.0.10"])
    action.address = lambda: next(addresses, "no such host.invalid")
    arguments, variables = {"relay": "auto", "transport": "tcp"}, {"inventory_hostname": "lab-01"}
    with action._relay(arguments, variables, "00", print) as relay:
        for link in (SimpleNamespace(handlers={}), SimpleNamespace(handlers={})):
            action._on_progress(link, SimpleNamespace(update=None), "lab-01", relay)
            assert Kind.LOST in link.handlers
