# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A laptop waits neither for the controller nor for another laptop for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import USED, RecordHeader
from ansible_collections.fleet.imaging.plugins.module_utils.sources.base import NotSent, Pace
from ansible_collections.fleet.imaging.plugins.module_utils.sources.peers import PeerSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import CHUNK as CHUNK_NUMBER
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import (
    HEAD,
    Kind,
    Link,
    LinkError,
    SocketChannel,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss, Upstream, lack
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS

from ..samples import CHUNK, STREAM, geometry

CHUNKS = 8
HEADER = ImageHeader(geometry(CHUNKS * CHUNK), STREAM, "2026-01-02T03:04:05Z", None, {})
UPSTREAM = Upstream("lab-01", "198.18.0.10", 19000)
TIMEOUTS = replace(DEFAULTS, peer_named=0.3, peer_idle=0.5)
ROOM = memoryview(bytearray(2 * CHUNK))


class Peers:
    """A source, the other laptop's end of its link, and what was told to the controller."""

    def __init__(self) -> None:
        self.losses: list[Loss] = []
        self.near, self.far = socket.socketpair()
        self.far.settimeout(5)
        self.connect: Callable[[Upstream], Link] = lambda upstream: Link(
            SocketChannel(self.near), Name(LAPTOP, upstream.host), TIMEOUTS.between_laptops
        )
        self.source = PeerSource(self._connect, HEADER, self.losses.append, TIMEOUTS)
        self.source.start()

    def _connect(self, upstream: Upstream) -> Link:
        return self.connect(upstream)

    def lost(self, seconds: float = 5.0) -> list[int]:
        """Receive until requested chunks are given up, and return them."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with pytest.raises(NotSent) as caught:
                self.source.receive(ROOM)
            if caught.value.chunks:
                return caught.value.chunks
        raise AssertionError("requests wait for ever")

    def wait_for_loss(self) -> str:
        """Receive until the controller is told of a loss, and return the reason."""
        deadline = time.monotonic() + 5
        while not self.losses and time.monotonic() < deadline:
            with pytest.raises(NotSent):
                self.source.receive(ROOM)
        (loss,) = self.losses
        assert loss.host == UPSTREAM.host and not loss.damage
        return loss.reason


@pytest.fixture(name="peers")
def fixture_peers() -> Iterator[Peers]:
    peers = Peers()
    yield peers
    peers.source.stop()
    peers.near.close()
    peers.far.close()


def test_without_an_answer_of_the_controller_chunks_are_not_waited_for(peers: Peers) -> None:
    assert peers.source.has(1)
    peers.source.request([1, 2])
    assert peers.lost() == [1, 2]
    assert peers.source.unused and not peers.source.has(1)
    # The answer still counts when it comes late.
    peers.source.assign(UPSTREAM)
    assert peers.source.has(1)


def test_after_a_loss_without_an_answer_chunks_are_not_waited_for(peers: Peers) -> None:
    peers.source.assign(UPSTREAM)
    peers.source.request([1, 2])
    peers.far.close()
    assert peers.lost() == [1, 2]
    assert len(peers.losses) == 1 and peers.losses[0].reached


def test_a_laptop_that_lives_and_sends_nothing_is_left(peers: Peers) -> None:
    other = Link(SocketChannel(peers.far), Name(LAPTOP, "lab-00"), TIMEOUTS, heartbeat=0.1)
    peers.source.assign(UPSTREAM)
    peers.source.request([1, 2])
    assert "has sent nothing that it was asked for" in peers.wait_for_loss()
    assert peers.lost() == [1, 2]
    other.close()


def test_lacking_what_nobody_asked_for_takes_no_memory_and_keeps_no_laptop(peers: Peers) -> None:
    other = Link(SocketChannel(peers.far), Name(LAPTOP, "lab-00"), TIMEOUTS, heartbeat=0.1)
    peers.source.assign(UPSTREAM)
    peers.source.request([1])
    lack(other, range(5, 16000))
    lack(other, [1])
    assert peers.lost() == [1]
    assert not peers.source.has(1) and peers.source.has(5)
    assert len(peers.source._lacking) == 1
    other.close()


def record(chunk: int) -> tuple[bytes, bytes]:
    """A record of a chunk with its frame, which nothing here looks into."""
    size = 100
    header = RecordHeader(chunk, USED, b"", CHUNK, bytes(32), size, bytes(32), STREAM)
    return header.pack(), bytes(size)


@pytest.mark.parametrize("kind", [Kind.RECORD, Kind.LACK], ids=["records that came before", "chunks that it lacks"])
def test_a_laptop_that_only_repeats_itself_is_left(peers: Peers, kind: Kind) -> None:
    other = Link(SocketChannel(peers.far), Name(LAPTOP, "lab-00"), TIMEOUTS)
    peers.source.assign(UPSTREAM)
    peers.source.request([1, 2])
    message = record(1) if kind == Kind.RECORD else (CHUNK_NUMBER.pack(1),)

    def repeat() -> None:
        with contextlib.suppress(LinkError):
            while True:
                other.send(kind, *message)

    threading.Thread(target=repeat, daemon=True).start()
    deadline = time.monotonic() + 5
    while not peers.losses and time.monotonic() < deadline:
        with contextlib.suppress(NotSent):
            peers.source.receive(ROOM)
    (loss,) = peers.losses
    assert loss.host == UPSTREAM.host and "has sent nothing that it was asked for" in loss.reason
    assert peers.lost() == [2]


def test_what_fails_while_a_link_is_made_is_a_loss(peers: Peers) -> None:
    def connect(_upstream: Upstream) -> Link:
        raise MemoryError("no room")

    peers.connect = connect
    peers.source.assign(UPSTREAM)
    peers.source.request([1])
    assert peers.wait_for_loss() == "MemoryError: no room"
    assert peers.lost() == [1]


def test_a_laptop_that_reads_nothing_holds_no_request_up(peers: Peers) -> None:
    peers.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peers.source.assign(UPSTREAM)
    assert peers.source._download is not None
    deadline = time.monotonic() + 5
    while peers.source._download._link is None and time.monotonic() < deadline:
        time.sleep(0.01)
    begin = time.monotonic()
    for _time in range(4):
        peers.source.request(range(0, 16000, 2))
    assert time.monotonic() - begin < 0.5 * TIMEOUTS.peer_silence
    assert peers.wait_for_loss()


def test_a_request_is_sent_once_the_link_is_there(peers: Peers) -> None:
    other = Link(SocketChannel(peers.far), Name(LAPTOP, "lab-00"), TIMEOUTS)
    peers.source.request([1, 2])
    peers.source.assign(UPSTREAM)
    assert other.receive().kind == Kind.WANT
    other.close()


def test_the_time_before_a_record_begins_to_arrive_does_not_count() -> None:
    near, far = socket.socketpair()
    link = Link(SocketChannel(near), Name(LAPTOP, "lab-00"), TIMEOUTS)

    def send() -> None:
        time.sleep(0.2)
        far.sendall(HEAD.pack(Kind.RECORD, 1, 2) + b"xy")
        time.sleep(0.1)
        far.sendall(b"z")

    began = time.monotonic()
    threading.Thread(target=send).start()
    link.receive()
    link.receive_body(memoryview(bytearray(2)))
    assert 0 < link.body_seconds <= time.monotonic() - began - 0.2
    link.close()
    far.close()


def test_the_pace_follows_the_latest_records() -> None:
    pace = Pace()
    assert pace.rate == 0.0
    for _number in range(20):
        pace.add(100, 1.0)
    assert pace.rate == pytest.approx(100.0)
    for _number in range(20):
        pace.add(100, 0.1)
    assert pace.rate == pytest.approx(1000.0, rel=0.2)
