# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finishes or drops uploads of images that did not end. The task's host is not contacted."""

from dataclasses import asdict
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import STORE
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.upload import showing_upload
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.image_upload)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **STORE,
        "names": {"type": "list", "elements": "str"},
        "drop": {"type": "bool", "default": False},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Finish or drop the uploads one after the other; raises ImagingError at the first that fails."""
        store = open_store(arguments, self._display.display)
        uploads = store.unfinished_uploads(arguments["names"])
        for each in uploads if not self._task.check_mode else []:
            if arguments["drop"]:
                store.drop_upload(each.name)
            else:
                with showing_upload(store, self.task_vars["inventory_hostname"], self._display.display):
                    store.finish_upload(each.name)
        return {"changed": bool(uploads), "store": store.path, "uploads": [asdict(each) for each in uploads]}
