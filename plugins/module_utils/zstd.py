# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A zstd on any machine: the system's shared library, the zstandard package's, or the standard library's.

All three speak of one frame at a time: whole content in, one frame with content size and checksum out, and back.
Frame format: RFC 8878. Numbers of the compression parameters: zstd.h, ``ZSTD_cParameter``.
"""

from __future__ import annotations

import ctypes
import importlib
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, Callable, Sequence, Union

from .errors import ImagingError
from .reasons import DAMAGED_IMAGE

Frame = Union[bytes, memoryview]

LEVEL_PARAMETER = 100
CHECKSUM_PARAMETER = 201
CONTENT_SIZE_UNKNOWN = (1 << 64) - 1
CONTENT_SIZE_ERROR = (1 << 64) - 2

FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
RUN_LENGTH_BLOCK = 1
CHECKSUM_SIZE = 4

MAX_WINDOW_SIZE = 128 << 20
"""Bytes. The most that zstd's own decoders accept by default (ZSTD_WINDOWLOG_LIMIT_DEFAULT, 27), and what its highest level uses."""

NO_ZSTD = (
    "This machine has no zstd that Python can use: neither the standard library's compression.zstd (Python 3.14), nor the "
    "package zstandard, nor the shared library libzstd.so.1. Install one of them (Debian, Ubuntu: apt install libzstd1; Fedora: "
    "dnf install libzstd), or set imaging_install: true to have it installed."
)


class FrameError(ImagingError):
    """A frame is not what its record promised."""

    code = DAMAGED_IMAGE


class Codec(ABC):
    """Compresses and decompresses single frames. Not to be shared between threads."""

    @abstractmethod
    def compress(self, content: memoryview, level: int) -> bytes:
        """Return one frame that holds ``content``, with content size and checksum."""

    @abstractmethod
    def decompress_into(self, frame: Frame, out: memoryview) -> None:
        """Fill ``out`` with the content of ``frame``; raises FrameError unless it is exactly as long as ``out``."""


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        raise FrameError(f"A zstd frame declares {found} bytes of content where its record declares {expected}.")


def _check_window(descriptor: int) -> None:
    """Raise FrameError when a window descriptor (RFC 8878, section 3.1.1.1.2) asks for more memory than a decoder may take.

    Some decoders have no such bound when they are given a whole frame.
    """
    base = 1 << (10 + (descriptor >> 3))
    window = base + (base >> 3) * (descriptor & 7)
    if window > MAX_WINDOW_SIZE:
        raise FrameError(f"A zstd frame needs a window of {window} bytes: expected at most {MAX_WINDOW_SIZE}.")


def _check_extent(frame: Frame) -> None:
    """Raise FrameError unless ``frame`` is one frame with nothing behind it, by its block headers (RFC 8878, section 3.1.1).

    Decoders differ in what they make of bytes behind a frame, and an image must be sound, or not, wherever it is read.
    """
    size = len(frame)
    if size < 6 or frame[:4] != FRAME_MAGIC:
        raise FrameError("A record holds something that is not a zstd frame.")
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    content_size_field = (single_segment, 2, 4, 8)[descriptor >> 6]
    position = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size_field
    if not single_segment:  # else the window is the content, whose size is checked
        _check_window(frame[5])
    last = 0
    while not last and position + 3 <= size:
        block = int.from_bytes(frame[position : position + 3], "little")
        last = block & 1
        position += 3 + (1 if block >> 1 & 3 == RUN_LENGTH_BLOCK else block >> 3)
    position += CHECKSUM_SIZE * (descriptor >> 2 & 1)
    if not last or position > size:
        raise FrameError("A zstd frame is cut short.")
    if position < size:
        raise FrameError(f"A record holds {size - position} bytes after its zstd frame.")


class StandardCodec(Codec):
    """``compression.zstd`` of Python 3.14 (PEP 784), or ``backports.zstd``, which is the same code for older Pythons."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def compress(self, content: memoryview, level: int) -> bytes:
        parameter = self._library.CompressionParameter
        options = {parameter.compression_level: level, parameter.checksum_flag: True}
        compressor = self._library.ZstdCompressor(options=options)
        # All content in one call that ends the frame: zstd then knows the size and writes it into the frame header.
        frame: bytes = compressor.compress(content, compressor.FLUSH_FRAME)
        return frame

    def decompress_into(self, frame: Frame, out: memoryview) -> None:
        _check_extent(frame)
        try:
            _check_size(self._library.get_frame_info(frame).decompressed_size or 0, len(out))
            decompressor = self._library.ZstdDecompressor()
            # One byte more than promised: a frame may hold more than it declares, and is then decoded no further.
            content = decompressor.decompress(frame, len(out) + 1)
        except self._library.ZstdError as error:
            raise FrameError(f"A zstd frame can't be decoded: {error}.") from error
        if not decompressor.eof:
            raise FrameError("A zstd frame is cut short, or holds more than it declares.")
        _check_size(len(content), len(out))
        out[:] = content


class ZstandardCodec(Codec):
    """The package ``zstandard`` (python-zstandard)."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._decompressor = library.ZstdDecompressor()
        self._compressor: Any = None
        self._level = 0

    def compress(self, content: memoryview, level: int) -> bytes:
        if self._compressor is None or self._level != level:
            self._compressor = self._library.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
            self._level = level
        frame: bytes = self._compressor.compress(content)
        return frame

    def decompress_into(self, frame: Frame, out: memoryview) -> None:
        _check_extent(frame)
        try:
            _check_size(self._library.get_frame_parameters(frame).content_size, len(out))
            # In one call: the streaming reader would return the content without looking at the checksum behind it.
            content = self._decompressor.decompress(frame)
        except self._library.ZstdError as error:
            raise FrameError(f"A zstd frame can't be decoded: {error}.") from error
        _check_size(len(content), len(out))
        out[:] = content


