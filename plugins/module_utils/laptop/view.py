# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether sfdisk and blkid find on a disk what they found on the reference: the partitions, and the content of each.

Equal bytes are not enough for that: programs may also find signatures in space that the image does not use.
"""

from __future__ import annotations

import re
import threading
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping

from ..disk.blkid import Content, detect
from ..disk.blkid_facts import blkid_version, contradicts, describe_content, facts_of, parse_facts
from ..disk.command import MissingTool, RunCommand
from ..disk.gpt import PROTECTIVE_TYPE
from ..disk.partition_table import PARTITION_LIMIT, read_partition_table
from ..engine.partition_names import known_partitions
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..printable import printable

Entries = Mapping[str, Mapping[str, str]]
"""The facts of a partition table: those of the table itself, and of each partition by its number."""

SHOWN = 4
"""Maximum number of differences in a message."""

PAUSE = 0.02
"""Seconds between two calls of the function that runs while a comparison is waited for."""


@dataclass(frozen=True)
class _Place:
    """A range of the disk (size 0: all of it), and its expected content. Of a ``partial`` one, only type and label are known."""

    name: str
    offset: int
    size: int
    expected: Content
    partial: bool = False

    def part_of(self, found: Content) -> Content:
        """Return the part of the found content that can be compared."""
        if self.partial:
            return Content(type=found.stray or found.type, label=found.label, ambivalent=found.ambivalent)
        return parse_facts(facts_of(found))


@dataclass
class Comparison:
    """The differences from the reference, and what could not be compared, each as a sentence without its full stop."""

    differences: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def summarize(sentences: list[str]) -> str:
    """Return a few of these sentences, and the number of the others."""
    more = [f"and {len(sentences) - SHOWN} more"] if len(sentences) > SHOWN else []
    return "; ".join([*sentences[:SHOWN], *more])


class ExpectedView:
    """What a system saw on the reference, according to the image's header. Older images contain less, and only that is compared."""

    def __init__(self, header: ImageHeader, disk_size: int) -> None:
        """Read an untrusted header; raises ImagingError. ``disk_size`` is the target's, in bytes."""
        source = header.source
        self._blkid = printable(str(source.get("blkid") or ""))[:40]
        try:
            self._entries = _entries(header.partition_table) if header.partition_table else {}
            partitions = known_partitions(source.get("partitions"))
            if len(partitions) > PARTITION_LIMIT:
                raise ImagingError(f"It has {len(partitions)} partitions; the most are {PARTITION_LIMIT}.")
            self._places = [_place(each) for each in partitions if _is_inside(each, disk_size)]
            # On a disk of another size, a RAID with metadata at the end is not found any more, which is intended.
            same_end = disk_size == header.geometry.disk_size
            if source.get("seen") is not None and (same_end or not header.partition_table):
                self._places.insert(
                    0, _Place(name="the disk as a whole", offset=0, size=0, expected=parse_facts(source["seen"]))
                )
        except ImagingError as error:
            raise ImagingError(
                f"The image's header is not valid: {error} Nothing was written. Capture the reference again."
            ) from error

    def compare(self, run: RunCommand, disk: str, poll: Callable[[], None]) -> Comparison:
        """Compare what sfdisk and blkid find on a disk, which may be held; ``poll`` is called in between, and may raise to end it."""
        result = Comparison()
        if self._entries:
            self._compare_tables(run, disk, result)
        version = blkid_version(run)
        for place in self._places:
            poll()
            try:
                self._compare_place(run, disk, place, version, result)
            except MissingTool as error:
                result.doubts.append(str(error).rstrip("."))
                break
            except ImagingError as error:
                result.doubts.append(f"{place.name}: {str(error).rstrip('.')}")
        return result

    def _compare_tables(self, run: RunCommand, disk: str, result: Comparison) -> None:
        try:
            table = read_partition_table(run, disk)
            found: Entries = _entries(table.raw) if table else {}
        except ImagingError as error:
            result.doubts.append(str(error).rstrip("."))
            return
        for name in sorted({*self._entries, *found}):
            here, there = self._entries.get(name), found.get(name)
            if here != there:
                result.differences.append(f"{name}: expected {_words(here)}, found {_words(there)}")

    def _compare_place(self, run: RunCommand, disk: str, place: _Place, version: str, result: Comparison) -> None:
        if place.partial and not place.expected.type:
            return
        found = place.part_of(detect(run, disk, place.offset, place.size))
        if found == place.expected:
            return
        sentence = f"{place.name}: expected {describe_content(place.expected)}, found {describe_content(found)}"
        if (version and version == self._blkid) or contradicts(place.expected, found):
            result.differences.append(sentence)
        else:
            known = self._blkid or "unknown"
            result.doubts.append(f"{sentence} (blkid is {version or 'unknown'} here, and was {known} on the reference)")


