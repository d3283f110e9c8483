# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a fleet image of a file that holds a disk."""

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...module_utils.disk.command import RunCommand
from ...module_utils.disk.consistency import ConsistencyChecks
from ...module_utils.disk.devices import disk_at
from ...module_utils.disk.partition_table import read_partition_table
from ...module_utils.disk.ranges import ByteRanges
from ...module_utils.disk.used_map import UsedMap, read_used_map, wholly_used
from ...module_utils.engine.capture import Capture
from ...module_utils.engine.level import FIRST
from ...module_utils.engine.stopwatch import Stopwatches
from ...module_utils.errors import ImagingError
from ...module_utils.image.geometry import DEFAULT_CHUNK_SIZE, UNIT, Geometry
from ...module_utils.image.header import ImageHeader
from ...module_utils.image.reader import FileSource, ImageReader
from ...module_utils.image.record import IMAGE_ID_SIZE
from ...module_utils.image.staged_file import StagedFile
from ...module_utils.image.writer import ImageWriter
from ...module_utils.private_files import open_new
from ...module_utils.reasons import refuse_for
from ...module_utils.zstd import find_zstd
from ..store_space import writing_to
from ..stores.base import Store
from ..times import rfc3339
from ..verify_images import verify_image
from .decompress import decompress_file
from .detect import FLEET, RAW, DiskImageFile, detect_format, name_for
from .file_disk import FileDisk

UNPACKED = ".disk"
"""Appended to the name of a partial image: the disk as it comes out of a compressed file."""

COPY_SIZE = 4 << 20


@dataclass(frozen=True)
class ImportRequest:
    """What is asked for. ``used_map`` is "auto" or "all"; without ``name`` the image gets the file's."""

    source: str
    name: str = ""
    used_map: str = "auto"
    level: int = FIRST
    update: bool = False
    collection_version: str = ""


@dataclass(frozen=True)
class Imported:
    """What became of it. ``format`` is the file's."""

    name: str
    path: str
    format: str
    changed: bool
    image: ImageReader
    unpacked_by: str = ""
    used: UsedMap | None = None
    warnings: list[str] = field(default_factory=list)


def import_file(run: RunCommand, store: Store, request: ImportRequest, check_only: bool = False) -> Imported | None:
    """Make an image of a file; raises ImagingError. With ``check_only``, only looks; None then means that it would be imported.

    A file that the image of that name was made from already, and that has not changed since, is not imported again.
    """
    source = detect_format(request.source)
    name = request.name or name_for(source.path)
    path = store.image_path(name)
    made_before = _made_before(store, name, source, request)
    if made_before is not None:
        return Imported(name=name, path=path, format=source.format, changed=False, image=made_before)
    old = store.existing(name, request.update)
    if check_only:
        return None
    replaced = old.source.version if old else None
    staged = store.stage(name)
    work = _Import(run, request, source, staged)
    try:
        finished = staged.finished
        if finished is not None and _is_made_of(finished.reader, source, request):
            finished.commit(replaced)
        else:
            with writing_to(store.folder):
                work.fill()
                staged.commit(replaced)
    finally:
        staged.remove()
    return Imported(
        name=name,
        path=path,
        format=source.format,
        changed=True,
        image=store.open(name),
        unpacked_by=work.unpacked_by,
        used=work.used,
        warnings=work.warnings,
    )


def _made_before(store: Store, name: str, source: DiskImageFile, request: ImportRequest) -> ImageReader | None:
    """The image of that name, if it is this very file or was made of it as it is now."""
    path = store.image_path(name)
    if source.path == os.path.realpath(path):
        return store.open(name)
    if not store.has(name):
        return None
    with contextlib.suppress(ImagingError):
        image = store.open(name)
        if _is_made_of(image, source, request):
            return image
    return None


def _is_made_of(image: ImageReader, source: DiskImageFile, request: ImportRequest) -> bool:
    """Return whether an image was made of a file as it is now; raises ImagingError when the file is an image itself, and damaged."""
    if source.format == FLEET:
        return ImageReader(FileSource(source.path)).root_digest == image.root_digest
    made = image.header.source
    return bool(made.get("imported_from") == source.identity and made.get("used_map") == request.used_map)


