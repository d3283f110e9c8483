# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compressed formats that can be imported: how each is recognised, and what unpacks it."""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...module_utils.errors import ImagingError

MAX_OUTPUT = 4 << 20
"""Bytes that a decompressor may give at a time, whatever a few bytes of its input promise."""

ZSTD_INPUT = 1024
"""Bytes that zstandard, which knows no such bound, gets at a time: no more than 256 blocks of 128 KiB (RFC 8878, 3.1.1.2) come of them."""

MAX_WINDOW_SIZE = 1 << 31
"""Bytes that a decompressor may look back, and so take: as zstd --long=31 makes it. xz -9 needs 64 MiB."""

BZIP2_END = 0x177245385090
"""The 48 bits before the check sum at the end of a bzip2 stream, which ends anywhere in a byte."""


class Decompressor:
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
        yield self._real.decompress(data, MAX_OUTPUT)
        while not self._real.eof and not self._real.needs_input:
            yield self._real.decompress(b"", MAX_OUTPUT)


class _Gzip(Decompressor):
    def __init__(self) -> None:
        super().__init__(lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS))

    def feed(self, data: bytes) -> Iterator[bytes]:
        piece = self._real.decompress(data, MAX_OUTPUT)
        yield piece
        while not self._real.eof and (piece or self._real.unconsumed_tail):
            piece = self._real.decompress(self._real.unconsumed_tail, MAX_OUTPUT)
            yield piece


class _Zstd(Decompressor):
    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise ImagingError(
                f"Unpacking zstd needs the Python package zstandard for the Python that runs ansible-playbook ({error}): pip install zstandard."
            ) from error
        super().__init__(zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_SIZE).decompressobj)
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


@dataclass(frozen=True)
class Compression:
    """A compressed format. ``start`` matches what its files begin with, within ``formats.HEAD`` bytes; ``decompressor`` makes a decompressor.

    ``program`` is a command that decompresses standard input on all cores, if there is one. ``ends_well`` says whether a whole file may end with
    these last bytes; it is for programs that ignore what follows a stream.
    """

    name: str
    ending: str
    start: re.Pattern[bytes]
    decompressor: Callable[[], Decompressor]
    program: tuple[str, ...] = ()
    ends_well: Callable[[bytes], bool] = lambda _tail: True


def _bzip2_ends_well(tail: bytes) -> bool:
    """Whether a stream ends there, up to seven bits before the last byte's end: lbzip2 takes what follows for nothing."""
    bits = int.from_bytes(tail[-11:], "big")
    return any((bits >> (padding + 32)) & ((1 << 48) - 1) == BZIP2_END for padding in range(8))


COMPRESSIONS = {
    each.name: each
    for each in (
        # RFC 1952, 2.3.1, with the only method there is. A stream is one thread's work.
        Compression("gzip", ".gz", re.compile(rb"\x1f\x8b\x08"), _Gzip),
        # A stream's level and the mark of its first block, or of its end: three letters alone may be anything.
        Compression(
            "bzip2",
            ".bz2",
            re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", re.DOTALL),
            lambda: Decompressor(bz2.BZ2Decompressor),
            program=("lbzip2", "-dc"),
            ends_well=_bzip2_ends_well,
        ),
        # The .xz File Format, 2.1.1.1
        Compression(
            "xz",
            ".xz",
            re.compile(rb"\xfd7zXZ\x00"),
            lambda: Decompressor(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_SIZE)),
            program=("xz", "-T0", "-dc"),
        ),
        # RFC 8878, 3.1.1, and 3.1.2: some programs begin a file with a skippable frame. A frame is one thread's work.
        Compression("zstd", ".zst", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL), _Zstd),
    )
}
"""By their names."""
