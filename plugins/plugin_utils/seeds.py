# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store has already of a disk that is captured: its old image, and what a capture that broke off has left."""

from collections.abc import Sequence

from ..module_utils.image.geometry import Geometry
from ..module_utils.image.index import Index, Row
from ..module_utils.image.reader import Record, StoredRecords


class Seeds:
    """Chunks from several files, the one that is named first being preferred; files of disks of another geometry are left out."""

    def __init__(self, files: Sequence[StoredRecords], geometry: Geometry) -> None:
        self._files = [each for each in files if each.header.geometry == geometry]
        self._geometry = geometry

    def __bool__(self) -> bool:
        return any(len(each.index) for each in self._files)

    def describe(self) -> tuple[bytes, bytes]:
        """Packed header and index of all that is there, for the other end."""
        first = self._files[0]
        if len(self._files) == 1:
            return first.packed_header, first.index.pack(first.packed_header)
        index = Index(self._geometry)
        for chunk in sorted({row.chunk for each in self._files for row in each.index}):
            row = next(row for row in (each.index.find(chunk) for each in self._files) if row is not None)
            index.append(row)
        return first.packed_header, index.pack(first.packed_header)

    def find(self, chunk: int, content_hash: bytes) -> tuple[StoredRecords, Row] | None:
        """Where a chunk with this content lies."""
        for each in self._files:
            row = each.index.find(chunk)
            if row is not None and row.content_hash == content_hash:
                return each, row
        return None


def checked_record(stored: StoredRecords, row: Row) -> Record:
    """The record of a row, its frame hashed; raises BadImage when it is damaged."""
    record = stored.record(row)
    stored.check_frame(record)
    return record
