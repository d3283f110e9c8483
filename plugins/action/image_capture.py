# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a capture: asks the laptop for its disk and writes the image."""

import time
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.quantities import size
from ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink import CaptureSink
from ansible_collections.fleet.imaging.plugins.plugin_utils.interruption import interruptible
from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import NOT_IN_CHECK_MODE
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.upload import showing_upload
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import UnfinishedUpload
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import MEASURED, STATUS, TransferAction


class ActionModule(TransferAction):
    """Action plugin of M(fleet.imaging.image_capture)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = CAPTURE_ARGUMENTS
    ADDED: ClassVar[frozenset[str]] = MEASURED | {
        "image",
        "path",
        "kept_bytes",
        "kept_chunks",
        "stored_bytes",
        "ratio",
        "seconds",
        "throughput",
    }
    UNDOCUMENTED: ClassVar[dict[str, Any]] = {"status": {**STATUS, "returned": NOT_IN_CHECK_MODE}}

    def facts_of_failure(self) -> dict[str, Any]:
        """Return the fact that nothing is kept."""
        return {"kept_bytes": 0}

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Capture; raises ImagingError."""
        store = open_store(arguments, self._display.display)
        name = arguments["image"]
        old = store.existing(name, arguments["update"])
        if self._task.check_mode:
            checked = self.believed(self._execute_module(self._task.action, arguments, task_vars=task_vars))
            return checked if checked.get("failed") else dict(checked, image=name)
        sink = CaptureSink(store, store.stage(name), old, self._display.warning, expect=arguments["expect"])
        try:
            result, transfer = self.run_transfer(
                arguments, self.ticket(arguments, task_vars), task_vars, sink.converse, sink.progress, sink.meter
            )
            if not result.get("failed"):
                host = str(task_vars["inventory_hostname"])
                with interruptible(), showing_upload(store, host, self._display.display):
                    sink.conclude(result)
        except UnfinishedUpload as error:
            raise ImagingError(str(error), **{**error.facts, "kept_bytes": error.kept_bytes}) from error
        except ImagingError as error:
            left = sink.release()
            raise ImagingError(f"{error}{_kept(left, sink.partial)}", **{**error.facts, "kept_bytes": left}) from error
        finally:
            left = sink.release()
        if result.get("failed"):
            return dict(result, msg=f"{result.get('msg', '')}{_kept(left, sink.partial)}", kept_bytes=left)
        seconds = time.monotonic() - transfer.began
        found = self.findings(result, arguments, task_vars, sink.meter)
        return dict(self._complete(result, sink, name, store.image_path(name), seconds), **found)

    def _complete(
        self, result: dict[str, Any], sink: CaptureSink, name: str, path: str, seconds: float
    ) -> dict[str, Any]:
        return dict(
            result,
            changed=sink.changed,
            image=name,
            path=path,
            kept_chunks=sink.kept,
            stored_bytes=sink.stored_bytes,
            ratio=round(result["used_bytes"] / sink.stored_bytes, 3),
            seconds=round(seconds, 3),
            throughput=int(result["used_bytes"] / seconds),
        )


def _kept(stored: int, path: str) -> str:
    """Return the sentence about what an interrupted capture has stored."""
    if not stored:
        return ""
    return (
        f" What was stored of the image so far ({size(stored)}) is kept as {path}: capture again under this name to go on from there, or "
        "remove that file."
    )
