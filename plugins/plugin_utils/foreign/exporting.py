# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the disk that a fleet image holds into a file that other programs read."""

from __future__ import annotations

import contextlib
import functools
import gzip
import lzma
import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, BinaryIO

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.place import name_file, sync_folder
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader, check_record
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import USED
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import Codec, find_zstd

from .holes import write_with_holes

RAW = "raw"
GZIP = "gz"
XZ = "xz"
QCOW2 = "qcow2"
FORMATS = (RAW, GZIP, XZ, QCOW2)

PARTIAL = ".partial"
MOST_WORKERS = 16

GZIP_LEVEL = 6
XZ_PRESET = 3
"""Of xz; its own, 6, takes twice as long for a few percent, and 64 MiB for each chunk that is worked on."""

QEMU_IMG = "qemu-img"


def format_of(path: str) -> str:
    """The format that a file's name asks for; raises ImagingError when it asks for none."""
    for ending, kind in ((".gz", GZIP), (".xz", XZ), (".qcow2", QCOW2), (".img", RAW), (".raw", RAW)):
        if path.lower().endswith(ending):
            return kind
    raise ImagingError(
        f"{path} does not say what to write: give it a name that ends with .img, .img.gz, .img.xz or .qcow2, or set imaging_export_format."
    )


def export_image(image: ImageReader, path: str, kind: str) -> int:
    """Write the disk of ``image`` to ``path``, which must not exist; returns the size of the file. Raises ImagingError.

    Every record is checked on the way, and the file is there whole or not at all.
    """
    partial = path + PARTIAL
    try:
        file = _open_new(partial)
        try:
            with file:
                if kind in (RAW, QCOW2):
                    _write_raw(image, file)
                else:
                    _write_members(image, file, COMPRESS[kind])
                file.flush()
                os.fsync(file.fileno())
            if kind == QCOW2:
                _convert(partial)
            name_file(partial, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
    except FileExistsError as error:
        raise ImagingError(f"{path} exists already: remove it, or choose another name.") from error
    except OSError as error:
        raise ImagingError(f"{path} can't be written: {error.strerror}.") from error
    sync_folder(os.path.dirname(path))
    return os.path.getsize(path)


def _open_new(partial: str) -> BinaryIO:
    try:
        return open(partial, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))
    except FileExistsError as error:
        raise ImagingError(
            f"{partial} exists: another export to that file is running, or was killed. See that none is, and remove it."
        ) from error


class _Chunks:
    """The content of chunks, checked; for several threads at once."""

    def __init__(self, image: ImageReader, workers: int) -> None:
        self._image = image
        self._benches: SimpleQueue[tuple[Codec, memoryview]] = SimpleQueue()
        zstd = find_zstd()
        for dummy in range(workers):
            self._benches.put((zstd.codec(), memoryview(bytearray(image.header.geometry.chunk_size))))

    def use(self, chunk: int, consume: Callable[[memoryview | None], Any]) -> Any:
        """Hand a chunk's content (None: zeros) to ``consume``, and return its answer; raises BadImage."""
        row = self._image.index.find(chunk)
        if row is None:
            return consume(None)
        codec, room = self._benches.get()
        try:
            record = self._image.record(row)
            check_record(self._image, record, codec, room)
            return consume(room[: record.header.content_size] if row.flags == USED else None)
        finally:
            self._benches.put((codec, room))


def _in_order(image: ImageReader, consume: Callable[[int, memoryview | None], Any]) -> Iterator[Any]:
    """The answers to the content of all chunks, in disk order, worked out on all cores."""
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    chunks = _Chunks(image, workers)
    window: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for chunk in range(image.header.geometry.chunk_count):
                window.append(pool.submit(chunks.use, chunk, functools.partial(consume, chunk)))
                if len(window) > 2 * workers:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_raw(image: ImageReader, file: BinaryIO) -> None:
    """As a sparse file."""
    geometry = image.header.geometry
    file.truncate(geometry.disk_size)

    def write(chunk: int, content: memoryview | None) -> None:
        if content is not None:
            write_with_holes(file.fileno(), content, geometry.offset(chunk))

    for _done in _in_order(image, write):
        pass


def _write_members(image: ImageReader, file: BinaryIO, compress: Callable[[bytes | memoryview], bytes]) -> None:
    """As one member (gzip) or stream (xz) for each chunk, one after the other, which both formats allow; so all cores can work."""
    geometry = image.header.geometry
    first, last = geometry.length(0), geometry.length(geometry.chunk_count - 1)
    zeros = {first: compress(bytes(first)), last: compress(bytes(last))}

    def member(chunk: int, content: memoryview | None) -> bytes:
        return zeros[geometry.length(chunk)] if content is None else compress(content)

    for packed in _in_order(image, member):
        file.write(packed)


COMPRESS: dict[str, Callable[[bytes | memoryview], bytes]] = {
    GZIP: lambda content: gzip.compress(content, GZIP_LEVEL, mtime=0),
    XZ: lambda content: lzma.compress(content, preset=XZ_PRESET),
}


def _convert(partial: str) -> None:
    """Turn a raw file into qcow2, in its place, and compare the two."""
    raw = partial + ".raw"
    os.replace(partial, raw)
    try:
        for command in (
            [QEMU_IMG, "convert", "-f", "raw", "-O", "qcow2", raw, partial],
            [QEMU_IMG, "compare", "-f", "raw", "-F", "qcow2", raw, partial],
        ):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ImagingError(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()}.")
    finally:
        os.unlink(raw)


def check_tools(kind: str) -> None:
    """Raise ImagingError when a format needs a program that is not there."""
    if kind != QCOW2:
        return
    try:
        subprocess.run([QEMU_IMG, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ImagingError(
            f"qcow2 is written by qemu-img, which is not installed on this machine ({error}). Install it (Debian, Ubuntu: apt install qemu-utils; "
            "Fedora: dnf install qemu-img; macOS: brew install qemu), or export to .img."
        ) from error
