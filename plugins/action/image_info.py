# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describes the images in the image store on the controller. The task's host is not contacted."""

from dataclasses import asdict
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import STORE
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader, Unreadable
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable_all
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import UNREADABLE_IMAGE
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.image_facts import describe
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import Store
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image


def choose_names(store: Store, asked: list[str] | None) -> list[str]:
    """Return the requested names, all names if none was requested; raises ImagingError when one does not exist."""
    if asked is None:
        return store.names()
    missing = [name for name in asked if not store.has(name)]
    if missing:
        raise store.no_image(*missing)
    return list(dict.fromkeys(asked))


def describe_image(image: ImageReader) -> dict[str, Any]:
    """Return the facts of an opened image."""
    facts = describe(image.header, image.index)
    return {**facts, "stored_bytes": image.stored_bytes, "ratio": round(facts["used_bytes"] / image.stored_bytes, 3)}


def examine(store: Store, name: str, verify: bool) -> dict[str, Any]:
    """Return one row of the listing, with the error when the image can't be opened or is damaged."""
    row: dict[str, Any] = {"name": name, "path": "", "intact": None, "error": None, "codes": []}
    try:
        row["path"] = store.image_path(name)
        image = store.open(name)
        row.update(printable_all(describe_image(image)))
        if verify:
            verify_image(image)
            row["intact"] = True
    except Unreadable as error:
        row.update(error=str(error), codes=error.facts["codes"])
    except ImagingError as error:
        row.update(intact=False, error=str(error), codes=error.facts["codes"])
    except OSError as error:
        row.update(error=f"{row['path']} can't be read: {error.strerror}.", codes=[UNREADABLE_IMAGE])
    return row


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.image_info)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **STORE,
        "names": {"type": "list", "elements": "str"},
        "verify": {"type": "bool", "default": False},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """List the images; raises ImagingError when a requested one does not exist."""
        store = open_store(arguments, self._display.display)
        names = choose_names(store, arguments["names"])
        images = [examine(store, name, arguments["verify"]) for name in names]
        uploads = [asdict(each) for each in store.unfinished_uploads(arguments["names"])]
        result = {"changed": False, "store": store.path, "images": images, "uploads": uploads}
        bad = [f"{image['name']}: {image['error']}" for image in images if image["error"]]
        if arguments["verify"] and bad:
            result.update(
                failed=True,
                codes=sorted({code for image in images for code in image["codes"]}),
                msg=f"{len(bad)} of {len(images)} images are damaged or can't be read. " + " ".join(bad),
            )
        return result