@contextmanager
def comparing(view: ExpectedView, run: RunCommand, disk: str) -> Iterator[Callable[[Callable[[], None]], Comparison]]:
    """Compare in a thread of its own; yields a function that waits for the result and calls its argument meanwhile, which may raise.

    Nobody else may use ``run`` until the context ends.
    """
    ended = threading.Event()

    def poll() -> None:
        if ended.is_set():
            raise ImagingError("Nobody waits for the comparison any more.")

    def wait(meanwhile: Callable[[], None]) -> Comparison:
        while not result.done():
            futures.wait([result], PAUSE)
            meanwhile()
        return result.result()

    with futures.ThreadPoolExecutor(1, thread_name_prefix="view") as pool:
        result: futures.Future[Comparison] = pool.submit(view.compare, run, disk, poll)
        try:
            yield wait
        finally:
            ended.set()


def _is_inside(partition: Mapping[str, Any], disk_size: int) -> bool:
    """Return whether a partition lies on the disk completely; the content of others can't be seen."""
    start, size = partition["start"], partition["size"]
    return bool(start >= 0 and size > 0 and start + size <= disk_size)


def _place(partition: Mapping[str, Any]) -> _Place:
    name, start, size = f"partition {partition['number']}", partition["start"], partition["size"]
    if partition.get("seen") is not None:
        return _Place(name=name, offset=start, size=size, expected=parse_facts(partition["seen"]))
    texts = {key: partition.get(key) or "" for key in ("content", "label")}
    # Older images contain only content and label. An empty content may also mean that it was unknown.
    expected = parse_facts({**facts_of(Content()), "type": texts["content"], "label": texts["label"]})
    return _Place(name=name, offset=start, size=size, expected=expected, partial=True)


def _entries(table: Mapping[str, Any]) -> Entries:
    """Return those facts of a table from sfdisk that all its versions report alike; raises ImagingError."""
    entries = {"the partition table": _texts(table, "label", "id")}
    partitions = table.get("partitions", [])
    if not isinstance(partitions, list) or len(partitions) > PARTITION_LIMIT:
        raise ImagingError("Its partition table has no list of partitions, or one that is too long.")
    for each in partitions:
        number = re.search(r"[0-9]{1,5}$", str(each.get("node", ""))) if isinstance(each, Mapping) else None
        if number is None:
            raise ImagingError(
                f"Its partition table has the partition {str(each)[:200]!r}, whose number can't be determined."
            )
        row = _texts(each, "start", "size", "type", "uuid")
        if row["type"] == f"{PROTECTIVE_TYPE:x}":
            row["size"] = ""  # sfdisk lets it end with the disk, whatever its size
        name = printable(str(each.get("name", "")))[:80]
        entries[f"partition {number.group()} of the table"] = {**row, "type": row["type"].lstrip("0"), "name": name}
    return entries


def _texts(value: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: printable(str(value.get(name, "")))[:80].lower() for name in names}


def _words(entry: Mapping[str, str] | None) -> str:
    return " ".join(f"{key}={value}" for key, value in (entry or {}).items() if value) or "none"
