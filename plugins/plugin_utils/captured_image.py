# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Assembles the image of a disk, for one description of it, from received records and from the store."""

import os
from dataclasses import replace
from functools import partial

from ..module_utils.disk.background_sync import BackgroundSync
from ..module_utils.errors import ImagingError
from ..module_utils.image.header import ImageHeader
from ..module_utils.image.index import Row
from ..module_utils.image.reader import BadImage, ImageReader
from ..module_utils.image.record import RecordHeader
from ..module_utils.image.staged_file import StagedFile
from ..module_utils.image.writer import ImageWriter
from ..module_utils.stream.link import LinkError
from ..module_utils.zstd import find_zstd
from .seeds import Seeds, checked_record

SYNC_STEP = 16 << 20
"""Bytes after which the file is synced while more is written."""

MAX_UNSYNCED = 64 << 20
"""Bytes that may be written and not be on the medium."""

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class CapturedImage:
    """Writes nothing as long as all chunks equal the old image. Methods that write raise OSError and ImagingError."""

    def __init__(
        self,
        staged: StagedFile,
        header: ImageHeader,
        header_size: int,
        old: ImageReader | None,
        seeds: Seeds,
        damaged: set[int],
    ) -> None:
        """``header_size`` is the size of the received header in bytes. ``damaged`` are chunks whose copies in the store can't be used."""
        self.header = header
        self.seeds = seeds
        self._staged = staged
        self._header_size = header_size
        self._old = old
        self._damaged = damaged
        self._equal = 0
        """How many rows of the old image were confirmed, as long as all chunks equal it."""
        self._syncing: BackgroundSync | None = None
        self.writer: ImageWriter | None = None
        self.kept = 0
        """How many chunks were copied from the store."""
        if old is None or old.header.geometry != header.geometry:
            self._begun()

    @property
    def next_chunk(self) -> int:
        """The first chunk that was not handled yet."""
        if self.writer is not None:
            return self.writer.next_chunk
        return self._old.index.chunk_at(self._equal - 1) + 1 if self._old and self._equal else 0

    def append(self, record: RecordHeader, frame: memoryview) -> None:
        """Write a received record, while a background thread writes the file to the medium."""
        writer = self._begun()
        writer.append(record, frame)
        if self._syncing is None:
            self._syncing = BackgroundSync(partial(_sync, self._staged.file.fileno()), SYNC_STEP, MAX_UNSYNCED)
        self._syncing.wrote(writer.stored_bytes)

    def keep(self, record: RecordHeader) -> None:
        """Copy a chunk from the store, by its record's header; raises LinkError when the store does not have it."""
        if self.writer is None and self._is_next_of_old(record):
            self._equal += 1
        else:
            self._copy(self._begun(), record)
        self.kept += 1

    def _is_next_of_old(self, record: RecordHeader) -> bool:
        if self._old is None or self._equal >= len(self._old.index):
            return False
        return self._old.index.row_at(self._equal).describes(record)

    def _begun(self) -> ImageWriter:
        """Return the writer; when it begins, it first copies the chunks that equal the old image so far."""
        if self.writer is None:
            self.writer = ImageWriter(self._staged, self.header, find_zstd().codec(), self._header_size)
            if self._old is not None:
                for position in range(self._equal):
                    self._copy(self.writer, self._old.index.row_at(position))
        return self.writer

    def _copy(self, writer: ImageWriter, wanted: Row | RecordHeader) -> None:
        """Copy a chunk whose frame is in the store; raises LinkError when it is not there, or damaged."""
        found = None if wanted.chunk in self._damaged else self.seeds.find(wanted.chunk, wanted.content_hash)
        if found is None:
            raise LinkError(
                f"The laptop says of chunk {wanted.chunk} that the store already has it, but the store does not."
            )
        stored, row = found
        try:
            record = checked_record(stored, row)
        except BadImage as error:
            self._damaged.add(wanted.chunk)
            raise LinkError(str(error)) from error
        # The same content may have been stored with other used ranges, and as part of another image.
        complete = replace(record.header, flags=wanted.flags, ranges=wanted.ranges, image_id=self.header.image_id)
        writer.append(complete, record.frame, (stored.source.fileno(), row.frame_offset))

    def is_old(self, root_digest: str) -> bool:
        """Return whether the old image already has this root digest."""
        return self.writer is None and self._old is not None and self._old.root_digest.hex() == root_digest

    def finish(self, used_bytes: int, bad_ranges: list[dict[str, object]], root_digest: str) -> None:
        """Write the end of the image; raises ImagingError, and keeps nothing, when its root digest is not the laptop's."""
        root = self._begun().finish({"used_bytes": used_bytes}, bad_ranges).hex()
        if root != root_digest:
            self._staged.remove()
            raise ImagingError(
                f"What was stored (root digest {root}) is not what the laptop read ({root_digest}): nothing was kept. The disk may "
                "have changed while it was read, or memory is failing on either machine. Run again."
            )

    def close(self) -> None:
        """End the background thread before the file is closed; raises its error."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.close()
