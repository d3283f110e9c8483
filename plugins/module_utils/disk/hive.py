# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads single values of a registry hive.

Source: M. Suhanov, "Windows registry file format specification" (github.com/msuhanov/regf). Nothing in a hive is trusted: each offset, length and
count is checked, and an impossible one means that the hive is damaged.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, Iterable, Iterator, NamedTuple

from .hive_log import BASE_SIZE, BIN_UNIT, BadHive, replay

__all__ = ["BadHive", "Hive"]

KEY = struct.Struct("<2sH16xI4xI4xII28xH2x")
"""Magic, flags, count and list of keys below it, count and list of values, length of the name, which follows."""

VALUE = struct.Struct("<2sHIIIH2x")
"""Magic, length of the name, size and offset of the data, type, flags; the name follows."""

BIN = struct.Struct("<4sII")
"""Magic, offset, size."""

ASCII_KEY, ASCII_VALUE = 0x20, 0x01
"""Flags of a key and of a value whose name is in Latin-1; other names are in UTF-16."""

TEXT, EXPANDED_TEXT, NUMBER, TEXTS = 1, 2, 4, 7
"""Types of values: REG_SZ, REG_EXPAND_SZ, REG_DWORD, REG_MULTI_SZ."""

INLINE = 1 << 31
"""A bit in the size of a value: the data are in the field of their offset."""

LEAVES = {b"lf": 8, b"lh": 8, b"li": 4}
"""Kinds of lists of keys, and the bytes of an entry, which begins with the key's offset."""

MAX_LIST_LENGTH = 1 << 16
"""Maximum number of keys or values of one key; the keys that are read have at most a few thousand."""

MAX_DATA_SIZE = 16344
"""Maximum bytes of a value that is stored in one piece. Larger values are divided; none of those that are read here is larger."""


class _Key(NamedTuple):
    """A key: its name in capital letters, and the numbers and offsets of its subkeys and values."""

    name: str
    keys: int
    key_list: int
    values: int
    value_list: int


