# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a capture: asks the laptop for its disk and writes the image."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import DEFAULT_CHUNK_SIZE, Geometry
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.partial import PartialImage
from ansible_collections.fleet.imaging.plugins.module_utils.image.place import Place
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import BadImage, FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import RecordHeader, largest_frame
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import SUFFIX, ImageWriter
from ansible_collections.fleet.imaging.plugins.module_utils.quantities import size
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import (
    Changed,
    ask_header,
    damaged,
    describe,
    finish,
    receive_index,
    receive_record,
    want,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link, LinkError
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.basis import Basis, sound_record
from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import NOT_IN_CHECK_MODE
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.store import ImageStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_room import check_room, store_error
from ansible_collections.fleet.imaging.plugins.plugin_utils.syncing import Syncing
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import MEASURED, STATUS, TransferAction

MOST_CHANGES = 256
"""How often a laptop may correct its description of its disk: once for each file system that turns out to be inconsistent."""


class CaptureSink:
    """Writes the chunks that the laptop serves into the store, over as many links as necessary.

    It describes the old image, or the file of an interrupted capture, to the laptop, which then sends only what differs. Nothing is written as
    long as all chunks equal the old image.
    """

    def __init__(
        self,
        store: ImageStore,
        place: Place,
        old: ImageReader | None = None,
        warn: Callable[[str], object] = lambda _said: None,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        expect: Mapping[str, Any] | None = None,
    ) -> None:
        """``warn`` shows a warning at once, before the laptop has worked for long. ``expect`` is what the selected disk is recognised by
        (``disk.identity``); its disk and sector size are compared with the laptop's description.
        """
        self._chunk_size = chunk_size
        self._expect = expect or {}
        self._store = store
        self._warn = warn
        self._place = place
        self._old = old
        self._old_identity = os.fstat(old.source.fileno()) if old else None
        self._damaged: set[int] = set()
        self._rows_equal = 0
        """How many rows of the old image were confirmed, as long as all chunks equal it."""
        self._room = memoryview(b"")
        self._header_size = 0
        self._basis: Basis
        self.header: ImageHeader | None = None
        self.writer: ImageWriter | None = None
        self.kept = 0
        self._changes = 0
        self.changed = True
        self.watches = Stopwatches()
        self._received = 0
        self.meter = Meter(self.watches, lambda: self._received, capturing=True)
        self._syncing: Syncing | None = None

    @property
    def _next(self) -> int:
        """The first chunk that was not handled yet."""
        if self.writer is not None:
            return self.writer.next_chunk
        return self._old.index.chunk_at(self._rows_equal - 1) + 1 if self._old and self._rows_equal else 0

    def progress(self) -> int:
        """Changes with every record."""
        return self._next

    def converse(self, link: Link) -> None:
        """Request the missing chunks and store them; raises LinkError, PeerEnded, ImagingError."""
        while True:
            try:
                self._converse(link)
                return
            except Changed:
                self._restart()

    def _converse(self, link: Link) -> None:
        if self.header is None:
            self._learn(link)
        header = self._known_header()
        for chunk in self._damaged:
            damaged(link, chunk)
        if self._basis:
            describe(link, *self._basis.describe())
        want(link, [(self._next, header.geometry.chunk_count)])
        watch = self.watches.new()
        try:
            while (record := receive_record(link, self._unpack, self._room, self._keep, self.meter.hear)) is not None:
                frame = self._room[: record.frame_size]
                watch.busy("receive")
                if hashlib.sha256(frame).digest() != record.frame_hash:
                    raise LinkError(f"The frame of chunk {record.chunk} arrived damaged.")
                watch.busy("check")
                self._received += record.frame_size
                self._begun().append(record, frame)
                self._sync()
                watch.busy("store")
        except OSError as error:
            raise store_error(self._store.path, error) from error
        finish(link)

    def _restart(self) -> None:
        """Discard the laptop's description of its disk. The stored chunks are kept, as after an interrupted capture."""
        self._changes += 1
        if self._changes > MOST_CHANGES:
            raise ImagingError(
                f"The laptop changed the description of its disk more than {MOST_CHANGES} times: expected at most one change for each file "
                "system. Boot its live system again, and run again."
            )
        self.close()
        if self.writer is not None:
            try:
                self._place.restart()
            except OSError as error:
                raise store_error(self._store.path, error) from error
        self.header = self.writer = None
        self._rows_equal = self.kept = 0

    def _sync(self) -> None:
        """Start to write the file to the medium in the background."""
        writer = self._begun()
        if self._syncing is None:
            self._syncing = Syncing(self._place.file.fileno())
        self._syncing.wrote(writer.stored_bytes)

    def _learn(self, link: Link) -> None:
        packed = ask_header(link)
        header = ImageHeader.unpack(packed)
        receive_index(link, 0)  # empty: the index is built from the records
        self._check_expected(header.geometry)
        self.header = header
        self._header_size = len(packed)
        self._room = memoryview(bytearray(largest_frame(header.geometry.chunk_size)))
        left = self._left()
        files = [*left, *([self._old] if self._old else [])]
        if self._changes:
            # The old image is more likely to hold the current content of these partitions than a capture that used another map.
            files.reverse()
        self._basis = Basis(files, header.geometry)
        self._check_room(sum(each.source.size for each in left))
        if self._old is None or self._old.header.geometry != header.geometry:
            self._begun()

    def _check_room(self, left: int) -> None:
        """Compare the free space of the store with the used space of the disk; raises ImagingError."""
        old = self._old
        ratio = old.index.used_bytes() / old.stored_bytes if old else None
        warning = check_room(
            self._store.path, self._known_header().source, ratio, left + (old.stored_bytes if old else 0)
        )
        if warning:
            self._warn(warning)

    def _check_expected(self, geometry: Geometry) -> None:
        """Raise ImagingError when the laptop describes another disk than the selected one."""
        for name, found, expected in (
            ("chunk size", geometry.chunk_size, self._chunk_size),
            ("size", geometry.disk_size, self._expect.get("size")),
            ("logical sector size", geometry.logical_sector_size, self._expect.get("logical_sector_size")),
        ):
            if expected is not None and found != expected:
                raise ImagingError(
                    f"This laptop describes another disk than the selected one: expected a {name} of {expected} bytes, found {found}. Nothing was "
                    "stored. Disks may have been plugged in or swapped: run again."
                )

    def _left(self) -> list[PartialImage]:
        """Return the images of interrupted captures."""
        try:
            return [PartialImage(FileSource(self._place.left))]
        except (FileNotFoundError, ImagingError):
            return []

    def _known_header(self) -> ImageHeader:
        if self.header is None:
            raise ImagingError("The laptop ended the transfer before it described its disk.")
        return self.header

    def _unpack(self, payload: bytes) -> RecordHeader:
        header = self._known_header()
        return RecordHeader.unpack(payload, header.geometry, header.stream)

    def _keep(self, payload: bytes) -> None:
        """Copy a chunk from the store, by its record's header."""
        header = self._known_header()
        record = RecordHeader.unpack(payload, header.geometry, header.stream, framed=False)
        if self.writer is None and self._is_next_of_old(record):
            self._rows_equal += 1
        else:
            self._copy(self._begun(), record)
        self.kept += 1

    def _is_next_of_old(self, record: RecordHeader) -> bool:
        if self._old is None or self._rows_equal >= len(self._old.index):
            return False
        row = self._old.index.row_at(self._rows_equal)
        return (row.chunk, row.flags, row.ranges, row.content_hash) == (
            record.chunk,
            record.flags,
            record.ranges,
            record.content_hash,
        )

    def _begun(self) -> ImageWriter:
        """Return the writer; when it begins, it first copies the chunks that equal the old image so far."""
        if self.writer is None:
            header = self._known_header()
            self.writer = ImageWriter(self._place, header, find_zstd().codec(), self._header_size)
            for position in range(self._rows_equal):
                row = self._old.index.row_at(position) if self._old else None
                if row is not None:
                    length = header.geometry.length(row.chunk)
                    self._copy(
                        self.writer,
                        RecordHeader(
                            chunk=row.chunk,
                            flags=row.flags,
                            ranges=row.ranges,
                            content_size=length,
                            content_hash=row.content_hash,
                            frame_size=0,
                            frame_hash=b"",
                            stream=header.stream,
                        ),
                    )
        return self.writer

    def _copy(self, writer: ImageWriter, header: RecordHeader) -> None:
        """Copy a record whose frame is in the store."""
        found = None if header.chunk in self._damaged else self._basis.find(header.chunk, header.content_hash)
        if found is None:
            raise LinkError(
                f"The laptop says of chunk {header.chunk} that the store already has it, but the store does not."
            )
        stored, row = found
        try:
            record = sound_record(stored, row)
        except BadImage as error:
            self._damaged.add(header.chunk)
            raise LinkError(str(error)) from error
        complete = replace(header, frame_size=record.header.frame_size, frame_hash=record.header.frame_hash)
        writer.append(complete, record.frame, (stored.source.fileno(), row.frame_offset))

    def conclude(self, result: dict[str, Any]) -> None:
        """Complete the image and rename it, if its root digest is the one that the laptop returned."""
        self.close()
        self._known_header()
        old = self._old
        if self.writer is None and old is not None and old.root_digest.hex() == result["root_digest"]:
            self.changed = False
            self._place.remove()
            return
        try:
            watch = self.watches.new()
            writer = self._begun()
            root = writer.finish({"used_bytes": result["used_bytes"]}, result["bad_ranges"]).hex()
            if root != result["root_digest"]:
                self._place.remove()
                raise ImagingError(
                    f"What was stored (root digest {root}) is not what the laptop read ({result['root_digest']}): nothing was kept. The disk may "
                    "have changed while it was read, or memory is failing on either machine. Run again."
                )
            self._place.commit(self._old_identity)
            watch.busy("finish")
        except OSError as error:
            raise store_error(self._store.path, error) from error

    def close(self) -> None:
        """End the background thread before the file is closed."""
        if self._syncing is not None:
            self._syncing.close()
            self._syncing = None

    @property
    def stored_bytes(self) -> int:
        """Return the size of the stored image."""
        if self.writer is not None:
            return self.writer.stored_bytes
        return self._old.stored_bytes if self._old is not None else 0

    def leave(self) -> int:
        """Unlock the incomplete file; returns how many bytes of it the next capture can use."""
        self.close()
        return self._place.leave(keep=self.writer is not None and len(self.writer.index) > 0)


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
        store = ImageStore(arguments["store"])
        name = arguments["image"]
        old = store.existing(name, arguments["update"])
        if self._task.check_mode:
            checked = self.believed(self._execute_module(self._task.action, arguments, task_vars=task_vars))
            return checked if checked.get("failed") else dict(checked, image=name)
        sink = CaptureSink(store, store.place(name), old, self._display.warning, expect=arguments["expect"])
        try:
            result, transfer = self.run_transfer(
                arguments, self.ticket(arguments, task_vars), task_vars, sink.converse, sink.progress, sink.meter
            )
            if not result.get("failed"):
                sink.conclude(result)
        except ImagingError as error:
            left = sink.leave()
            raise ImagingError(f"{error}{_kept(left, name)}", **{**error.facts, "kept_bytes": left}) from error
        finally:
            left = sink.leave()
        if result.get("failed"):
            return dict(result, msg=f"{result.get('msg', '')}{_kept(left, name)}", kept_bytes=left)
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


def _kept(stored: int, name: str) -> str:
    """Return the sentence about what an interrupted capture has stored."""
    if not stored:
        return ""
    return (
        f" What was stored of the image so far ({size(stored)}) is kept as {name}{SUFFIX}.partial in the store: capture again under this name to "
        "go on from there, or remove that file."
    )
