# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks a compressed disk into a sparse file, and is content with nothing but the whole of it, undamaged.

Every stream of a file must end as its format says, with the right check sum, and be followed by another one or by nothing.
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import os
import queue
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError

from .formats import BZIP2, GZIP, XZ, ZSTD, ForeignFile
from .holes import write_with_holes

READ_SIZE = 1 << 20
MOST_AT_ONCE = 4 << 20
"""Bytes that a decompressor may give at a time, whatever a few bytes of its input promise."""

ZSTD_INPUT = 1024
"""Bytes that zstandard, which knows no such bound, gets at a time: no more than 256 blocks of 128 KiB (RFC 8878, 3.1.1.2) come of them."""

LARGEST_WINDOW = 1 << 31
"""Bytes that a decompressor may look back, and so take: as zstd --long=31 makes it. xz -9 needs 64 MiB."""

PIECES = 8
"""How many decompressed pieces may wait to be written."""

BZIP2_END = 0x177245385090
"""The 48 bits before the check sum at the end of a bzip2 stream, which ends anywhere in a byte."""


class Damaged(ImagingError):
    """A compressed file is cut short, altered, or followed by something else."""


class Stream:
    """One compressed stream, by a decompressor of bz2 or lzma, or one that resembles theirs."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._real = make()

    @property
    def eof(self) -> bool:
        """Whether the stream has ended, as it must."""
        return bool(self._real.eof)

    @property
    def unused_data(self) -> bytes:
        """What of the input follows the end."""
        return bytes(self._real.unused_data)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give it input, and take what comes of it in pieces of a bounded size."""
        yield self._real.decompress(data, MOST_AT_ONCE)
        while not self._real.eof and not self._real.needs_input:
            yield self._real.decompress(b"", MOST_AT_ONCE)


class _Gzip(Stream):
    def __init__(self) -> None:
        super().__init__(lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS))

    def feed(self, data: bytes) -> Iterator[bytes]:
        piece = self._real.decompress(data, MOST_AT_ONCE)
        yield piece
        while not self._real.eof and (piece or self._real.unconsumed_tail):
            piece = self._real.decompress(self._real.unconsumed_tail, MOST_AT_ONCE)
            yield piece


class _Zstd(Stream):
    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise ImagingError(
                f"Unpacking zstd needs the Python package zstandard for the Python that runs ansible-playbook ({error}): pip install zstandard."
            ) from error
        super().__init__(zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj)
        self._error = zstandard.ZstdError
        self._rest = b""

    @property
    def unused_data(self) -> bytes:
        return bytes(self._real.unused_data) + self._rest

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), ZSTD_INPUT):
            try:
                yield self._real.decompress(data[start : start + ZSTD_INPUT])
            except self._error as error:
                raise ValueError(str(error)) from error
            if self._real.eof:
                self._rest = data[start + ZSTD_INPUT :]
                return


IN_PROCESS: dict[str, Callable[[], Stream]] = {
    GZIP: _Gzip,
    BZIP2: lambda: Stream(bz2.BZ2Decompressor),
    XZ: lambda: Stream(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LARGEST_WINDOW)),
    ZSTD: _Zstd,
}

ON_ALL_CORES = {BZIP2: ["lbzip2", "-dc"], XZ: ["xz", "-T0", "-dc"]}
"""Programs that decompress independent blocks side by side. A gzip stream, and a zstd frame, is one thread's work."""

ERRORS = (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError)


def unpack(source: ForeignFile, target: BinaryIO) -> str:
    """Write what ``source`` decompresses to into an empty file, with holes for zeros; returns what did it.

    Raises Damaged, and OSError when the target's file system is full.
    """
    command = ON_ALL_CORES.get(source.format, [""])
    program = shutil.which(command[0])
    if source.format == BZIP2:
        _check_end_of_bzip2(source)
    pieces = _by_program([program, *command[1:]], source) if program else _in_process(source)
    _write_sparse(pieces, target)
    return command[0] if program else "python"


def _in_process(source: ForeignFile) -> Iterator[bytes]:
    with open(source.path, "rb") as file:
        yield from streams_of(file, source)


def streams_of(file: BinaryIO, source: ForeignFile) -> Iterator[bytes]:
    """What the streams in an opened file decompress to, in pieces; raises Damaged."""
    data = file.read(READ_SIZE)
    done = 0
    while data:
        stream = IN_PROCESS[source.format]()
        while not stream.eof:
            if not data:
                raise Damaged(f"{source.path} is cut short: the {source.format} stream in it does not end. {AGAIN}")
            try:
                yield from stream.feed(data)
            except ERRORS as error:
                raise _damaged(source, done, error) from error
            if not stream.eof:
                data = file.read(READ_SIZE)
        done += 1
        data = stream.unused_data or file.read(READ_SIZE)


def _damaged(source: ForeignFile, streams: int, error: BaseException) -> Damaged:
    if streams:
        return Damaged(
            f"{source.path} is damaged, or something other than {source.format} follows its first {streams} streams: {error}. {AGAIN}"
        )
    return Damaged(f"{source.path} is damaged: {error}. {AGAIN}")


AGAIN = "Nothing of it was imported. Copy it from its source again, and compare check sums."


def _by_program(command: list[str], source: ForeignFile) -> Iterator[bytes]:
    with (
        open(source.path, "rb") as file,
        subprocess.Popen(
            command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as process,
    ):
        words: list[bytes] = []
        listener = threading.Thread(target=lambda: words.append(_last(process.stderr)), daemon=True)
        listener.start()
        try:
            while data := process.stdout.read(READ_SIZE) if process.stdout else b"":
                yield data
        finally:
            if process.stdout:
                process.stdout.close()  # should there be more, it ends by that
            status = process.wait()
            listener.join()
    if status:
        said = b"".join(words).decode(errors="replace").strip() or "nothing"
        raise Damaged(f"{source.path} is damaged or cut short: {os.path.basename(command[0])} says {said}. {AGAIN}")


def _last(stream: Any, size: int = 1000) -> bytes:
    """What was written to a stream last."""
    tail = b""
    while data := stream.read(size):
        tail = (tail + data)[-size:]
    return tail


def _check_end_of_bzip2(source: ForeignFile) -> None:
    """Raise Damaged unless the file ends where a stream does: lbzip2 takes what follows for nothing."""
    with open(source.path, "rb") as file:
        file.seek(max(0, source.size - 11))
        tail = int.from_bytes(file.read(), "big")
    if not any((tail >> (padding + 32)) & ((1 << 48) - 1) == BZIP2_END for padding in range(8)):
        raise Damaged(
            f"{source.path} does not end where a bzip2 stream does: it is cut short, or something follows it. {AGAIN}"
        )


def _write_sparse(pieces: Iterator[bytes], target: BinaryIO) -> None:
    """Write pieces one after the other, in a thread of its own so that the next is made meanwhile."""
    waiting: queue.Queue[bytes | None] = queue.Queue(PIECES)
    failures: list[OSError] = []

    def write() -> None:
        position = 0
        while (piece := waiting.get()) is not None:
            if not failures:
                try:
                    write_with_holes(target.fileno(), piece, position)
                except OSError as error:
                    failures.append(error)
            position += len(piece)
        with contextlib.suppress(OSError):
            target.truncate(position)

    writer = threading.Thread(target=write, name="write", daemon=True)
    writer.start()
    try:
        for piece in pieces:
            if failures:
                break
            waiting.put(piece)
    finally:
        waiting.put(None)
        writer.join()
    if failures:
        raise failures[0]
