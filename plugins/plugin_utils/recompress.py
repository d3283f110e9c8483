# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compresses an image of the store anew, in its place and on all cores. What it says of its disk stays the same."""

import hashlib
import os
from dataclasses import replace

from ..module_utils.engine.pipeline import Worker
from ..module_utils.engine.stopwatch import Stopwatches
from ..module_utils.errors import ImagingError
from ..module_utils.image.reader import FileSource, ImageReader, Record
from ..module_utils.image.record import IMAGE_ID_SIZE, RecordHeader
from ..module_utils.image.staged_file import StagedFile
from ..module_utils.image.writer import ImageWriter
from ..module_utils.zstd import find_zstd
from .store_space import writing_to
from .stores.base import Store
from .verify_images import RecordChecks, in_order, verify_image


def recompress(store: Store, name: str, level: int) -> ImageReader:
    """Compress an image anew at a level of zstd, and return it as it is then; raises ImagingError, and leaves the image as it was.

    Nothing is done when the image says that it has this level. Who reads the image meanwhile goes on with the old file. What an interrupted
    capture of that name has left is removed, but not an image that it has left complete: that has to be uploaded or dropped first.
    """
    old = store.open(name)
    if old.header.compression_level == level:
        return old
    store.check_writable()
    staged = store.stage(name)
    try:
        finished = staged.finished
        if finished is None:
            with writing_to(store.folder):
                _fill(staged, old, level)
                staged.commit(old.source.version)
        elif (finished.reader.root_digest, finished.reader.header.compression_level) == (old.root_digest, level):
            finished.commit(old.source.version)
        else:
            raise ImagingError(
                f"An upload of another image {name!r} to {store.path} did not end, so this one was left as it is. Run images.yml with "
                "imaging_uploads: finish, or with imaging_uploads: drop, before."
            )
    finally:
        staged.release(keep=False)
    return store.open(name)


def _fill(staged: StagedFile, old: ImageReader, level: int) -> None:
    """Write the whole file, and check all of it."""
    zstd = find_zstd()
    # With an identifier of its own, so that records of the old file and of the new one can't be mixed up.
    header = replace(old.header, image_id=os.urandom(IMAGE_ID_SIZE), compression_level=level)
    writer = ImageWriter(staged, header, zstd.codec())
    checks, own = RecordChecks(old), Worker(zstd, Stopwatches())

    def compress(record: Record) -> tuple[RecordHeader, bytes]:
        frame = checks.use(record, lambda content: own.codec.compress(content, level))
        frame_hash = hashlib.sha256(frame).digest()
        return replace(record.header, frame_size=len(frame), frame_hash=frame_hash, image_id=header.image_id), frame

    for record, frame in in_order(old.records(0, header.geometry.chunk_count), compress):
        writer.append(record, frame)
    root = writer.finish(old.index.totals)
    made = ImageReader(FileSource(staged.partial))
    verify_image(made)
    if not root == made.root_digest == old.root_digest:
        raise ImagingError(
            f"What was stored of {old.source.name} is not what was read, and was not kept. Memory of this machine may be failing."
        )