class SharedLibraryCodec(Codec):
    """The system's ``libzstd.so.1`` through ctypes, which releases the interpreter lock during each call."""

    def __init__(self, library: ctypes.CDLL) -> None:
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        for name, result, arguments in (
            ("ZSTD_createCCtx", pointer, []),
            ("ZSTD_freeCCtx", size, [pointer]),
            ("ZSTD_CCtx_setParameter", size, [pointer, ctypes.c_int, ctypes.c_int]),
            ("ZSTD_compress2", size, [pointer, pointer, size, pointer, size]),
            ("ZSTD_compressBound", size, [size]),
            ("ZSTD_createDCtx", pointer, []),
            ("ZSTD_freeDCtx", size, [pointer]),
            ("ZSTD_decompressDCtx", size, [pointer, pointer, size, pointer, size]),
            ("ZSTD_getFrameContentSize", ctypes.c_ulonglong, [pointer, size]),
            ("ZSTD_isError", ctypes.c_uint, [size]),
            ("ZSTD_getErrorName", ctypes.c_char_p, [size]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library
        self._compressing = library.ZSTD_createCCtx()
        self._decompressing = library.ZSTD_createDCtx()
        if not self._compressing or not self._decompressing:
            raise MemoryError("zstd could not allocate its contexts")
        self._check(library.ZSTD_CCtx_setParameter(self._compressing, CHECKSUM_PARAMETER, 1))
        self._room = bytearray()

    def __del__(self) -> None:
        self._library.ZSTD_freeCCtx(self._compressing)
        self._library.ZSTD_freeDCtx(self._decompressing)

    def _check(self, code: int) -> int:
        if self._library.ZSTD_isError(code):
            raise FrameError(f"zstd: {self._library.ZSTD_getErrorName(code).decode()}.")
        return code

    @staticmethod
    def _address(buffer: Frame) -> Any:
        if isinstance(buffer, bytes):
            return buffer
        if buffer.readonly:
            return bytes(buffer)
        return (ctypes.c_char * len(buffer)).from_buffer(buffer)

    def compress(self, content: memoryview, level: int) -> bytes:
        self._check(self._library.ZSTD_CCtx_setParameter(self._compressing, LEVEL_PARAMETER, level))
        bound = self._library.ZSTD_compressBound(len(content))
        if len(self._room) < bound:
            self._room = bytearray(bound)
        room = memoryview(self._room)
        size = self._check(
            self._library.ZSTD_compress2(
                self._compressing, self._address(room), len(room), self._address(content), len(content)
            )
        )
        return bytes(room[:size])

    def decompress_into(self, frame: Frame, out: memoryview) -> None:
        _check_extent(frame)
        source = self._address(frame)
        declared = self._library.ZSTD_getFrameContentSize(source, len(frame))
        if declared in (CONTENT_SIZE_ERROR, CONTENT_SIZE_UNKNOWN):
            raise FrameError("A record holds something that is no zstd frame with a content size.")
        _check_size(declared, len(out))
        found = self._check(
            self._library.ZSTD_decompressDCtx(self._decompressing, self._address(out), len(out), source, len(frame))
        )
        _check_size(found, len(out))


class Zstd:
    """One way to zstd: its name, and a codec for each thread that wants one."""

    def __init__(self, name: str, make_codec: Callable[[], Codec]) -> None:
        self.name = name
        self.codec = make_codec


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _shared_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None


def available() -> Sequence[Zstd]:
    """Every way to zstd that this machine has, the preferred one first.

    The shared library decompresses straight into the caller's buffer. The others return the content in memory of its own, which is then copied.
    """
    ways = []
    shared = _shared_library()
    if shared is not None:
        ways.append(Zstd("libzstd.so.1", lambda: SharedLibraryCodec(shared)))
    package = _module("zstandard")
    if package is not None:
        ways.append(Zstd("zstandard", lambda: ZstandardCodec(package)))
    for name in ("compression.zstd", "backports.zstd"):
        standard = _module(name)
        if standard is not None:
            ways.append(Zstd(name, lambda library=standard: StandardCodec(library)))  # type: ignore[misc]
    return ways


def find_zstd() -> Zstd:
    """The zstd to use here; raises ImagingError that says what to install when there is none."""
    ways = available()
    if not ways:
        raise ImagingError(NO_ZSTD)
    return ways[0]
