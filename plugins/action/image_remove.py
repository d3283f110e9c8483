# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes images from the image store. The task's host is not contacted."""

from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import STORE
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.image_remove)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **STORE,
        "names": {"type": "list", "elements": "str", "required": True},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Remove the images that are there; raises ImagingError."""
        store = open_store(arguments)
        removed = [name for name in dict.fromkeys(arguments["names"]) if store.has(name)]
        if not self._task.check_mode:
            for name in removed:
                store.remove(name)
        return {"changed": bool(removed), "removed": removed}
