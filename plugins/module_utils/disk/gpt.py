# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the headers of a GPT, and moves them for a disk of another size.

Source: UEFI specification 2.10, sections 5.2.3 (protective MBR) and 5.3 (GPT).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Callable, Iterator

from ..errors import ImagingError

GPT_SIGNATURE = b"EFI PART"
FIELDS = struct.Struct("<8sIIIIQQQQ16sQIII")
"""Signature, revision, size and CRC-32 of the header, a reserved zero, its own sector, that of the other header, first and last usable
sector, disk GUID, first sector of the entries, their count, their size, CRC-32 of them all (UEFI 2.10, table 5.5)."""

CHECKSUM_AT = 16

ENTRY = struct.Struct("<16s16sQQ")
"""The head of an entry: type GUID (zeros in an unused one), partition GUID, first and last sector (UEFI 2.10, table 5.6)."""

ENTRIES_LIMIT = 64 << 20
"""Maximum bytes of an array of entries. UEFI has no limit; the usual array of 128 entries has 16 KiB, and sgdisk makes some of 8 MiB."""

USUAL_ENTRIES = 128
MIN_ENTRY_SIZE = 128
MIN_SECTOR_SIZE = 512

PROTECTIVE_TYPE = 0xEE
"""Type of the MBR entry that protects a GPT disk from programs that do not know GPTs."""

MBR_ENTRY = struct.Struct("<4xB3xII")
"""Type, first sector and count of sectors of one of the four entries of an MBR (UEFI 2.10, table 5.2)."""

MBR_ENTRIES = range(446, 510, MBR_ENTRY.size)
BOOT_INDICATORS = (0x00, 0x80)
"""The possible first bytes of such an entry."""

BOOT_SIGNATURE = b"\x55\xaa"
"""The last bytes of a boot record of 512 bytes (UEFI 2.10, table 5.1)."""

MAX_SECTORS = 0xFFFFFFFF
"""The count of sectors in an MBR for a disk that is too large for it."""

Read = Callable[[int, int], bytes]
"""Reads ``length`` bytes at ``offset`` of a disk; fewer at its end."""