class Hive:
    """A copy of a hive in a file, into which the content of the hive's logs is written. All methods raise BadHive."""

    def __init__(self, file: BinaryIO, logs: Iterable[bytes] = ()) -> None:
        self._file = file
        base = replay(file, logs)
        self._root = base.root
        self._size = base.size
        self._keys: dict[tuple[str, ...], int | None] = {}
        if file.seek(0, os.SEEK_END) < BASE_SIZE + base.size:
            raise BadHive(f"it is truncated: {BASE_SIZE + base.size} bytes were expected, {file.tell()} found")
        self._check_bins()
        self._key(self._root)

    def value(self, path: str, name: str) -> str:
        """Return a value as text: a number in decimal digits, several texts in lines. Empty if there is no such value, or it has another type."""
        place = self._find(tuple(part.upper() for part in path.split("\\") if part))
        if place is None:
            return ""
        key = self._key(place)
        if key.values > MAX_LIST_LENGTH:
            raise BadHive(f"its key at {place:#x} has {key.values} values, and at most {MAX_LIST_LENGTH} were expected")
        values = self._cell(key.value_list, key.values * 4) if key.values else b""
        for (value,) in struct.iter_unpack("<I", values):
            if self._value_name(value) == name.upper():
                return self._text(value)
        return ""

    def _find(self, path: tuple[str, ...]) -> int | None:
        """Return the offset of a key, by its names in capital letters; None when it does not exist."""
        if not path:
            return self._root
        if path not in self._keys:
            parent = self._find(path[:-1])
            children = self._children(parent) if parent is not None else ()
            self._keys[path] = next((place for place in children if self._key(place).name == path[-1]), None)
        return self._keys[path]

    def _children(self, place: int) -> Iterator[int]:
        """Yield the offsets of the subkeys of a key."""
        key = self._key(place)
        if not key.keys:
            return
        if key.keys > MAX_LIST_LENGTH:
            raise BadHive(
                f"its key at {place:#x} has {key.keys} keys below it, and at most {MAX_LIST_LENGTH} were expected"
            )
        magic, entries = self._index(key.key_list)
        leaves = [entry for (entry,) in struct.iter_unpack("<I", entries)] if magic == b"ri" else [key.key_list]
        left = key.keys
        for leaf in leaves:
            magic, entries = self._index(leaf)
            size = LEAVES.get(magic)
            if size is None or len(entries) // size > left:
                raise BadHive(f"its list of keys at {leaf:#x} is damaged")
            left -= len(entries) // size
            for position in range(0, len(entries), size):
                yield struct.unpack_from("<I", entries, position)[0]
        if left:
            raise BadHive(f"its key at {place:#x} has fewer keys below it than it says")

    def _index(self, place: int) -> tuple[bytes, bytes]:
        """Return the kind of a list of keys, and its entries."""
        magic, count = struct.unpack("<2sH", self._cell(place, 4))
        return magic, self._cell(place, 4 + count * LEAVES.get(magic, 4))[4:]

    def _key(self, place: int) -> _Key:
        magic, flags, *counts, length = KEY.unpack(self._cell(place, KEY.size))
        if magic != b"nk":
            raise BadHive(f"its key at {place:#x} is damaged")
        return _Key(_name(self._cell(place, KEY.size + length)[KEY.size :], flags & ASCII_KEY), *counts)

    def _value_name(self, place: int) -> str:
        magic, length, _size, _data, _type, flags = VALUE.unpack(self._cell(place, VALUE.size))
        if magic != b"vk":
            raise BadHive(f"its value at {place:#x} is damaged")
        return _name(self._cell(place, VALUE.size + length)[VALUE.size :], flags & ASCII_VALUE)

    def _text(self, place: int) -> str:
        _magic, _length, size, data, kind, _flags = VALUE.unpack(self._cell(place, VALUE.size))
        if size & INLINE:  # at most four bytes
            content = struct.pack("<I", data)[: size & ~INLINE]
        elif size > MAX_DATA_SIZE:
            raise BadHive(f"its value at {place:#x} has {size} bytes, where a short text or a number was expected")
        else:
            content = self._cell(data, size) if size else b""
        if kind == NUMBER:
            return str(int.from_bytes(content, "little")) if len(content) == 4 else ""
        if kind not in (TEXT, EXPANDED_TEXT, TEXTS):
            return ""
        text = content.decode("utf-16-le", "replace")
        return "\n".join(part for part in text.split("\0") if part) if kind == TEXTS else text.partition("\0")[0]

    def _cell(self, place: int, length: int) -> bytes:
        if place % 8 or place + 4 > self._size:
            raise BadHive(f"it points to {place:#x}, where there is nothing")
        (size,) = struct.unpack("<i", self._read(place, 4))
        if size >= 0 or place - size > self._size or 4 + length > -size:
            raise BadHive(f"its cell at {place:#x} is damaged")
        return self._read(place + 4, length)

    def _check_bins(self) -> None:
        """Check that all bins are complete: damage is mostly whole pages of zeros or foreign bytes."""
        place = 0
        while place < self._size:
            magic, own_place, size = BIN.unpack(self._read(place, BIN.size))
            if magic != b"hbin" or own_place != place or not size or size % BIN_UNIT or place + size > self._size:
                raise BadHive(f"its bin at {place:#x} is damaged")
            place += size

    def _read(self, place: int, length: int) -> bytes:
        self._file.seek(BASE_SIZE + place)
        content = self._file.read(length)
        if len(content) != length:
            raise BadHive(f"it is truncated at {place:#x}")
        return content


def _name(content: bytes, ascii_name: int) -> str:
    """Return a name in capital letters, because case does not matter."""
    return content.decode("latin-1" if ascii_name else "utf-16-le", "replace").upper()
