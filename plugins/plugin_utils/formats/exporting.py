# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the disk that a fleet image holds into a file that other programs read."""

import functools
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from ...module_utils.disk.command import MissingTool
from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import ImageReader, Record
from ...module_utils.image.record import USED
from ...module_utils.image.staged_file import rename_noreplace, sync_folder
from ...module_utils.private_files import open_new
from ..run_command import run_command
from ..verify_images import RecordChecks, in_order
from .holes import write_with_holes

PARTIAL = ".partial"

GZIP_LEVEL = 6
XZ_PRESET = 3
"""Of xz; its own, 6, takes twice as long for a few percent, and 64 MiB for each chunk that is worked on."""

QEMU_IMG = "qemu-img"

R = TypeVar("R")


def _open_new(partial: str) -> BinaryIO:
    try:
        return open(open_new(partial), "wb")
    except FileExistsError as error:
        raise ImagingError(
            f"{partial} exists: another export to that file is running, or was killed. See that none is, and remove it."
        ) from error


def _contents(image: ImageReader, consume: Callable[[int, memoryview | None], R]) -> Iterator[R]:
    """What ``consume`` makes of the content (None: zeros) of each chunk, checked, in disk order; raises BadImage."""
    checks = RecordChecks(image)

    count = image.header.geometry.chunk_count

    def stored() -> Iterator[tuple[int, Record | None]]:
        records = image.records(0, count)
        return ((chunk, next(records) if image.index.find(chunk) else None) for chunk in range(count))

    def use(item: tuple[int, Record | None]) -> R:
        chunk, record = item
        if record is not None and record.header.flags == USED:
            return checks.use(record, functools.partial(consume, chunk))
        if record is not None:
            checks.check(record)
        return consume(chunk, None)

    return in_order(stored(), use)


def _write_raw(image: ImageReader, file: BinaryIO) -> None:
    """As a sparse file."""
    geometry = image.header.geometry
    file.truncate(geometry.disk_size)

    def write(chunk: int, content: memoryview | None) -> None:
        if content is not None:
            write_with_holes(file.fileno(), content, geometry.offset(chunk))

    for _done in _contents(image, write):
        pass


def _write_members(compress: Callable[[bytes | memoryview], bytes], image: ImageReader, file: BinaryIO) -> None:
    """As one member (gzip) or stream (xz) for each chunk, one after the other, which both formats allow; so all cores can work."""
    geometry = image.header.geometry
    first, last = geometry.length(0), geometry.length(geometry.chunk_count - 1)
    zeros = {first: compress(bytes(first)), last: compress(bytes(last))}

    def member(chunk: int, content: memoryview | None) -> bytes:
        return zeros[geometry.length(chunk)] if content is None else compress(content)

    for packed in _contents(image, member):
        file.write(packed)


def _convert(partial: str) -> None:
    """Turn a raw file into qcow2, in its place, and compare the two."""
    converted = partial + ".qcow2"
    _open_new(converted).close()  # so that nobody else can put a link there
    try:
        for command in (
            [QEMU_IMG, "convert", "-f", "raw", "-O", "qcow2", partial, converted],
            [QEMU_IMG, "compare", "-f", "raw", "-F", "qcow2", partial, converted],
        ):
            done = run_command(command)
            if done.rc:
                raise ImagingError(f"{' '.join(command[:2])} failed: {done.complaint()}.")
        os.replace(converted, partial)
    finally:
        Path(converted).unlink(missing_ok=True)


def _check_qemu_img() -> None:
    try:
        done = run_command([QEMU_IMG, "--version"])
    except (OSError, MissingTool):
        raise ImagingError(
            "qcow2 is written by qemu-img, which is not installed on this machine. Install it (Debian, Ubuntu: apt install qemu-utils; "
            "Fedora: dnf install qemu-img; macOS: brew install qemu), or export to .img."
        ) from None
    if done.rc:
        raise ImagingError(
            f"{QEMU_IMG}, which writes qcow2, does not run here: {done.complaint()}. Install it anew, or export to .img."
        )


_gzip = functools.partial(gzip.compress, compresslevel=GZIP_LEVEL, mtime=0)
_xz = functools.partial(lzma.compress, preset=XZ_PRESET)


@dataclass(frozen=True)
class ExportFormat:
    """A format to export to, and what the names of its files end with. ``write`` fills an empty file with the disk of an image.

    ``convert`` then turns the file with that name into another one, in its place. ``check`` raises ImagingError when a program is missing for that.
    """

    name: str
    endings: tuple[str, ...]
    write: Callable[[ImageReader, BinaryIO], None]
    convert: Callable[[str], None] = lambda _partial: None
    check: Callable[[], None] = lambda: None


FORMATS = {
    each.name: each
    for each in (
        ExportFormat("raw", (".img", ".raw"), _write_raw),
        ExportFormat("gz", (".gz",), functools.partial(_write_members, _gzip)),
        ExportFormat("xz", (".xz",), functools.partial(_write_members, _xz)),
        ExportFormat("qcow2", (".qcow2",), _write_raw, _convert, check=_check_qemu_img),
    )
}
"""By their names."""


def format_of(path: str) -> str:
    """The format that a file's name asks for; raises ImagingError when it asks for none."""
    for each in FORMATS.values():
        if path.lower().endswith(each.endings):
            return each.name
    raise ImagingError(
        f"{path} does not say what to write: give it a name that ends with .img, .img.gz, .img.xz or .qcow2, or set imaging_export_format."
    )


def export_image(image: ImageReader, path: str, kind: str) -> int:
    """Write the disk of ``image`` to ``path``, which must not exist; returns the size of the file. Raises ImagingError.

    Every record is checked on the way, and the file is there whole or not at all.
    """
    format_, partial = FORMATS[kind], path + PARTIAL
    try:
        file = _open_new(partial)
        try:
            with file:
                format_.write(image, file)
                file.flush()
                os.fsync(file.fileno())
            format_.convert(partial)
            rename_noreplace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except FileExistsError as error:
        raise ImagingError(f"{path} exists already: remove it, or choose another name.") from error
    except OSError as error:
        raise ImagingError(f"{path} can't be written: {error.strerror}.") from error
    sync_folder(os.path.dirname(path))
    return os.path.getsize(path)
