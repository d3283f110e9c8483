# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says in which partitions ranges of a disk lie."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, TypedDict

from ..printable import printable

MOST_RANGES = 100
"""How many ranges are told apart in a result; the rest is counted."""

Range = Mapping[str, Any]


class NamedRange(TypedDict):
    """From ``start`` to ``end``, the byte after the last one, in bytes of the disk; and the ``partition`` or partitions that it lies in."""

    start: int
    end: int
    partition: str


def name_ranges(ranges: Iterable[tuple[int, int]], partitions: Any) -> list[NamedRange]:
    """``start`` and ``end`` (bytes of the disk) of each range, and the ``partition`` or partitions that it lies in.

    ``partitions`` are those of an image's header or of a used map, in any form that may have come from outside.
    """
    known = known_partitions(partitions)
    return [{"start": start, "end": end, "partition": _name(start, end, known)} for start, end in ranges]


def merge(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges, those that touch made one."""
    merged: list[tuple[int, int]] = []
    for start, end in ranges:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def describe_range(place: Range) -> str:
    """One named range in words."""
    return f"bytes {place['start']} to {place['end']} ({place['partition']})"


def known_partitions(said: Any) -> list[Range]:
    """Those of the partitions that an image's header or a used map speaks of that make sense; it may have come from outside."""
    entries = said if isinstance(said, (list, tuple)) else ()
    return [
        each
        for each in entries
        if isinstance(each, Mapping) and all(isinstance(each.get(name), int) for name in ("number", "start", "size"))
    ]


def content_words(partition: Range) -> list[str]:
    """What a partition holds, and its label, as far as that is known."""
    return [printable(str(partition[key])) for key in ("content", "label") if partition.get(key)]


def _name(start: int, end: int, partitions: list[Range]) -> str:
    inside = [part for part in partitions if part["start"] < end and start < part["start"] + part["size"]]
    names = [" ".join([f"partition {part['number']}", *content_words(part)]) for part in inside]
    return ", ".join(names) or "in no partition"
