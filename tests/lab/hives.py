# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes registry hives and their transaction logs, sound and torn, as Windows leaves them.

Source of the formats: M. Suhanov, "Windows registry file format specification" (github.com/msuhanov/regf).
"""

from __future__ import annotations

import struct
from itertools import groupby
from typing import List, Mapping, Sequence, Union

BASE = 4096
PAGE = 4096
SECTOR = 512
NOTHING = 0xFFFFFFFF
WRITTEN = 0x01DC60AA_C2400000
"""When a hive was last written, as a FILETIME."""

DESCRIPTOR = bytes.fromhex("0100048000000000000000000000000000000000")
HASHED, HINTED, PLAIN = b"lh", b"lf", b"li"
"""Kinds of lists of keys."""

Data = Union[str, int, bytes, List[str]]
Values = Mapping[str, Mapping[str, Data]]
"""Keys, with backslashes between their parts, and their values by name: text, a number of 32 bits, bytes, or several texts."""


class Maker:
    """Puts cells one behind the other into the bins of a hive."""

    def __init__(self, kind: bytes, leaf: int) -> None:
        self._kind = kind
        self._leaf = leaf
        self._bin = bytearray(32)
        self._bins = bytearray()
        self._security = NOTHING

    def make(self, values: Values) -> bytes:
        """Return the whole hive."""
        tree: dict[str, dict[str, Data]] = {"": {}}
        for path, entries in values.items():
            parts = path.split("\\")
            for depth in range(len(parts)):
                tree.setdefault("\\".join(parts[: depth + 1]), {})
            tree[path].update(entries)
        root = self._key("", "ROOT", tree, NOTHING)
        self._end_bin()
        base = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, WRITTEN, 1, 5, 0, 1, root, len(self._bins), 1)
        return sealed(base.ljust(BASE, b"\0")) + bytes(self._bins)

    def _cell(self, content: bytes) -> int:
        size = -(-(len(content) + 4) // 8) * 8
        if len(self._bin) + size > PAGE and len(self._bin) > 32:
            self._end_bin()
        place = len(self._bins) + len(self._bin)
        self._bin += struct.pack("<i", -size) + content.ljust(size - 4, b"\0")
        return place

    def _end_bin(self) -> None:
        size = -(-len(self._bin) // PAGE) * PAGE
        left = size - len(self._bin)
        if left:
            self._bin += struct.pack("<i", left).ljust(left, b"\0")
        struct.pack_into("<4sII8xQ", self._bin, 0, b"hbin", len(self._bins), size, WRITTEN)
        self._bins += self._bin
        self._bin = bytearray(32)

    def _key(self, path: str, name: str, tree: Mapping[str, Mapping[str, Data]], parent: int) -> int:
        start = f"{path}\\" if path else ""
        below = sorted(
            (each for each in tree if each.startswith(start) and each and "\\" not in each[len(start) :]), key=str.upper
        )
        flags, packed = _packed(name, 0x20)
        own = self._cell(bytes(76 + len(packed)))
        if self._security == NOTHING:
            self._security = len(self._bin)
            self._cell(struct.pack("<2s2xIIII", b"sk", self._security, self._security, 1, len(DESCRIPTOR)) + DESCRIPTOR)
        values = [self._value(each, data) for each, data in tree[path].items()]
        value_list = self._cell(struct.pack(f"<{len(values)}I", *values)) if values else NOTHING
        keys = [(each[len(start) :], self._key(each, each[len(start) :], tree, own)) for each in below]
        key_list = self._list(keys) if keys else NOTHING
        longest = max((2 * len(each) for each, _place in keys), default=0)
        node = struct.pack(
            "<2sHQIIIIIIIIIIIIIIIHH",
            b"nk", flags | (0x0C if not path else 0), WRITTEN, 0, parent, len(keys), 0, key_list, NOTHING, len(values), value_list,
            self._security, NOTHING, longest, 0, 64, 512, 0, len(packed), 0,
        )  # fmt: skip
        place = own + 4
        target, place = (self._bins, place) if place < len(self._bins) else (self._bin, place - len(self._bins))
        target[place : place + 76 + len(packed)] = node + packed
        return own

    def _list(self, keys: Sequence[tuple[str, int]]) -> int:
        leaves = [keys[start : start + self._leaf] for start in range(0, len(keys), self._leaf)]
        places = [
            self._cell(struct.pack("<2sH", self._kind, len(leaf)) + b"".join(map(self._entry, leaf))) for leaf in leaves
        ]
        return (
            places[0]
            if len(places) == 1
            else self._cell(struct.pack(f"<2sH{len(places)}I", b"ri", len(places), *places))
        )

    def _entry(self, key: tuple[str, int]) -> bytes:
        name, place = key
        if self._kind == PLAIN:
            return struct.pack("<I", place)
        if self._kind == HINTED:
            return struct.pack("<I4s", place, name.encode("latin-1", "replace")[:4])
        number = 0
        for character in name.upper():
            number = (37 * number + ord(character)) & 0xFFFFFFFF
        return struct.pack("<II", place, number)

    def _value(self, name: str, data: Data) -> int:
        if isinstance(data, int):
            kind, content = 4, struct.pack("<I", data)
        elif isinstance(data, bytes):
            kind, content = 3, data
        elif isinstance(data, str):
            kind, content = 1, f"{data}\0".encode("utf-16-le")
        else:
            kind, content = 7, "".join(f"{text}\0" for text in [*data, ""]).encode("utf-16-le")
        flags, packed = _packed(name, 0x01)
        if len(content) <= 4:
            size, place = len(content) | 1 << 31, struct.unpack("<I", content.ljust(4, b"\0"))[0]
        else:
            size, place = len(content), self._cell(content)
        return self._cell(struct.pack("<2sHIIIHH", b"vk", len(packed), size, place, kind, flags, 0) + packed)


def _packed(name: str, flag: int) -> tuple[int, bytes]:
    """A name as a hive has it, and the flag that says how."""
    try:
        return flag, name.encode("latin-1")
    except UnicodeEncodeError:
        return 0, name.encode("utf-16-le")


def make_hive(values: Values, kind: bytes = HASHED, leaf: int = 500) -> bytes:
    """Return a hive with these values, whose lists of keys are of a kind and have at most ``leaf`` entries each."""
    return Maker(kind, leaf).make(values)


def sealed(base: bytes) -> bytes:
    """Return a base block, or more that begins with one, with the right checksum."""
    number = 0
    for (word,) in struct.iter_unpack("<I", base[:508]):
        number ^= word
    number = {0: 1, NOTHING: NOTHING - 1}.get(number, number)
    return base[:508] + struct.pack("<I", number) + base[512:]


def changed(hive: bytes, **fields: int) -> bytes:
    """Return a hive, or a log, with other fields in its base block: primary, secondary, written, kind, size."""
    places = {
        "primary": (4, "<I"),
        "secondary": (8, "<I"),
        "written": (12, "<Q"),
        "kind": (28, "<I"),
        "size": (40, "<I"),
    }
    block = bytearray(hive)
    for name, value in fields.items():
        place, form = places[name]
        struct.pack_into(form, block, place, value)
    return sealed(bytes(block))


def dirty_pages(old: bytes, new: bytes) -> list[tuple[int, bytes]]:
    """Return the pages of the bins in which ``new`` is not ``old``, by their places there; neighbours are put together."""
    numbers = [number for number in range((len(new) - BASE) // PAGE) if _page(old, number) != _page(new, number)]
    runs = [
        [number for _index, number in run] for _key, run in groupby(enumerate(numbers), lambda each: each[1] - each[0])
    ]
    return [(run[0] * PAGE, b"".join(_page(new, number) for number in run)) for run in runs]


def _page(hive: bytes, number: int) -> bytes:
    return hive[BASE + number * PAGE : BASE + (number + 1) * PAGE]


def marvin32(data: bytes) -> bytes:
    """Return the hash of an entry of a log, with the seed of the registry."""

    def turn(number: int, by: int) -> int:
        return (number << by | number >> (32 - by)) & NOTHING

    low, high = 0x7A4E55C5, 0x82EF4D88
    text = data + b"\x80" + bytes(7 - len(data) % 4)
    for place in range(0, len(text), 4):
        low = (low + int.from_bytes(text[place : place + 4], "little")) & NOTHING
        high ^= low
        low = (turn(low, 20) + high) & NOTHING
        high = turn(high, 9) ^ low
        low = (turn(low, 27) + high) & NOTHING
        high = turn(high, 19)
    return struct.pack("<II", low, high)


def entry(sequence: int, size: int, pages: Sequence[tuple[int, bytes]]) -> bytes:
    """Return an entry of a log in the new format; ``size`` is that of all bins."""
    body = b"".join(struct.pack("<II", place, len(page)) for place, page in pages) + b"".join(
        page for _place, page in pages
    )
    length = -(-(40 + len(body)) // SECTOR) * SECTOR
    body = body.ljust(length - 40, b"\0")
    head = struct.pack("<4sIIIII", b"HvLE", length, 0, sequence, size, len(pages)) + marvin32(body)
    return head + marvin32(head) + body


def new_log(states: Sequence[bytes], first: int) -> bytes:
    """Return a log in the new format, whose entries are numbered from ``first`` and bring a hive from each state to the next."""
    entries = [
        entry(first + number, len(new) - BASE, dirty_pages(old, new))
        for number, (old, new) in enumerate(zip(states, states[1:]))
    ]
    return changed(states[0], primary=first, secondary=first, kind=6)[:SECTOR] + b"".join(entries)


def old_log(old: bytes, new: bytes) -> bytes:
    """Return a log in the old format, which brings a hive from one state to the other."""
    size = len(new) - BASE
    bitmap = bytearray(size // PAGE)
    pages = dirty_pages(old, new)
    for place, content in pages:
        bitmap[place // PAGE : (place + len(content)) // PAGE] = b"\xff" * (len(content) // PAGE)
    vector = b"DIRT" + bytes(bitmap)
    base = changed(new, primary=2, secondary=2, kind=1)[:SECTOR]
    return (
        base + vector.ljust(-(-len(vector) // SECTOR) * SECTOR, b"\0") + b"".join(content for _place, content in pages)
    )


def unwritten(hive: bytes, last: int = 1) -> bytes:
    """Return a hive whose next write has begun, and not ended, since it was last written wholly with this number."""
    return changed(hive, primary=last + 1, secondary=last)
