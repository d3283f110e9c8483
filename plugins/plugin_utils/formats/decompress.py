# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks a compressed disk into a sparse file, and is content with nothing but the whole of it, undamaged.

Every stream of a file must end as its format says, with the right check sum, and be followed by another one or by nothing.
"""

import lzma
import os
import shutil
import subprocess
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from ...module_utils.errors import ImagingError
from .compressions import COMPRESSIONS
from .detect import HEAD, DiskImageFile
from .holes import write_with_holes

READ_SIZE = 1 << 20
PIECES = 8
"""How many decompressed pieces may wait to be written."""


class Damaged(ImagingError):
    """A compressed file is cut short, altered, or followed by something else."""


ON_ALL_CORES = {each.name: list(each.program) for each in COMPRESSIONS.values() if each.program}
"""Programs that decompress independent blocks side by side, by format."""

ERRORS = (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError)


def decompress_file(source: DiskImageFile, target: BinaryIO) -> str:
    """Write what ``source`` decompresses to into an empty file, with holes for zeros; returns what did it.

    Raises Damaged, and OSError when the target's file system is full.
    """
    command = ON_ALL_CORES.get(source.format, [""])
    program = shutil.which(command[0])
    _check_end(source)
    with open(source.path, "rb") as file:
        _write_sparse(
            _by_program([program, *command[1:]], source, file) if program else decompressed(file, source), target
        )
    return command[0] if program else "python"


def decompressed(file: BinaryIO, source: DiskImageFile) -> Iterator[bytes]:
    """What the streams in an opened file decompress to, in pieces; raises Damaged."""
    data = file.read(READ_SIZE)
    done = 0
    while data:
        decompressor = COMPRESSIONS[source.format].decompressor()
        while not decompressor.eof:
            if not data:
                raise Damaged(f"{source.path} is cut short: the {source.format} stream in it does not end. {AGAIN}")
            try:
                yield from decompressor.feed(data)
            except ERRORS as error:
                follows = f", or something other than {source.format} follows its first {done} streams" if done else ""
                raise Damaged(f"{source.path} is damaged{follows}: {error}. {AGAIN}") from error
            if not decompressor.eof:
                data = file.read(READ_SIZE)
        done += 1
        data = decompressor.unused_data or file.read(READ_SIZE)


AGAIN = "Nothing of it was imported. Copy it from its source again, and compare check sums."


def _by_program(command: list[str], source: DiskImageFile, file: BinaryIO) -> Iterator[bytes]:
    with subprocess.Popen(
        command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
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


def _check_end(source: DiskImageFile) -> None:
    """Raise Damaged unless the file ends as its format may end."""
    with open(source.path, "rb") as file:
        file.seek(max(0, source.size - HEAD))
        tail = file.read()
    if not COMPRESSIONS[source.format].ends_well(tail):
        raise Damaged(
            f"{source.path} does not end where a {source.format} stream does: it is cut short, or something follows it. {AGAIN}"
        )


def _write_sparse(pieces: Iterator[bytes], target: BinaryIO) -> None:
    """Write pieces one after the other, in a thread of its own so that the next is made meanwhile; raises OSError."""
    writing: deque[Future[None]] = deque()
    position = 0
    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
        for piece in pieces:
            writing.append(pool.submit(write_with_holes, target.fileno(), piece, position))
            position += len(piece)
            if len(writing) > PIECES:
                writing.popleft().result()
        for each in writing:
            each.result()
    target.truncate(position)