class _Import:
    """One import, into a place that was taken for it."""

    def __init__(self, run: RunCommand, request: ImportRequest, source: DiskImageFile, staged: StagedFile) -> None:
        self._run = run
        self._request = request
        self._source = source
        self._staged = staged
        self.unpacked_by = ""
        self.used: UsedMap | None = None
        self.warnings: list[str] = []

    def fill(self) -> None:
        """Fill the place; raises ImagingError, OSError."""
        if self._source.format == FLEET:
            self._copy_image()
            return
        with self._disk() as disk:
            self.used = self._write(disk)

    def _copy_image(self) -> None:
        """An image of ours is taken over as it is, once every record of it was checked."""
        verify_image(ImageReader(FileSource(self._source.path)))
        with open(self._source.path, "rb") as file:
            shutil.copyfileobj(file, self._staged.file, COPY_SIZE)
        self._staged.file.flush()
        os.fsync(self._staged.file.fileno())
        verify_image(ImageReader(FileSource(self._staged.partial)))

    @contextlib.contextmanager
    def _disk(self) -> Iterator[FileDisk]:
        """The plain disk: the file itself, or what it unpacks to."""
        path = self._source.path
        unpacked = self._staged.partial + UNPACKED
        try:
            if self._source.format != RAW:
                Path(unpacked).unlink(missing_ok=True)  # of an import that was killed
                with open(open_new(unpacked), "wb") as file:
                    self.unpacked_by = decompress_file(self._source, file)
                path = unpacked
            with contextlib.closing(FileDisk(path)) as disk:
                if not disk.size or disk.size % UNIT:
                    raise ImagingError(
                        f"{self._source.path} holds {disk.size} bytes, but the size of a disk is a multiple of {UNIT}: it was cut short, or it is "
                        "not an image of a whole disk. Nothing was imported."
                    )
                self._check_end(disk, disk.gpt_end, "its partition table")
                yield disk
        finally:
            Path(unpacked).unlink(missing_ok=True)

    def _check_end(self, disk: FileDisk, end: int, what: str) -> None:
        """Raise ImagingError when something that is said of the disk lies behind the end of the file."""
        if end > disk.size:
            raise ImagingError(
                f"{self._source.path} is cut short: {what} ends at byte {end}, and the file holds {disk.size}. Nothing was imported. Copy it "
                "from its source again."
            )

    def _map(self, disk: FileDisk) -> tuple[dict[str, Any] | None, UsedMap]:
        """Partition table and used map, as far as this machine can tell."""
        whole = ByteRanges([(0, disk.size)])
        if disk.logical_sector_size != UNIT:
            self._warn(f"its sectors have {disk.logical_sector_size} bytes, and a loop device's have {UNIT}")
            return None, UsedMap(ranges=whole, reason="sectors")
        try:
            known = disk_at(self._run, disk.path)
            table = read_partition_table(self._run, disk.path)
            used = read_used_map(self._run, known, table, self._request.used_map)
        except (OSError, ImagingError) as error:  # no Linux, or a program is missing
            self._warn(str(error).rstrip("."))
            return None, UsedMap(ranges=whole, reason="unknown")
        for partition in table.partitions if table else ():
            self._check_end(disk, partition.end, f"partition {partition.number}")
        refuse_for(known.source_refusals, f"{self._source.path} can't be imported:")
        if os.geteuid() and any(partition.method == "whole" for partition in used.partitions):
            self.warnings.append(
                "Only root can map the used space of file systems: run this as root to leave out their free space."
            )
        return (dict(table.raw) if table else None), used

    def _warn(self, why: str) -> None:
        self.warnings.append(f"All of {self._source.path} is imported, except for zeros: {why}.")

    def _write(self, disk: FileDisk) -> UsedMap:
        """Write what is used; all of a file system as well that meanwhile turns out to be inconsistent."""
        table, used = self._map(disk)
        checks = ConsistencyChecks(disk.path, used.partitions)
        with contextlib.closing(checks):
            used = wholly_used(used, checks.missing())
            checks.start()
            self._write_used(disk, table, used)
            checks.wait()
            believed, used = used, wholly_used(used, checks.doubts())
            if used.partitions != believed.partitions:
                self._staged.restart()
                self._write_used(disk, table, used)
        self._check_unchanged()
        self.warnings += [warning.replace(disk.path, self._source.path) for warning in used.warnings]
        return used

    def _write_used(self, disk: FileDisk, table: dict[str, Any] | None, used: UsedMap) -> None:
        geometry = Geometry(disk.size, disk.logical_sector_size, disk.logical_sector_size, DEFAULT_CHUNK_SIZE)
        geometry.check()
        source = {
            "host": platform.node(),
            "device": self._source.path,
            "imported_from": self._source.identity,
            **used.source_json(),
            "used_map": self._request.used_map,
        }
        header = ImageHeader(
            geometry=geometry,
            image_id=os.urandom(IMAGE_ID_SIZE),
            created=rfc3339(),
            partition_table=table,
            source=source,
            collection_version=self._request.collection_version,
        )
        zstd = find_zstd()
        capture = Capture(disk, geometry, used.ranges, zstd, self._request.level, header.image_id, Stopwatches())
        writer = ImageWriter(self._staged, header, zstd.codec())
        for record, frame in capture.records(0, geometry.chunk_count):
            writer.append(record, frame or b"")
        root = writer.finish({"used_bytes": used.ranges.total()})
        if root != capture.index.root_digest():
            raise ImagingError(
                f"What was stored of {self._source.path} is not what was read. Memory of this machine may be failing."
            )

    def _check_unchanged(self) -> None:
        if detect_format(self._source.path) != self._source:
            raise ImagingError(
                f"{self._source.path} was changed while it was imported: nothing was kept. Import it again."
            )