@dataclass(frozen=True)
class GptHeader:
    """A header; places are in sectors. ``sound`` says whether its checksum is right. ``sector`` holds all bytes of its sector."""

    sector: bytes
    size: int
    place: int
    backup: int
    last_usable: int
    entries: int
    entry_count: int
    entry_size: int
    entries_checksum: int
    sound: bool

    @classmethod
    def read(cls, read: Read, place: int, sector_size: int) -> GptHeader | None:
        """Return the header in a sector, or None when there is none."""
        data = read(place * sector_size, sector_size)
        if len(data) < MIN_SECTOR_SIZE or data[:8] != GPT_SIGNATURE:
            return None
        (_signature, _revision, size, checksum, _zero, own, other, _first, last, _guid, entries, count, entry, crc) = (
            FIELDS.unpack_from(data)
        )
        sound = FIELDS.size <= size <= len(data) and _checksum(data, size) == checksum
        return cls(
            sector=data,
            size=size,
            place=own,
            backup=other,
            last_usable=last,
            entries=entries,
            entry_count=count,
            entry_size=entry,
            entries_checksum=crc,
            sound=sound,
        )

    @property
    def entries_size(self) -> int:
        """Bytes of all entries."""
        return self.entry_count * self.entry_size

    def entries_range(self, sector_size: int) -> tuple[int, int]:
        """Return the byte range of the entries, in whole sectors."""
        start = self.entries * sector_size
        return start, start + -(-self.entries_size // sector_size) * sector_size

    def moved(self, place: int, backup: int, entries: int, last_usable: int) -> bytes:
        """Return the sector of this header for other places; everything else is kept."""
        data = bytearray(self.sector)
        struct.pack_into("<QQ", data, 24, place, backup)
        struct.pack_into("<Q", data, 48, last_usable)
        struct.pack_into("<Q", data, 72, entries)
        struct.pack_into("<I", data, CHECKSUM_AT, _checksum(data, self.size))
        return bytes(data)


def _checksum(data: bytes | bytearray, size: int) -> int:
    """Return the CRC-32 of a header, whose own field counts as zeros."""
    return zlib.crc32(bytes(data[:CHECKSUM_AT]) + bytes(4) + bytes(data[CHECKSUM_AT + 4 : size]))


def reserve(sector_size: int, entry_count: int = USUAL_ENTRIES) -> int:
    """Return the bytes that the entries and the header of a backup GPT take at the end of a disk."""
    return (-(-entry_count * MIN_ENTRY_SIZE // sector_size) + 1) * sector_size


def relocate(read: Read, old_size: int, new_size: int, sector_size: int) -> list[tuple[int, bytes]]:
    """Return the writes, in order, that adapt a GPT disk of ``old_size`` bytes to one of ``new_size`` bytes.

    The backup moves to the new end, the primary header and the protective MBR refer to it, and its old place is zeroed. GUIDs and entries are kept.
    Raises ImagingError when the GPT is damaged, or a partition ends where the backup must lie.
    """
    header, entries = _sound_table(read, sector_size)
    backup = new_size // sector_size - 1
    backup_entries = backup - -(-len(entries) // sector_size)
    last = max((last for _first, last in _partitions(entries, header.entry_size)), default=0)
    if last >= backup_entries:
        raise ImagingError(
            f"The last partition ends {(last + 1 - backup_entries) * sector_size} bytes too far for a disk of {new_size} bytes."
        )
    usable = backup_entries - 1
    writes = [
        (start, bytes(min(end, new_size) - start))
        for start, end in _backup_places(read, header, last + 1, old_size, sector_size)
        if start < new_size
    ]
    writes += _protective_mbr(read, old_size // sector_size, new_size // sector_size)
    writes.append((sector_size, header.moved(1, backup, header.entries, usable)))
    writes.append((backup_entries * sector_size, entries.ljust((backup - backup_entries) * sector_size, b"\0")))
    writes.append((backup * sector_size, header.moved(backup, 1, backup_entries, usable)))
    return writes


def names_partitions(boot_sector: bytes) -> bool:
    """Return whether a boot sector contains an MBR with partitions, and not code or text in that place.

    A partition that begins with this very sector does not count: mkfs.fat and others make such an MBR for the whole file system, for Windows.
    """
    if len(boot_sector) < MIN_SECTOR_SIZE or not boot_sector.endswith(BOOT_SIGNATURE):
        return False
    entries = [MBR_ENTRY.unpack_from(boot_sector, offset) for offset in MBR_ENTRIES]
    plausible = all(boot_sector[offset] in BOOT_INDICATORS for offset in MBR_ENTRIES)
    return plausible and any(kind and start and count for kind, start, count in entries)


def unannounced_partitions(read: Read, sector_size: int) -> int:
    """Return how many partitions a sound GPT has that the MBR does not announce; 0 when the MBR announces the GPT.

    Firmware and some systems use such a GPT; Linux and Windows use the MBR.
    """
    boot_sector = read(0, MIN_SECTOR_SIZE).ljust(MIN_SECTOR_SIZE, b"\0")
    if any(MBR_ENTRY.unpack_from(boot_sector, offset)[0] == PROTECTIVE_TYPE for offset in MBR_ENTRIES):
        return 0
    try:
        header, entries = _sound_table(read, sector_size)
    except ImagingError:
        return 0
    return sum(1 for dummy in _partitions(entries, header.entry_size))


def _sound_table(read: Read, sector_size: int) -> tuple[GptHeader, bytes]:
    header = GptHeader.read(read, 1, sector_size)
    if header is None or not header.sound or header.place != 1:
        raise ImagingError("The primary header of the GPT is damaged.")
    if header.entry_size < MIN_ENTRY_SIZE or not 0 < header.entries_size <= ENTRIES_LIMIT:
        raise ImagingError(
            f"The GPT says that it has {header.entry_count} entries of {header.entry_size} bytes, which is not valid."
        )
    entries = read(header.entries * sector_size, header.entries_size)
    if zlib.crc32(entries) != header.entries_checksum:
        raise ImagingError("The entries of the GPT are damaged.")
    return header, entries


def _partitions(entries: bytes, entry_size: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last sector of every partition."""
    for offset in range(0, len(entries), entry_size):
        kind, _guid, first, last = ENTRY.unpack_from(entries, offset)
        if any(kind):
            yield first, last


def _backup_places(
    read: Read, primary: GptHeader, free: int, old_size: int, sector_size: int
) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of a backup in the sectors behind all partitions, which begin with ``free``."""
    sectors = old_size // sector_size
    for place in sorted({primary.backup, sectors - 1}):
        header = GptHeader.read(read, place, sector_size) if free <= place < sectors else None
        if header is None:
            continue
        yield place * sector_size, (place + 1) * sector_size
        start, end = header.entries_range(sector_size)
        if free * sector_size <= start <= end <= sectors * sector_size and header.entries_size <= ENTRIES_LIMIT:
            yield start, end


def _protective_mbr(read: Read, old_sectors: int, new_sectors: int) -> Iterator[tuple[int, bytes]]:
    boot_sector = bytearray(read(0, MIN_SECTOR_SIZE))
    for offset in MBR_ENTRIES:
        kind, start, count = MBR_ENTRY.unpack_from(boot_sector, offset)
        # Many systems write the largest number for any size, which stays valid. In a hybrid MBR, the entry ends elsewhere.
        if kind == PROTECTIVE_TYPE and start + count == old_sectors:
            struct.pack_into("<I", boot_sector, offset + 12, min(new_sectors - start, MAX_SECTORS))
            yield 0, bytes(boot_sector)
