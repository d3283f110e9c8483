# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the disk of a fleet image into a file on the controller. The task's host is not contacted."""

import os
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import STORE
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.exporting import FORMATS, export_image, format_of
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.image_export)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "image": {"type": "str", "required": True},
        "dest": {"type": "path", "required": True},
        "format": {"type": "str", "choices": list(FORMATS)},
        **STORE,
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Export; raises ImagingError."""
        path = os.path.abspath(os.path.expanduser(arguments["dest"]))
        kind = arguments["format"] or format_of(path)
        FORMATS[kind].check()
        image = open_store(arguments, self._display.display).open(arguments["image"])
        if os.path.lexists(path):
            raise ImagingError(
                f"{path} exists already, and a file is not overwritten: remove it, or set imaging_export to another name."
            )
        result = {
            "image": arguments["image"],
            "dest": path,
            "format": kind,
            "disk_size": image.header.geometry.disk_size,
            "root_digest": image.root_digest.hex(),
        }
        if not self._task.check_mode:
            result["size"] = export_image(image, path, kind)
        return dict(result, changed=True)
