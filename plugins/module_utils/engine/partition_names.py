# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names the partitions in which byte ranges of a disk lie."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, TypedDict

from ..printable import printable

MAX_RANGES = 100
"""Maximum number of ranges that a result names; it only counts the rest."""

Range = Mapping[str, Any]


class NamedRange(TypedDict):
    """A half-open byte range of the disk, and the ``partition`` or partitions in which it lies."""

    start: int
    end: int
    partition: str


def name_ranges(ranges: Iterable[tuple[int, int]], partitions: Any) -> list[NamedRange]:
    """Return the ranges with the ``partition`` or partitions in which each lies.

    ``partitions`` comes from an image's header or a used map, and is not trusted.
    """
    known = known_partitions(partitions)
    return [{"start": start, "end": end, "partition": _name(start, end, known)} for start, end in ranges]


def merge(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ascending ranges with adjacent ones merged."""
    merged: list[tuple[int, int]] = []
    for start, end in ranges:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def describe_range(place: Range) -> str:
    """Return a description of a named range."""
    return f"bytes {place['start']} to {place['end']} ({place['partition']})"


def known_partitions(said: Any) -> list[Range]:
    """Return the valid entries of a list of partitions from an image's header or a used map, which is not trusted."""
    entries = said if isinstance(said, (list, tuple)) else ()
    return [
        each
        for each in entries
        if isinstance(each, Mapping) and all(isinstance(each.get(name), int) for name in ("number", "start", "size"))
    ]


def content_and_label(partition: Range) -> list[str]:
    """Return the content of a partition and its label, as far as they are known."""
    return [printable(str(partition[key])) for key in ("content", "label") if partition.get(key)]


def _name(start: int, end: int, partitions: list[Range]) -> str:
    inside = [part for part in partitions if part["start"] < end and start < part["start"] + part["size"]]
    names = [" ".join([f"partition {part['number']}", *content_and_label(part)]) for part in inside]
    return ", ".join(names) or "in no partition"
