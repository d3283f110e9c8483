# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links over real sockets, and what somebody in between may do to them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import (
    LAPTOP,
    THE_CONTROLLER,
    Credentials,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import (
    HEAD,
    Kind,
    Link,
    LinkError,
    SocketChannel,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.listener import HANDSHAKES, Listener
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import connect_tls
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS, Timeouts
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.ends import (
    CONTROLLER_CREDENTIALS,
    CREDENTIALS,
    LAB_01,
    LAB_02,
    channel_pair,
    connect,
    shaken,
)


def silent_for(seconds: float) -> Timeouts:
    """A link breaks after so many seconds without a byte."""
    return Timeouts(min_silence=seconds, max_silence=seconds)


def linked(timeouts: Timeouts = DEFAULTS) -> tuple[Link, Link]:
    """Two ends of one link."""
    left, right = shaken(*channel_pair())
    return Link(left, LAB_01, timeouts), Link(right, THE_CONTROLLER, timeouts)


def test_messages_arrive_in_order_with_their_bodies() -> None:
    left, right = linked()
    left.send(Kind.WANT, b"one")
    left.send(Kind.RECORD, b"header", b"frame")
    right.send(Kind.DONE)
    assert right.receive().payload == b"one"
    message = right.receive()
    body = memoryview(bytearray(message.body_size))
    right.receive_body(body)
    assert (message.payload, bytes(body)) == (b"header", b"frame")
    assert left.receive().kind == Kind.DONE


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(HEAD.pack(0, 0, 0), id="kind 0"),
        pytest.param(HEAD.pack(255, 0, 0), id="unknown kind"),
        pytest.param(HEAD.pack(Kind.WANT, (64 << 10) + 1, 0), id="a payload too large"),
        pytest.param(HEAD.pack(Kind.RECORD, 10, (32 << 20) + 1), id="a body too large"),
        pytest.param(HEAD.pack(Kind.WANT, 5, 1) + b"first!", id="a body where there is none"),
        pytest.param(HEAD.pack(Kind.WANT, 5, 0) + b"firs", id="cut"),
        pytest.param(HEAD.pack(Kind.WANT, 5, 0)[:-1], id="a head cut"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_message_breaks_a_link(message: bytes) -> None:
    left, right = shaken(*channel_pair())
    receiver = Link(right, THE_CONTROLLER)
    left.sendall(message)
    left.close()
    with pytest.raises(LinkError):
        receiver.receive()
    assert receiver.closed


def test_silence_breaks_a_link() -> None:
    left, _right = shaken(*channel_pair())
    link = Link(left, LAB_01, silent_for(0.3))
    with pytest.raises(LinkError):
        link.receive()


def test_slow_is_not_silent() -> None:
    left, right = linked(silent_for(0.5))
    size = 12 << 20
    threading.Thread(target=lambda: left.send(Kind.RECORD, b"header", bytes(size)), daemon=True).start()
    message = right.receive()
    body = memoryview(bytearray(message.body_size))
    began = time.monotonic()
    for start in range(0, size, 1 << 20):
        time.sleep(0.1)
        right.receive_body(body[start : start + (1 << 20)])
    assert time.monotonic() - began > 2 * 0.5


def test_giving_up_takes_moments_even_when_the_other_end_does_not_read() -> None:
    left, _right = linked()
    left.send(Kind.RECORD, b"header", bytes(1 << 20))

    def send() -> None:
        with contextlib.suppress(LinkError):
            left.send(Kind.RECORD, b"header", bytes(16 << 20))

    threading.Thread(target=send, daemon=True).start()
    time.sleep(0.3)
    began = time.monotonic()
    left.end("enough")
    assert time.monotonic() - began < 3 * DEFAULTS.linger
    assert left.closed


def test_heartbeats_keep_an_idle_link() -> None:
    left, right = linked(silent_for(0.6))
    threading.Timer(1.5, lambda: left.send(Kind.DONE)).start()
    assert right.receive().kind == Kind.DONE


def listener(timeouts: Timeouts = DEFAULTS) -> Listener:
    return Listener("127.0.0.1", 0, CREDENTIALS[LAB_01], timeouts)


def dial(server: Listener, credentials: Credentials = CONTROLLER_CREDENTIALS) -> Link:
    return Link(connect(server.port, credentials), LAB_01)


def test_of_many_links_only_the_newest_is_kept() -> None:
    server = listener()
    links = [dial(server) for dummy in range(20)]
    deadline = time.monotonic() + 5
    kept = links
    while len(kept) > 1 and time.monotonic() < deadline:
        kept = [link for link in kept if not _is_closed(link)]
        time.sleep(0.05)
    assert kept == links[-1:]
    server.next_link(1).close()
    assert not server.link_waits()
    server.close()
    links[-1].close()


def _is_closed(link: Link) -> bool:
    try:
        link.poll()
    except LinkError:
        return True
    return False


def test_the_controller_gets_a_link() -> None:
    server = listener()
    mine = dial(server)
    theirs = server.next_link(5)
    mine.send(Kind.WANT, b"hello")
    assert theirs.receive().payload == b"hello"
    theirs.send(Kind.DONE)
    assert mine.receive().kind == Kind.DONE
    server.close()


@pytest.mark.parametrize(
    "greeting",
    [b"", b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100, b"\x16\x03\x01\x01\x00", b"\x16\x03\x01\x00\x04\x01\x00\xff\xff"],
)
def test_strangers_do_not_keep_the_controller_out(greeting: bytes) -> None:
    server = listener()
    strangers = []
    for dummy in range(HANDSHAKES + 40):
        stranger = socket.create_connection(("127.0.0.1", server.port))
        stranger.sendall(greeting)
        strangers.append(stranger)
    began = time.monotonic()
    mine = dial(server)
    server.next_link(5)
    assert time.monotonic() - began < 3
    mine.close()
    for stranger in strangers:
        stranger.close()
    server.close()


RECORD_HEAD = b"\x16\x03\x01\x40\x00"
"""Of a record with 16 KiB of a handshake (RFC 8446, 5.1)."""

HELLO_HEAD = b"\x01\xff\xff\xff"
"""Of a ClientHello of 16 MiB (RFC 8446, 4)."""


@pytest.mark.parametrize("piece", [pytest.param(1, id="slow"), pytest.param(16 << 10, id="fast")])
def test_an_endless_handshake_is_cut_off(piece: int) -> None:
    """Byte by byte, by the time; as fast as possible, by its size."""
    server = listener(Timeouts(handshake=0.5))
    stranger = socket.create_connection(("127.0.0.1", server.port))
    began = time.monotonic()
    stranger.sendall(RECORD_HEAD + HELLO_HEAD)
    with pytest.raises(OSError):
        while time.monotonic() - began < 5:
            stranger.sendall(bytes(piece))
            time.sleep(0.1 if piece == 1 else 0)
    assert time.monotonic() - began < 2
    server.close()


def test_a_new_link_supersedes_the_old_one() -> None:
    server = listener()
    dial(server)
    old = server.next_link(5)
    mine = dial(server)
    with pytest.raises(LinkError):
        old.receive()
    mine.send(Kind.DONE)
    assert server.next_link(5).receive().kind == Kind.DONE
    server.close()


def test_an_older_connection_that_proves_itself_late_does_not_supersede_a_newer_one() -> None:
    server = listener()
    go_on = threading.Event()

    class Slow(SocketChannel):
        """Says hello at once and proves itself later."""

        flights = 0

        def sendall(self, data: bytes | memoryview, /) -> None:
            self.flights += 1
            if self.flights == 2:
                go_on.wait(5)
            super().sendall(data)

    slow = Slow(socket.create_connection(("127.0.0.1", server.port)))
    late = threading.Thread(target=lambda: connect_tls(slow, CONTROLLER_CREDENTIALS.context(server_side=False), LAB_01))
    late.start()
    newer = dial(server)
    theirs = server.next_link(5)
    go_on.set()
    late.join()
    assert slow.recv_into(memoryview(bytearray(1))) == 0
    newer.send(Kind.DONE)
    assert theirs.receive().kind == Kind.DONE
    server.close()


def test_links_to_other_ends_are_kept() -> None:
    server = Listener("127.0.0.1", 0, CREDENTIALS[LAB_01], expected=lambda name: True)
    first, other = dial(server), dial(server, CREDENTIALS[LAB_02])
    links = {name: server.next_link(5, name.role) for name in (THE_CONTROLLER, LAB_02)}
    assert all(link.peer == name for name, link in links.items())
    second = dial(server)
    with pytest.raises(LinkError):
        links[THE_CONTROLLER].receive()
    assert not server.link_waits(LAPTOP)
    other.send(Kind.DONE)
    assert links[LAB_02].receive().kind == Kind.DONE
    links[LAB_02].send(Kind.DONE)
    assert other.receive().kind == Kind.DONE
    assert server.next_link(5) is not links[THE_CONTROLLER]
    for link in (first, other, second):
        link.close()
    server.close()


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    server = listener()
    with pytest.raises(ImagingError, match=f"Port {server.port} is in use.*imaging_port") as caught:
        Listener("127.0.0.1", server.port, CREDENTIALS[LAB_01])
    assert caught.value.facts["codes"] == ["port_in_use"]
    server.close()


def test_a_closed_listener_leaves_no_thread() -> None:
    before = threading.active_count()
    server = listener()
    socket.create_connection(("127.0.0.1", server.port))
    time.sleep(0.1)
    server.close()
    deadline = time.monotonic() + 3
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
