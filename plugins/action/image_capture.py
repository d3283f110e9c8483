# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a capture: asks the laptop for its disk and writes the image."""

from __future__ import annotations

import hashlib
import time
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import RecordHeader, largest_frame
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import CAPTURE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import (
    ask_description,
    finish,
    receive_record,
    want,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link, LinkError
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.store import ImageStore, store_error
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import TransferAction


class CaptureSink:
    """Writes what the laptop serves into the store, over as many links as it takes."""

    def __init__(self, store: ImageStore, name: str) -> None:
        self._store = store
        self._name = name
        self._room = memoryview(b"")
        self.writer: ImageWriter | None = None
        self.header: ImageHeader
        self.watches = Stopwatches()

    def progress(self) -> int:
        """Grows with every record."""
        return self.writer.stored_bytes if self.writer else 0

    def converse(self, link: Link) -> None:
        """Ask for what is still missing and store it; raises LinkError, PeerEnded, ImagingError."""
        if self.writer is None:
            packed, _index = ask_description(link)
            self.header = ImageHeader.unpack(packed)
            self._room = memoryview(bytearray(largest_frame(self.header.geometry.chunk_size)))
            self.writer = self._store.create(self._name, self.header, find_zstd().codec())
        want(link, [(self.writer.next_chunk, self.header.geometry.chunk_count)])
        watch = self.watches.new()
        while (header := receive_record(link, self._unpack, self._room)) is not None:
            frame = self._room[: header.frame_size]
            watch.busy("receive")
            if hashlib.sha256(frame).digest() != header.frame_hash:
                raise LinkError(f"The frame of chunk {header.chunk} arrived damaged.")
            watch.busy("check")
            try:
                self.writer.append(header, frame)
            except OSError as error:
                raise store_error(self._store.path, error) from error
            watch.busy("store")
        finish(link)

    def _unpack(self, payload: bytes) -> RecordHeader:
        return RecordHeader.unpack(payload, self.header.geometry, self.header.stream)

    def conclude(self, result: dict[str, Any]) -> None:
        """Make the image whole and give it its name, if it is what the laptop says it is."""
        writer = self.writer
        if writer is None:
            raise ImagingError("The laptop ended the transfer before it described its disk.")
        try:
            watch = self.watches.new()
            root = writer.finish({"used_bytes": result["used_bytes"]}).hex()
            if root != result["root_digest"]:
                raise ImagingError(
                    f"What was stored (root digest {root}) is not what the laptop read ({result['root_digest']}): nothing was kept. The disk may "
                    "have changed while it was read, or memory is failing on either machine. Run again."
                )
            writer.commit()
            watch.busy("finish")
        except OSError as error:
            raise store_error(self._store.path, error) from error

    def discard(self) -> None:
        """Remove what was stored so far, unless the image got its name."""
        if self.writer is not None:
            self.writer.discard()


class ActionModule(TransferAction):
    """Action plugin of M(fleet.imaging.image_capture)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = CAPTURE_ARGUMENTS

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Capture; raises ImagingError."""
        store = ImageStore(arguments["store"])
        name = arguments["image"]
        store.check_new(name)
        if self._task.check_mode:
            checked: dict[str, Any] = self._execute_module(self._task.action, arguments, task_vars=task_vars)
            return dict(checked, image=name)
        sink = CaptureSink(store, name)
        try:
            result, transfer = self.run_transfer(
                arguments, self.ticket(task_vars), task_vars, sink.converse, sink.progress
            )
            if result.get("failed"):
                return result
            sink.conclude(result)
        finally:
            sink.discard()
        return self._complete(result, sink, name, store.image_path(name), time.monotonic() - transfer.began)

    def _complete(
        self, result: dict[str, Any], sink: CaptureSink, name: str, path: str, seconds: float
    ) -> dict[str, Any]:
        stored = sink.writer.stored_bytes if sink.writer else 0
        stages = dict(result["stages"])
        stages.update({f"controller {stage}": times for stage, times in sink.watches.stages().items()})
        return dict(
            result,
            image=name,
            path=path,
            stored_bytes=stored,
            ratio=round(result["used_bytes"] / stored, 3),
            seconds=round(seconds, 3),
            throughput=int(result["used_bytes"] / seconds),
            stages=stages,
        )
