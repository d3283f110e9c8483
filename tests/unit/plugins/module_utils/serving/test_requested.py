# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk whose records are made when laptops ask for them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.index import NO_HASH, Index, Row
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import (
    IMAGE_ID_SIZE,
    USED,
    RecordHeader,
    pack_ranges,
)
from ansible_collections.fleet.imaging.plugins.module_utils.serving import requested
from ansible_collections.fleet.imaging.plugins.module_utils.serving.requested import AHEAD, RequestedShare
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import PeerEnded, raise_end, want
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, LinkError, SocketChannel
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import unpack_lack

from ..samples import CHUNK, geometry

CHUNKS = 40
USED_CHUNKS = CHUNKS - 1
"""The last chunk is not used."""
MEASURES = geometry(CHUNKS * CHUNK)
IMAGE_ID = bytes(IMAGE_ID_SIZE)
HASH = b"h" * 32
BIG = bytes(CHUNK)
"""A frame that fills the buffer of a connection."""


def record(chunk: int, frame: bytes) -> RecordHeader:
    return RecordHeader(
        chunk=chunk,
        flags=USED,
        ranges=pack_ranges([(0, CHUNK)], CHUNK),
        content_size=CHUNK,
        content_hash=HASH,
        frame_size=len(frame),
        frame_hash=bytes(32),
        image_id=IMAGE_ID,
    )


class Maker:
    """A share, and a thread that makes its records."""

    def __init__(self, frame: bytes, unhashed: Collection[int] = ()) -> None:
        index = self.index = Index(MEASURES)
        for chunk in range(USED_CHUNKS):
            row = replace(Row.of(record(chunk, frame)), frame_size=len(frame))
            index.append(replace(row, content_hash=NO_HASH) if chunk in unhashed else row)
        self.share = RequestedShare(index)
        self.made: list[int] = []
        self.may_make = threading.Event()
        self.may_make.set()
        self._frame = frame
        self._links = ExitStack()
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def _make(self) -> None:
        for chunk in self.share.wanted():
            self.may_make.wait(30)
            self.made.append(chunk)
            self.share.add(record(chunk, self._frame), self._frame)

    def connect(self, name: str) -> Link:
        """Return a laptop's end of a link to the share."""
        ends = [self._links.enter_context(end) for end in socket.socketpair()]
        ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK // 2)  # the kernel doubles it
        self.share.serve(Link(SocketChannel(ends[0]), Name(LAPTOP, name)))
        return Link(SocketChannel(ends[1]), Name(LAPTOP, "reference"))

    def close(self) -> None:
        self.share.close()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._links.close()


@contextmanager
def making(frame: bytes = b"x" * 100, unhashed: Collection[int] = ()) -> Iterator[Maker]:
    maker = Maker(frame, unhashed)
    try:
        yield maker
    finally:
        maker.close()


def receive(link: Link, count: int) -> set[int]:
    """Return the chunks of so many records."""
    chunks = set()
    for _number in range(count):
        message = link.receive()
        assert message.kind == Kind.RECORD
        link.receive_body(memoryview(bytearray(message.body_size)))
        chunks.add(RecordHeader.unpack(message.payload, MEASURES, IMAGE_ID).chunk)
    return chunks


def test_a_record_is_made_once_for_all_that_wait_for_it() -> None:
    with making() as maker:
        maker.may_make.clear()
        links = [maker.connect(f"lab-{number}") for number in range(5)]
        for link in links:
            want(link, [(0, CHUNKS)])
        # The chunk that is not used is answered when the request has arrived.
        for link in links:
            message = link.receive()
            assert message.kind == Kind.LACK and unpack_lack(message.payload) == [CHUNKS - 1]
        maker.may_make.set()
        assert [receive(link, USED_CHUNKS) for link in links] == [set(range(USED_CHUNKS))] * 5
        assert sorted(maker.made) == list(range(USED_CHUNKS))


def test_no_record_is_made_of_a_chunk_that_was_not_hashed() -> None:
    with making(unhashed={5}) as maker:
        link = maker.connect("early")
        want(link, [(5, 6)])
        assert unpack_lack(link.receive().payload) == [5] and maker.made == []
        maker.index.set_hash(5, USED, HASH)
        want(link, [(5, 6)])
        assert receive(link, 1) == {5}


def test_a_laptop_that_takes_nothing_holds_up_no_other_one() -> None:
    with making(BIG) as maker:
        stopped, other = maker.connect("stopped"), maker.connect("other")
        want(stopped, [(0, 20)])
        want(other, [(20, USED_CHUNKS)])
        assert receive(other, USED_CHUNKS - 20) == set(range(20, USED_CHUNKS))
        # Beside those that wait, one was sent, one is being sent, and one may have been begun.
        assert len([chunk for chunk in maker.made if chunk < 20]) <= AHEAD + 3


def test_what_leaves_the_window_before_it_was_sent_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested, "WINDOW", 150)
    with making() as maker:
        links = [maker.connect(f"lab-{number}") for number in range(3)]
        for number, link in enumerate(links):
            want(link, [(10 * number, 10 * number + 10)])
        for number, link in enumerate(links):
            assert receive(link, 10) == set(range(10 * number, 10 * number + 10))


def test_too_many_laptops_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested, "MAX_TAKERS", 2)
    with making() as maker:
        first, _second, third = (maker.connect(name) for name in ("one", "two", "three"))
        with pytest.raises(LinkError):
            third.receive()
        want(first, [(0, 1)])
        assert receive(first, 1) == {0}


def test_laptops_are_told_why_nothing_more_comes() -> None:
    with making() as maker:
        early = maker.connect("early")
        maker.share.end("The disk has changed.")
        for link in (early, maker.connect("late")):
            with pytest.raises(PeerEnded, match=r"The disk has changed\."):
                raise_end(link.receive())
            link.close()


def test_whoever_makes_records_can_stop() -> None:
    with making() as maker:
        maker.share.stop()
        maker._thread.join(30)
        assert not maker._thread.is_alive() and not maker.share.ended
