# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversation of a probe over a real socket, and what a false end may say."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from typing import Callable

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import PeerEnded
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import (
    Keys,
    Kind,
    Link,
    LinkError,
    SocketChannel,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.probe import (
    AMOUNT,
    HEAD,
    LARGEST_CONTENT,
    MOST_KIB,
    MOST_MILLISECONDS,
    RANDOM_PIECE,
    Carried,
    Piece,
    ask_to_measure,
    end_probe,
    measure_from_laptop,
    measure_to_laptop,
    serve_probe,
)


def linked() -> tuple[Link, Link]:
    """Two ends of one link."""
    left, right = socket.socketpair()
    return (
        Link(SocketChannel(left), Keys(b"a" * 32, b"b" * 32)),
        Link(SocketChannel(right), Keys(b"b" * 32, b"a" * 32)),
    )


class Laptop:
    """The laptop's end, in a thread."""

    def __init__(self, link: Link, problem: str = "") -> None:
        self._problem = problem
        self.measured = 0
        self.taken: list[tuple[int, bytes]] = []
        self.sent: Carried | None = None
        self.received: Carried | None = None
        self.error: ImagingError | None = None
        self._thread = threading.Thread(target=self._serve, args=(link,), daemon=True)
        self._thread.start()

    def _serve(self, link: Link) -> None:
        try:
            serve_probe(link, self)
        except LinkError as error:
            self.error = error
            link.close()
        except ImagingError as error:
            self.error = error
            link.end(str(error))

    def measure(self) -> None:
        """Count."""
        self.measured += 1
        if self._problem:
            raise ImagingError(self._problem)

    def take(self, content_size: int, body: memoryview) -> None:
        """Keep it."""
        self.taken.append((content_size, bytes(body)))

    def carried(self, sent: Carried | None, received: Carried | None) -> None:
        """Keep it."""
        self.sent = sent or self.sent
        self.received = received or self.received

    def ended(self) -> ImagingError | None:
        """What ended it, once it has."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.error


def test_a_whole_probe() -> None:
    near, far = linked()
    laptop = Laptop(far)
    ask_to_measure(near)
    assert laptop.measured == 1
    came = measure_from_laptop(near, 20 * RANDOM_PIECE, 10.0)
    # The first piece only starts the clock.
    assert came.size == 19 * RANDOM_PIECE
    assert came.rate > 0
    assert laptop.sent is not None
    assert laptop.sent.size == 20 * RANDOM_PIECE
    frames = [Piece(os.urandom(70000), 4 << 20), Piece(os.urandom(50000), 1 << 20)]
    went = measure_to_laptop(near, frames, 1 << 20, 10.0)
    assert [size for size, _body in laptop.taken[:3]] == [4 << 20, 1 << 20, 4 << 20]
    assert laptop.taken[1][1] == frames[1].body
    assert laptop.received is not None
    assert laptop.received.size == sum(len(body) for _size, body in laptop.taken[1:])
    assert went.size == laptop.received.size >> 10 << 10
    assert went.seconds == pytest.approx(laptop.received.seconds, abs=1e-6)
    end_probe(near)
    assert laptop.ended() is None


def test_time_ends_what_the_amount_does_not() -> None:
    near, far = linked()
    laptop = Laptop(far)
    came = measure_from_laptop(near, MOST_KIB << 10, 0.2)
    assert 0 < came.size < MOST_KIB << 10
    assert came.seconds == pytest.approx(0.2, abs=0.15)
    end_probe(near)
    assert laptop.ended() is None


def test_a_single_piece_is_measured_too() -> None:
    near, far = linked()
    laptop = Laptop(far)
    came = measure_from_laptop(near, 1024, 10.0)
    assert (came.size, came.rate > 0) == (RANDOM_PIECE, True)
    end_probe(near)
    assert laptop.ended() is None


def test_what_the_laptop_cannot_measure_ends_the_probe_with_its_reason() -> None:
    near, far = linked()
    laptop = Laptop(far, "/dev/sdx can't be read.")
    with pytest.raises(PeerEnded, match="/dev/sdx can't be read"):
        ask_to_measure(near)
    assert "can't be read" in str(laptop.ended())


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (lambda link: link.send(Kind.WANT, AMOUNT.pack(MOST_KIB + 1, 1000)), "no probe needs"),
        (lambda link: link.send(Kind.WANT, AMOUNT.pack(0, 1000)), "no probe needs"),
        (lambda link: link.send(Kind.WANT, AMOUNT.pack(100, MOST_MILLISECONDS + 1)), "no probe needs"),
        (lambda link: link.send(Kind.WANT, b"123"), "can't be read"),
        (lambda link: link.send(Kind.RECORD, b"123", b"body"), "can't be read"),
        (lambda link: link.send(Kind.RECORD, HEAD.pack(LARGEST_CONTENT + 1, bytes(32)), b"body"), "no chunk has"),
        (lambda link: link.send(Kind.RECORD, HEAD.pack(0, bytes(32)), b"body"), "arrived damaged"),
        (lambda link: link.send(Kind.DAMAGED, b"1234"), "out of turn"),
        (lambda link: link.close(), "closed the link"),
    ],
)
def test_a_laptop_believes_nothing_that_no_controller_says(say: Callable[[Link], None], why: str) -> None:
    near, far = linked()
    laptop = Laptop(far)
    with contextlib.suppress(LinkError):  # it may be gone before everything is said
        say(near)
    error = laptop.ended()
    assert isinstance(error, LinkError)
    assert why in str(error)
    near.close()


def answer(far: Link, *messages: tuple[Kind, bytes, bytes]) -> None:
    """Say these messages, whatever is asked."""
    for kind, payload, body in messages:
        far.send(kind, payload, body)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ((Kind.RECORD, b"short", b"body"), "can't be read"),
        ((Kind.RECORD, HEAD.pack(0, bytes(32)), b"body"), "damaged"),
        ((Kind.KEPT, b"", b""), "out of turn"),
        ((Kind.RECORD, HEAD.pack(0, hashlib.sha256(b"body").digest()), b"body"), "out of turn"),
    ],
)
def test_a_controller_believes_no_false_laptop(message: tuple[Kind, bytes, bytes], why: str) -> None:
    near, far = linked()
    answer(far, message, (Kind.HEADER, b"", b""))
    with pytest.raises(LinkError, match=why):
        measure_from_laptop(near, 1 << 20, 1.0)
    for link in (near, far):
        link.close()


def test_a_laptop_that_says_it_got_more_than_was_sent_is_not_believed() -> None:
    near, far = linked()
    answer(far, (Kind.PROGRESS, AMOUNT.pack(1 << 20, 1), b""))
    with pytest.raises(LinkError, match="more came to it than was sent"):
        measure_to_laptop(near, [Piece(b"x" * 1000)], 1000, 1.0)
    for link in (near, far):
        link.close()


def test_nothing_measured_is_no_rate() -> None:
    assert Carried(0, 0.0).rate == 0.0
    assert Carried(0, 1.0, 1.0).cpu == 0.0
    assert Carried(100, 2.0, 1.0).cpu == 0.01
