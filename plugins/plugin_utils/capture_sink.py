# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The requesting end of a capture: stores a laptop's disk as an image."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from ..module_utils.engine.stopwatch import Stopwatches
from ..module_utils.errors import ImagingError
from ..module_utils.image.geometry import DEFAULT_CHUNK_SIZE, Geometry
from ..module_utils.image.header import ImageHeader
from ..module_utils.image.partial import PartialImage
from ..module_utils.image.reader import FileSource, ImageReader
from ..module_utils.image.record import RecordHeader, max_frame_size
from ..module_utils.image.staged_file import StagedFile
from ..module_utils.stream.conversation import (
    Changed,
    ask_header,
    damaged,
    describe,
    finish,
    receive_index,
    receive_record,
    want,
)
from ..module_utils.stream.link import Link, LinkError
from .captured_image import CapturedImage
from .progress.meter import Meter
from .seeds import Seeds
from .store_space import check_free_space, writing_to
from .stores.base import Store

MAX_CHANGES = 256
"""How often a laptop may correct its description of its disk: once for each file system that turns out to be inconsistent."""


class CaptureSink:
    """Stores the laptop's disk as an image, over as many links as necessary.

    It describes the old image, or what earlier captures have left, to the laptop, which then sends only what differs. An image that an earlier
    capture has left complete, and that the store does not have yet, comes before the one that the store has.
    """

    def __init__(
        self,
        store: Store,
        staged: StagedFile,
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
        self._staged = staged
        self._finished = staged.finished
        self._seeds = [each for each in (self._finished and self._finished.reader, old) if each]
        self._old = self._seeds[0] if self._seeds else None
        self._old_identity = old.source.version if old else None
        self._damaged: set[int] = set()
        self._image: CapturedImage | None = None
        """None before the laptop has described its disk."""
        self._room = memoryview(b"")
        self._changes = 0
        self.changed = True
        self.watches = Stopwatches()
        self._received = 0
        self.meter = Meter(self.watches, lambda: self._received, capturing=True)

    def progress(self) -> int:
        """Changes with every record."""
        return self._image.next_chunk if self._image else 0

    def converse(self, link: Link) -> None:
        """Request the missing chunks and store them; raises LinkError, PeerEnded, ImagingError."""
        while True:
            try:
                self._converse(link)
                return
            except Changed:
                self._restart()

    def _converse(self, link: Link) -> None:
        image = self._image = self._image or self._learn(link)
        for chunk in self._damaged:
            damaged(link, chunk)
        if image.seeds:
            describe(link, *image.seeds.describe())
        want(link, [(image.next_chunk, image.header.geometry.chunk_count)])
        watch = self.watches.new()
        with writing_to(self._store.folder):
            while (record := receive_record(link, self._unpack, self._room, self._keep, self.meter.update)) is not None:
                frame = self._room[: record.frame_size]
                watch.busy("receive")
                if hashlib.sha256(frame).digest() != record.frame_hash:
                    raise LinkError(f"The frame of chunk {record.chunk} arrived damaged.")
                watch.busy("check")
                self._received += record.frame_size
                image.append(record, frame)
                watch.busy("store")
        finish(link)

    def _restart(self) -> None:
        """Discard the laptop's description of its disk. The stored chunks are kept, as after an interrupted capture."""
        self._changes += 1
        if self._changes > MAX_CHANGES:
            raise ImagingError(
                f"The laptop changed the description of its disk more than {MAX_CHANGES} times: expected at most one change for each file "
                "system. Boot its live system again, and run again."
            )
        self.close()
        if self._image is not None and self._image.writer is not None:
            with writing_to(self._store.folder):
                self._staged.restart()
        self._image = None

    def _learn(self, link: Link) -> CapturedImage:
        packed = ask_header(link)
        header = ImageHeader.unpack(packed)
        receive_index(link, 0)  # empty: the index is built from the records
        self._check_expected(header.geometry)
        self._room = memoryview(bytearray(max_frame_size(header.geometry.chunk_size)))
        left = self._left()
        files = [*left, *self._seeds]
        if self._changes:
            # The old image is more likely to hold the current content of these partitions than a capture that used another map.
            files.reverse()
        self._check_room(header, sum(each.source.size for each in left))
        with writing_to(self._store.folder):
            seeds = Seeds(files, header.geometry)
            return CapturedImage(self._staged, header, len(packed), self._old, seeds, self._damaged)

    def _check_room(self, header: ImageHeader, left: int) -> None:
        """Compare the free space of the store with the used space of the disk; raises ImagingError."""
        old = self._old
        ratio = old.index.used_bytes() / old.stored_bytes if old else None
        warning = check_free_space(self._store.folder, header.source, ratio, left + (old.stored_bytes if old else 0))
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
        try:
            return [PartialImage(FileSource(self._staged.leftover))]
        except (FileNotFoundError, ImagingError):
            return []

    def _described(self) -> CapturedImage:
        if self._image is None:
            raise ImagingError("The laptop ended the transfer before it described its disk.")
        return self._image

    def _unpack(self, payload: bytes) -> RecordHeader:
        header = self._described().header
        return RecordHeader.unpack(payload, header.geometry, header.image_id)

    def _keep(self, payload: bytes) -> None:
        image = self._described()
        image.keep(RecordHeader.unpack(payload, image.header.geometry, image.header.image_id, framed=False))

    def conclude(self, result: dict[str, Any]) -> None:
        """Complete the image and rename it, if its root digest is the one that the laptop returned."""
        self.close()
        image = self._described()
        if image.is_old(result["root_digest"]):
            self.changed = self._finished is not None
            if self._finished is not None:
                watch = self.watches.new()
                self._finished.commit(self._old_identity)
                watch.busy(self._staged.COMMIT_STAGE)
            self._staged.remove()
            return
        with writing_to(self._store.folder):
            watch = self.watches.new()
            image.finish(result["used_bytes"], result["bad_ranges"], result["root_digest"])
            watch.busy("finish")
            self._staged.commit(self._old_identity)
            watch.busy(self._staged.COMMIT_STAGE)

    def flush(self) -> None:
        """Flush everything that arrived to the medium."""
        self.close()
        with writing_to(self._store.folder):
            self._staged.file.flush()
            os.fsync(self._staged.file.fileno())

    def close(self) -> None:
        """End the background thread before the file is closed; raises ImagingError when the medium did not take what was written."""
        if self._image is not None:
            with writing_to(self._store.folder):
                self._image.close()

    @property
    def partial(self) -> str:
        """The path of the incomplete file."""
        return self._staged.partial

    @property
    def kept(self) -> int:
        """How many chunks were copied from the store."""
        return self._image.kept if self._image else 0

    @property
    def stored_bytes(self) -> int:
        """Return the size of the stored image."""
        if self._image is not None and self._image.writer is not None:
            return self._image.writer.stored_bytes
        return self._old.stored_bytes if self._old is not None else 0

    def release(self) -> int:
        """Unlock the incomplete file; returns how many bytes of it the next capture can use."""
        with contextlib.suppress(ImagingError):  # the next capture hashes what it uses of the file
            self.close()
        writer = self._image.writer if self._image else None
        return self._staged.release(keep=writer is not None and len(writer.index) > 0)
