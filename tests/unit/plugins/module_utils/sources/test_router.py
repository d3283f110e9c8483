# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asked for which chunk, by sources that read images."""

from __future__ import annotations

from collections import deque
from typing import Any, NoReturn, Sequence

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import RecordHeader
from ansible_collections.fleet.imaging.plugins.module_utils.sources.base import SourceFailed
from ansible_collections.fleet.imaging.plugins.module_utils.sources.router import BAD_LIMIT, Router

from ..samples import CHUNK, Used, make_image, noise, scratch_name

CHUNKS = 12
ROOM = memoryview(bytearray(2 * CHUNK))


class Shelf:
    """A source that has some chunks of an image, and fails when it has given so many."""

    max_requests = 3
    idle = False
    """Whether nothing arrives from it."""

    def __init__(self, name: str, reader: ImageReader, chunks: Sequence[int] = range(CHUNKS), most: int = 1000) -> None:
        self.name = self.stage = name
        self._reader = reader
        self._chunks = chunks
        self._most = most
        self._pending: deque[deque[int]] = deque()
        self.asked: list[int] = []
        self.closed = 0

    def has(self, chunk: int) -> bool:
        return chunk in self._chunks

    def request(self, chunks: Sequence[int]) -> None:
        self.asked += chunks
        self._pending.append(deque(chunks))

    def receive(self, buffer: memoryview) -> RecordHeader | None:
        if not self._pending[0]:
            self._pending.popleft()
            return None
        if not self._most:
            raise SourceFailed(f"{self.name} is empty.")
        self._most -= 1
        row = self._reader.index.find(self._pending[0].popleft())
        assert row is not None
        record = self._reader.record(row)
        buffer[: len(record.frame)] = record.frame
        return record.header

    def leave_sender(self, chunk: int, error: ImagingError) -> bool:
        return False

    def close(self) -> None:
        self.closed += 1
        self._pending.clear()

    def ready(self) -> bool:
        return not self.idle

    def reject(self, chunk: int, error: ImagingError) -> NoReturn:
        raise ImagingError(f"{self.name} lied: {error}")


@pytest.fixture(name="reader")
def fixture_reader(tmp_path: object) -> ImageReader:
    path = scratch_name(tmp_path, "i.img.zst")
    make_image(path, noise(CHUNKS * CHUNK), Used((0, CHUNKS * CHUNK)))
    return ImageReader(FileSource(path))


def routed(*sources: Any) -> tuple[Router, list[str]]:
    warnings: list[str] = []
    return Router(sources[:-1], sources[-1], CHUNKS, warnings.append), warnings


def take(router: Router) -> list[int]:
    """The chunks that come until nothing is under way."""
    found = []
    while router.in_flight:
        header = router.receive(ROOM)
        if header is not None:
            found.append(header.chunk)
    return found


def test_the_first_source_that_has_a_chunk_is_asked(reader: ImageReader) -> None:
    first, second, last = Shelf("first", reader, (1, 2)), Shelf("second", reader, (2, 3)), Shelf("last", reader)
    router, warnings = routed(first, second, last)
    router.request([1, 2, 3, 4])
    assert sorted(take(router)) == [1, 2, 3, 4]
    assert (first.asked, second.asked, last.asked) == ([1, 2], [3], [4])
    sizes = {chunk: reader.index.row_at(chunk).frame_size for chunk in (1, 2, 3, 4)}
    assert router.frame_bytes() == {"first": sizes[1] + sizes[2], "second": sizes[3], "last": sizes[4]}
    assert warnings == [] and router.take_lost() == []


def test_what_waits_on_the_last_source_is_taken_first(reader: ImageReader) -> None:
    router, _warnings = routed(Shelf("first", reader, (0, 1, 2)), Shelf("last", reader))
    router.request([0, 1, 2, 8, 9])
    assert take(router) == [8, 9, 0, 1, 2]
    assert router.stage == "first"


def test_no_source_waits_for_what_the_last_one_has_not_sent(reader: ImageReader) -> None:
    last = Shelf("last", reader)
    router, _warnings = routed(Shelf("first", reader, (0, 1, 2)), last)
    router.request([0, 1, 2, 8, 9])
    last.idle = True
    headers = [router.receive(ROOM) for _time in range(3)]
    assert [header and header.chunk for header in headers] == [0, 1, 2]
    last.idle = False
    assert take(router) == [8, 9]


def test_what_a_source_fails_to_send_is_lost_and_it_is_not_asked_again(reader: ImageReader) -> None:
    first, last = Shelf("first", reader, most=4), Shelf("last", reader)
    router, warnings = routed(first, last)
    router.request([0, 1, 2])
    router.request([3, 4, 5])
    assert take(router) == [0, 1, 2, 3]
    lost = router.take_lost()
    assert sorted(lost) == [4, 5]
    router.request(sorted(lost))
    assert take(router) == [4, 5]
    assert (first.asked, last.asked) == ([0, 1, 2, 3, 4, 5], [4, 5])
    assert warnings == ["first is empty. The last sent what was still missing."]


def test_where_several_sources_are_left_none_of_them_is_named(reader: ImageReader) -> None:
    router, warnings = routed(Shelf("first", reader, most=0), Shelf("second", reader, most=0), Shelf("last", reader))
    router.request([0])
    assert take(router) == []
    router.request(router.take_lost())
    assert take(router) == []
    assert warnings == [
        "first is empty. Other sources sent what was still missing.",
        "second is empty. The last sent what was still missing.",
    ]


def test_a_rejected_chunk_is_asked_of_the_next_source_and_a_source_of_many_is_left(reader: ImageReader) -> None:
    first, last = Shelf("first", reader), Shelf("last", reader)
    router, warnings = routed(first, last)
    for chunk in range(BAD_LIMIT):
        router.request([chunk, chunk + 5])
        assert take(router) == [chunk, chunk + 5]
        router.reject(chunk, ImagingError("damaged"))
        assert router.take_lost() == [chunk]
        router.request([chunk])
        assert take(router) == [chunk]
        assert last.asked == list(range(chunk + 1))
    router.request([9])
    take(router)
    assert last.asked[-1] == 9
    assert len(warnings) == 1 and f"{BAD_LIMIT} records that can't be used" in warnings[0]


def test_what_the_last_source_sent_wrong_is_its_own_matter(reader: ImageReader) -> None:
    router, _warnings = routed(Shelf("last", reader))
    router.request([3])
    take(router)
    with pytest.raises(ImagingError, match="last lied: damaged"):
        router.reject(3, ImagingError("damaged"))


def test_what_is_under_way_is_bounded(reader: ImageReader) -> None:
    router, _warnings = routed(Shelf("first", reader), Shelf("last", reader))
    for chunk in range(Shelf.max_requests):
        assert router.has_room
        router.request([chunk])
    assert not router.has_room
    take(router)
    assert router.has_room and not router.in_flight


def test_after_an_interruption_nothing_is_under_way_and_nobody_is_blamed(reader: ImageReader) -> None:
    first, last = Shelf("first", reader, most=0), Shelf("last", reader)
    router, warnings = routed(first, last)
    router.request([1, 2])
    router.interrupt()
    assert (first.closed, last.closed) == (1, 0)
    router.restart()
    assert not router.in_flight and warnings == [] and router.take_lost() == []
