# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compresses images in the image store on the controller anew. The task's host is not contacted."""

from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import STORE
from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import RECOMPRESSION
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.upload import showing_upload
from ansible_collections.fleet.imaging.plugins.plugin_utils.recompress import recompress
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.image_recompress)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "image": {"type": "str", "required": True},
        "level": {"type": "int", "required": True, "choices": list(RECOMPRESSION)},
        **STORE,
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Compress; raises ImagingError."""
        store, level = open_store(arguments, self._display.display), arguments["level"]
        before = store.open(arguments["image"])
        with showing_upload(store, self.task_vars["inventory_hostname"], self._display.display):
            after = before if self._task.check_mode else recompress(store, arguments["image"], level)
        return {
            "changed": before.header.compression_level != level,
            "image": arguments["image"],
            "path": after.source.name,
            "stored_bytes_before": before.stored_bytes,
            "stored_bytes": after.stored_bytes,
            "root_digest": after.root_digest.hex(),
        }
