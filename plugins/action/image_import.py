# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a fleet image of a file on the controller. The task's host is not contacted."""

from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import ENCODING, STORE, UPDATE
from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import FIRST, parse_level
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable_all
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.importing import (
    Imported,
    ImportRequest,
    import_file,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.upload import showing_upload
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import check_bounds, collection_version


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.image_import)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "source": {"type": "path", "required": True},
        "image": {"type": "str"},
        **STORE,
        **ENCODING,
        **UPDATE,
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Import; raises ImagingError."""
        check_bounds(arguments)
        level = parse_level(arguments["compression_level"])
        request = ImportRequest(
            source=arguments["source"],
            name=arguments["image"] or "",
            used_map=arguments["used_map"],
            level=FIRST if level is None else level,
            update=arguments["update"],
            collection_version=collection_version(),
        )
        store = open_store(arguments, self._display.display)
        with showing_upload(store, self.task_vars["inventory_hostname"], self._display.display):
            done = import_file(run_command, store, request, self._task.check_mode)
        return {"changed": True} if done is None else _describe(done)


def _describe(done: Imported) -> dict[str, Any]:
    image, used = done.image, done.used
    return {
        "changed": done.changed,
        "image": done.name,
        "path": done.path,
        "format": done.format,
        "unpacked_by": done.unpacked_by,
        "disk_size": image.header.geometry.disk_size,
        "used_bytes": image.index.used_bytes(),
        "stored_bytes": image.stored_bytes,
        "root_digest": image.root_digest.hex(),
        "partitions": printable_all(used.partitions_json() if used else image.header.source.get("partitions", [])),
        "warnings": printable_all(done.warnings),
    }
