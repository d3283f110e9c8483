# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates a copy of a registry hive from its transaction logs, as Windows does when it loads the hive.

Sources: M. Suhanov, "Windows registry file format specification" (github.com/msuhanov/regf), and "Missing log entries for a dirty primary file".
Where Windows would guess, the hive is refused, because its content is unknown.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO, Iterable, Iterator, Sequence

from ..errors import ImagingError

BASE_SIZE = 4096
"""Bytes of the base block, before the hive bins. A log contains the first SECTOR of it."""

SECTOR = 512
BIN_UNIT = 4096
MAX_BINS_SIZE = 1 << 31
PRIMARY, OLD_LOG, NEW_LOG = 0, 1, 6
"""Types of files that begin with a base block."""

DIRTY_VECTOR = b"DIRT"
LOG_ENTRY = b"HvLE"
ENTRY = struct.Struct("<4sIIIII8s8s")
REFERENCE = struct.Struct("<II")
SEED = 0x82EF4D887A4E55C5
"""The seed of Marvin32 as a number; the specification shows its digits from left to right, not in the order of its bytes in memory."""


class BadHive(ImagingError):
    """A file is not a hive, is damaged, or has an unknown state."""


@dataclass(frozen=True)
class BaseBlock:
    """The header of a hive or of a log. Sizes are in bytes; ``root`` is the offset of the root key in the hive bins."""

    primary: int
    secondary: int
    written: int
    kind: int
    root: int
    size: int
    sound: bool
    """Whether its checksum is right."""

    @property
    def dirty(self) -> bool:
        """Whether a write into the hive was begun and not completed."""
        return self.primary != self.secondary

    @classmethod
    def parse(cls, content: bytes) -> BaseBlock:
        """Parse a base block; raises BadHive when there is none."""
        if len(content) < SECTOR or content[:4] != b"regf":
            raise BadHive("it does not begin with regf, as a hive does")
        primary, secondary, written, major, _minor, kind, form, root, size = struct.unpack_from(
            "<IIQIIIIII", content, 4
        )
        if major != 1 or form != 1 or size % BIN_UNIT or not 0 < size <= MAX_BINS_SIZE:
            raise BadHive(f"its header is damaged (version {major}, format {form}, {size} bytes of bins)")
        checksum = 0
        for (word,) in struct.iter_unpack("<I", content[:508]):
            checksum ^= word
        checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
        sound = checksum == struct.unpack_from("<I", content, 508)[0]
        return cls(primary=primary, secondary=secondary, written=written, kind=kind, root=root, size=size, sound=sound)


@dataclass(frozen=True)
class _Entry:
    """The content of one entry of a log in the new format: offsets in the hive bins, and bytes."""

    sequence: int
    size: int
    pages: list[tuple[int, bytes]]


def replay(hive: BinaryIO, logs: Iterable[bytes]) -> BaseBlock:
    """Write the content of its logs into ``hive``, a copy, and return its new header. Raises BadHive.

    The logs of a hive that was written completely are not read.
    """
    hive.seek(0)
    base = BaseBlock.parse(hive.read(BASE_SIZE))
    if base.kind != PRIMARY:
        raise BadHive(f"it is not a hive (type {base.kind} of file)")
    if not base.sound:
        raise BadHive("its header is damaged: the checksum is wrong")
    if not base.dirty:
        return base
    found = [(log, parsed) for log, parsed in ((log, _base_of(log)) for log in logs) if parsed]
    new = [(log, parsed) for log, parsed in found if parsed.kind == NEW_LOG]
    old = [(log, parsed) for log, parsed in found if parsed.kind == OLD_LOG]
    if new:
        return _replay_new(hive, base, new)
    return _replay_old(hive, base, old)


def _base_of(log: bytes) -> BaseBlock | None:
    """Return the header of a log; None when there is no header, or it was not written completely."""
    try:
        base = BaseBlock.parse(log)
    except BadHive:
        return None
    return base if base.sound and not base.dirty else None


def _replay_new(hive: BinaryIO, base: BaseBlock, logs: Sequence[tuple[bytes, BaseBlock]]) -> BaseBlock:
    """Write the entries into the hive. They are numbered across all logs, from the number of the last complete write on."""
    runs = []
    for log, parsed in logs:
        run = [entry for entry in _entries(log) if not _before(entry.sequence, base.secondary)]
        if run:
            runs.append((run, parsed))
    runs.sort(key=lambda each: (each[0][0].sequence - base.secondary) % (1 << 32))
    expected = base.secondary
    for run, parsed in runs:
        for entry in run:
            if entry.sequence != expected:
                raise BadHive(
                    f"its last write is incomplete, and its logs do not fit: entry {expected} was expected, {entry.sequence} found"
                )
            _write(hive, entry.pages)
            expected = (expected + 1) % (1 << 32)
            base = replace(parsed, primary=entry.sequence, secondary=entry.sequence, kind=PRIMARY, size=entry.size)
    if base.dirty:
        raise BadHive("its last write is incomplete, and its logs do not hold what is missing")
    return base


