# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes an image file: ``NAME.img.zst.partial`` that becomes ``NAME.img.zst`` when it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import replace
from typing import Any, BinaryIO, Mapping

from ..errors import ImagingError
from ..zstd import Codec
from .header import ImageHeader
from .index import Index, Row
from .record import FIELDS, HEADER_MAGIC, INDEX_MAGIC, RECORD_MAGIC, SKIPPABLE, RecordHeader, zeros_hash
from .seek_table import SeekTable

SUFFIX = ".img.zst"
PARTIAL_SUFFIX = ".img.zst.partial"
UNUSED_LEVEL = 3


class ImageWriter:
    """Takes the records of used chunks in ascending order and makes up those of unused chunks in between.

    The partial file (mode 0600) is locked while it is written, and grows strictly at its end. Nothing but :meth:`commit` gives
    it its final name.
    """

    def __init__(self, path: str, header: ImageHeader, codec: Codec) -> None:
        """``path`` is the final one; raises ImagingError when another writer is at work on it, and OSError."""
        self.path = path
        self.partial = path + ".partial"
        self.header = header
        self._packed_header = header.pack()
        self.index = Index(header.geometry)
        self._codec = codec
        self._seek_table = SeekTable()
        self._unused: dict[int, tuple[RecordHeader, bytes]] = {}
        self._position = 0
        self._next = 0
        self._file = _open_alone(self.partial)
        try:
            self._skippable(HEADER_MAGIC, self._packed_header)
        except BaseException:
            self.discard()
            raise

    @property
    def next_chunk(self) -> int:
        """The chunk before which everything is written."""
        return self._next

    @property
    def stored_bytes(self) -> int:
        """How many bytes the file has so far."""
        return self._position

    def append(self, header: RecordHeader, frame: bytes | memoryview) -> None:
        """Write the record of the next used chunk; the caller has checked the frame's hash. Raises OSError, ImagingError."""
        if header.chunk < self._next:
            raise ImagingError(f"The record of chunk {header.chunk} came after that of chunk {self._next - 1}.")
        self._fill(header.chunk)
        self.index.append(
            Row(
                header.chunk,
                header.flags,
                header.ranges,
                self._position + SKIPPABLE.size + FIELDS.size + len(header.ranges),
                header.frame_size,
                header.content_hash,
            )
        )
        self._record(header, frame)

    def _record(self, header: RecordHeader, frame: bytes | memoryview) -> None:
        self._skippable(RECORD_MAGIC, header.pack())
        self._file.write(frame)
        self._position += len(frame)
        self._seek_table.add(len(frame), header.content_size)
        self._next = header.chunk + 1

    def _skippable(self, magic: int, payload: bytes) -> None:
        self._file.write(SKIPPABLE.pack(magic, len(payload)))
        self._file.write(payload)
        self._position += SKIPPABLE.size + len(payload)
        self._seek_table.add(SKIPPABLE.size + len(payload), 0)

    def _fill(self, end: int) -> None:
        """Write records of unused chunks up to chunk ``end``."""
        for chunk in range(self._next, end):
            length = self.header.geometry.length(chunk)
            if length not in self._unused:
                self._unused[length] = self._make_unused(length)
            template, frame = self._unused[length]
            self._record(replace(template, chunk=chunk), frame)

    def _make_unused(self, length: int) -> tuple[RecordHeader, bytes]:
        frame = self._codec.compress(memoryview(bytearray(length)), UNUSED_LEVEL)
        frame_hash = hashlib.sha256(frame).digest()
        return RecordHeader(0, 0, b"", length, zeros_hash(length), len(frame), frame_hash, self.header.stream), frame

    def finish(self, totals: Mapping[str, Any]) -> bytes:
        """Write what follows the last record and flush the file to the medium; returns the root digest."""
        self._fill(self.header.geometry.chunk_count)
        self.index.totals = dict(totals)
        self._skippable(INDEX_MAGIC, self.index.pack(self._packed_header))
        self._file.write(self._seek_table.pack())
        self._position = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.index.root_digest()

    def commit(self) -> None:
        """Give the finished file its final name, durably; raises ImagingError when that name has come into being meanwhile.

        The file stays locked until it has its name: nobody may take it for what a killed writer left.
        """
        try:
            os.link(self.partial, self.path)
        except FileExistsError:
            raise ImagingError(
                f"{self.path} came into being during the capture, and is left as it is. Capture again with another name."
            ) from None
        except OSError:  # a file system without hard links (exFAT): the check is then not atomic
            if os.path.exists(self.path):
                raise
            os.rename(self.partial, self.path)
        else:
            os.unlink(self.partial)
        sync_folder(os.path.dirname(self.path))
        self._file.close()

    def discard(self) -> None:
        """Remove the partial file, unless it was committed."""
        if self._file.closed:
            return
        try:
            os.unlink(self.partial)
        except FileNotFoundError:
            pass
        try:
            self._file.close()
        except OSError:  # what could not be written (a full disk) is not wanted any more
            pass


def sync_folder(path: str) -> None:
    """Make a rename in a folder durable, where the system can (macOS refuses fsync on some folders)."""
    try:
        descriptor = os.open(path or ".", os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _open_alone(path: str) -> BinaryIO:
    """Create a file, or take over one whose writer was killed; raises ImagingError when its writer lives."""
    file = open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600), buffering=1 << 20)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            raise FileNotFoundError
    except (BlockingIOError, FileNotFoundError):
        file.close()
        raise ImagingError(
            f"{path} is being written: another capture of this name is running. Wait for it, or give this one another name with imaging_image."
        ) from None
    file.truncate(0)
    return file
