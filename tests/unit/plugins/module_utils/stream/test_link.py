# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links over real sockets, and what somebody in between may do to them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Callable

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.stream import link as link_module
from ansible_collections.fleet.imaging.plugins.module_utils.stream.handshake import SECRET_SIZE, connect_handshake
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import (
    HEAD,
    Keys,
    Kind,
    Link,
    LinkError,
    SocketChannel,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.listener import (
    CONTROLLER,
    HANDSHAKES,
    ControllerGone,
    Listener,
)
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS, Timeouts

SECRET = bytes(range(32))
SECRETS = {CONTROLLER: SECRET}


def pair() -> tuple[SocketChannel, SocketChannel]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _address = server.accept()
    return SocketChannel(left), SocketChannel(right)


def silent_for(seconds: float) -> Timeouts:
    """A link breaks after so many seconds without a byte."""
    return Timeouts(min_silence=seconds, max_silence=seconds)


def linked(timeouts: Timeouts = DEFAULTS) -> tuple[Link, Link]:
    """Two ends of one link."""
    left, right = pair()
    return Link(left, Keys(b"a" * 32, b"b" * 32), timeouts), Link(right, Keys(b"b" * 32, b"a" * 32), timeouts)


def through(change: Callable[[bytes], bytes]) -> tuple[Link, SocketChannel]:
    """A receiving link, and a raw channel to it; ``change`` is what happens to three messages on the way."""
    left, right = pair()
    sender_raw, tap = pair()
    sender = Link(sender_raw, Keys(b"a" * 32, b"b" * 32))
    sender.send(Kind.WANT, b"first")
    sender.send(Kind.WANT, b"second")
    sender.send(Kind.WANT, b"third")
    recorded = bytearray(3 * (HEAD.size + 32) + 16)
    link_module.receive_exactly(tap, memoryview(recorded))
    sender.close()
    left.sendall(change(bytes(recorded)))
    return Link(right, Keys(b"b" * 32, b"a" * 32)), left


FIRST = HEAD.size + 5 + 32
SECOND = FIRST + HEAD.size + 6 + 32


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
    "change",
    [
        pytest.param(lambda data: data[FIRST:], id="dropped"),
        pytest.param(lambda data: data[:FIRST] + data[:FIRST], id="replayed"),
        pytest.param(lambda data: data[FIRST:SECOND] + data[:FIRST], id="reordered"),
        pytest.param(lambda data: data[: HEAD.size] + b"F" + data[HEAD.size + 1 :], id="altered payload"),
        pytest.param(lambda data: bytes([Kind.DESCRIBE]) + data[1:], id="altered kind"),
        pytest.param(lambda data: b"\xff" + data[1:], id="unknown kind"),
        pytest.param(lambda data: data[:1] + b"\xff\xff\xff\xff" + data[5:], id="absurd length"),
        pytest.param(lambda data: data[:5] + b"\x01\x00\x00\x00" + data[9:], id="body where there is none"),
        pytest.param(lambda data: data[: FIRST - 1] + bytes([data[FIRST - 1] ^ 1]) + data[FIRST:], id="altered tag"),
        pytest.param(lambda data: os.urandom(200), id="random"),
    ],
)
def test_whoever_sits_in_between_is_noticed(change: Callable[[bytes], bytes]) -> None:
    receiver, raw = through(change)
    with pytest.raises(LinkError):
        for dummy in range(3):
            receiver.receive()
    raw.close()
    assert receiver.closed


def test_reflected_messages_are_noticed() -> None:
    left, right = pair()
    link = Link(left, Keys(b"a" * 32, b"b" * 32))
    link.send(Kind.PING)
    echo = bytearray(HEAD.size + 32)
    link_module.receive_exactly(right, memoryview(echo))
    right.sendall(bytes(echo))
    with pytest.raises(LinkError, match="tag"):
        link.receive()