def _before(sequence: int, other: int) -> bool:
    """Return whether a number precedes another one; they wrap around after 32 bits."""
    return (sequence - other) % (1 << 32) >= 1 << 31


def _entries(log: bytes) -> Iterator[_Entry]:
    """Yield the entries of a log up to the first that is incomplete or not the next one: older ones follow it."""
    position, expected = SECTOR, -1
    while True:
        entry, length = _entry(log, position)
        if entry is None or expected not in (-1, entry.sequence):
            return
        yield entry
        expected = (entry.sequence + 1) % (1 << 32)
        position += length


def _entry(log: bytes, position: int) -> tuple[_Entry | None, int]:
    """Return an entry and its length; None when it is incomplete."""
    head = log[position : position + ENTRY.size]
    if len(head) < ENTRY.size:
        return None, 0
    magic, length, _flags, sequence, size, count, content_hash, head_hash = ENTRY.unpack(head)
    body = log[position + ENTRY.size : position + length]
    if (
        magic != LOG_ENTRY
        or length % SECTOR
        or len(body) != length - ENTRY.size
        or size % BIN_UNIT
        or not 0 < size <= MAX_BINS_SIZE
        or count * REFERENCE.size > len(body)
        or head_hash != marvin32(head[:32])
        or content_hash != marvin32(body)
    ):
        return None, 0
    pages = []
    data = count * REFERENCE.size
    for place, page_size in REFERENCE.iter_unpack(body[:data]):
        page = body[data : data + page_size]
        if len(page) != page_size or place + page_size > size:
            return None, 0
        pages.append((place, page))
        data += page_size
    return _Entry(sequence, size, pages), length


def _replay_old(hive: BinaryIO, base: BaseBlock, logs: Sequence[tuple[bytes, BaseBlock]]) -> BaseBlock:
    """Write the pages of a log into the hive. It contains all of one write, and the time of that write."""
    for log, parsed in logs:
        if parsed.written != base.written:
            continue
        pages = _dirty_pages(log, parsed.size)
        if pages is not None:
            _write(hive, pages)
            return replace(parsed, kind=PRIMARY)
    raise BadHive("its last write is incomplete, and it has no log of that write")


def _dirty_pages(log: bytes, size: int) -> list[tuple[int, bytes]] | None:
    """Return the pages of a log in the old format, by its bitmap of SECTORs of the hive bins; None when the log is truncated."""
    start = SECTOR + len(DIRTY_VECTOR)
    bitmap = log[start : start + size // SECTOR // 8]
    if log[SECTOR:start] != DIRTY_VECTOR or len(bitmap) != size // SECTOR // 8:
        return None
    position = -(-(start + len(bitmap)) // SECTOR) * SECTOR
    pages = []
    for number, byte in enumerate(bitmap):
        for bit in range(8) if byte else ():
            if byte >> bit & 1:
                page = log[position : position + SECTOR]
                if len(page) != SECTOR:
                    return None
                pages.append(((number * 8 + bit) * SECTOR, page))
                position += SECTOR
    return pages


def _write(hive: BinaryIO, pages: Sequence[tuple[int, bytes]]) -> None:
    end = hive.seek(0, os.SEEK_END)
    for place, content in sorted(pages):
        if BASE_SIZE + place > end:
            raise BadHive(f"its logs do not fit: between {end} and {BASE_SIZE + place} bytes there would be nothing")
        hive.seek(BASE_SIZE + place)
        hive.write(content)
        end = max(end, BASE_SIZE + place + len(content))


def marvin32(data: bytes, seed: int = SEED) -> bytes:
    """Return the Marvin32 hash of bytes. Source: .NET, System/Marvin.cs (github.com/dotnet/runtime)."""
    mask = 0xFFFFFFFF
    low, high = seed & mask, seed >> 32
    padded = bytes(data) + b"\x80"
    padded += bytes(-len(padded) % 4)
    for (word,) in struct.iter_unpack("<I", padded + bytes(4)):
        low = (low + word) & mask
        high ^= low
        low = ((low << 20 | low >> 12) + high) & mask
        high = (high << 9 | high >> 23) & mask ^ low
        low = ((low << 27 | low >> 5) + high) & mask
        high = (high << 19 | high >> 13) & mask
    return struct.pack("<II", low, high)