def test_silence_breaks_a_link() -> None:
    left, _right = pair()
    link = Link(left, Keys(b"a" * 32, b"b" * 32), silent_for(0.3))
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
    return Listener("127.0.0.1", 0, SECRETS, timeouts)


def dial(server: Listener, secret: bytes = SECRET) -> Link:
    channel = SocketChannel(socket.create_connection(("127.0.0.1", server.port)))
    return Link(channel, connect_handshake(channel, secret))


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


def test_who_knows_the_secret_gets_a_link() -> None:
    server = listener()
    mine = dial(server)
    theirs = server.next_link(5)
    mine.send(Kind.WANT, b"hello")
    assert theirs.receive().payload == b"hello"
    theirs.send(Kind.DONE)
    assert mine.receive().kind == Kind.DONE
    server.close()


def test_who_does_not_is_told_nothing() -> None:
    server = listener()
    with pytest.raises(LinkError):
        dial(server, b"x" * 32)
    with pytest.raises(ControllerGone):
        server.next_link(0.2)
    server.close()


def test_a_listener_without_the_secret_is_not_believed() -> None:
    impostor = Listener("127.0.0.1", 0, {CONTROLLER: b"y" * 32})
    with pytest.raises(LinkError):
        dial(impostor)
    impostor.close()


def test_a_replayed_handshake_is_refused() -> None:
    server = listener()
    tapped = bytearray()

    class Tap(SocketChannel):
        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock)
            send = self.sendall

            def sendall(data: bytes) -> None:
                tapped.extend(data)
                send(data)

            self.sendall = sendall  # type: ignore[assignment]

    connect_handshake(Tap(socket.create_connection(("127.0.0.1", server.port))), SECRET)
    server.next_link(5)
    again = socket.create_connection(("127.0.0.1", server.port))
    again.sendall(tapped)
    with pytest.raises(ControllerGone):
        server.next_link(0.5)
    again.close()
    server.close()


@pytest.mark.parametrize(
    "greeting", [b"", b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100, b"FLIMLNK1", b"FLIMLNK1" + b"n" * 32 + b"z" * 32]
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


def test_a_slow_drip_is_cut_off() -> None:
    server = listener(Timeouts(handshake=0.5))
    stranger = socket.create_connection(("127.0.0.1", server.port))
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < 5:
            stranger.sendall(b"F")
            time.sleep(0.1)
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

        def sendall(self, data: bytes | memoryview, /) -> None:
            if len(data) == SECRET_SIZE:
                go_on.wait(5)
            super().sendall(data)

    slow = Slow(socket.create_connection(("127.0.0.1", server.port)))
    late = threading.Thread(target=lambda: connect_handshake(slow, SECRET))
    late.start()
    newer = dial(server)
    theirs = server.next_link(5)
    go_on.set()
    late.join()
    assert slow.recv_into(memoryview(bytearray(1))) == 0
    newer.send(Kind.DONE)
    assert theirs.receive().kind == Kind.DONE
    server.close()


def test_links_of_other_roles_are_kept() -> None:
    others = b"o" * 32
    server = Listener("127.0.0.1", 0, {CONTROLLER: SECRET, "other": others})
    first, other = dial(server), dial(server, others)
    links = {"controller": server.next_link(5), "other": server.next_link(5, "other")}
    second = dial(server)
    with pytest.raises(LinkError):
        links["controller"].receive()
    assert not server.link_waits("other")
    other.send(Kind.DONE)
    assert links["other"].receive().kind == Kind.DONE
    links["other"].send(Kind.DONE)
    assert other.receive().kind == Kind.DONE
    assert server.next_link(5) is not links["controller"]
    for link in (first, other, second):
        link.close()
    server.close()


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    server = listener()
    with pytest.raises(ImagingError, match=f"Port {server.port} is in use.*imaging_port") as caught:
        Listener("127.0.0.1", server.port, SECRETS)
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
