# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laptops that mean harm, and what stands in a laptop's place, over real sockets: no disk is wrong, and the others go on."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.record import RecordHeader
from ansible_collections.fleet.imaging.plugins.module_utils.serving.peers import Place
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import want
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Credentials, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, LinkError, TcpChannel
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Upstream
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import accept_tls, connect_tls
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils import run_authority
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.upstreams import DAMAGE
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_authority import Authority

from ...module_utils.samples import CHUNK, STREAM, geometry, noise
from .fleet import Laptop, Run, SlowSource, made_run

CHUNKS = 200
SIZE = CHUNKS * CHUNK
DISK = noise(SIZE, 6)
BLANK = bytes(SIZE)
LAB_00 = Name(LAPTOP, "lab-00")


class QuickSource(SlowSource):
    """Sends an image in a second."""

    rate = 200.0


@pytest.fixture(name="run")
def fixture_run(tmp_path: Path) -> Run:
    run = made_run(tmp_path, DISK, Timeouts(link_timeout=6.0, first_link=4.0, peer_connect=0.5, peer_idle=2.5))
    run.source = QuickSource
    return run


def taken_from(run: Run, host: str) -> int:
    """Bytes that all laptops took from one."""
    return sum(laptop.received_from.get(host, 0) for laptop in run.laptops)


class Impostor:
    """Listens in a laptop's place, and does what it is told to with each connection."""

    def __init__(self, behave: Callable[[socket.socket], object]) -> None:
        self.connections = 0
        self.believed = False
        """Whether somebody asked it for chunks."""
        self._behave = behave
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, LinkError):
            if self._behave(connection):
                self.believed = True

    def close(self) -> None:
        self._socket.close()


def with_certificate(credentials: Credentials) -> Callable[[socket.socket], bool]:
    """Prove to be somebody, and return whether that is believed."""

    def behave(connection: socket.socket) -> bool:
        channel = TcpChannel(connection)
        name, tls = accept_tls(channel, credentials.context(server_side=True), lambda _name: True, 5)
        return Link(tls, name).receive().kind == Kind.WANT

    return behave


def shake_hands_for_ever(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB of a handshake (RFC 8446, 5.1)
    while True:
        connection.sendall(b"\x02")
        time.sleep(0.05)


def expired(authority: Authority, name: Name, monkeypatch: pytest.MonkeyPatch) -> Credentials:
    """A certificate of this run's authority that is valid no more."""
    with monkeypatch.context() as patched:
        patched.setattr(run_authority, "LAST_MOMENT", datetime(2001, 1, 1))
        return authority.issue(name)


IMPOSTORS: dict[str, Callable[[Run, pytest.MonkeyPatch], Callable[[socket.socket], object]]] = {
    "foreign certificate": lambda run, patch: with_certificate(Authority().issue(LAB_00)),
    "expired certificate": lambda run, patch: with_certificate(expired(run.authority, LAB_00, patch)),
    "stolen certificate": lambda run, patch: with_certificate(run.authority.issue(Name(LAPTOP, "lab-07"))),
    "endless handshake": lambda run, patch: shake_hands_for_ever,
    "never answers": lambda run, patch: lambda connection: time.sleep(60),
}


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_an_impostor_gets_no_request_and_costs_a_moment(run: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    impostor = Impostor(IMPOSTORS[kind](run, monkeypatch))
    run.port_of = lambda laptop, port: impostor.port if laptop.name == LAB_00.host else port
    run.begin(BLANK)
    for _number in range(2):
        run.add(BLANK)
    run.join(30)
    began = time.monotonic()
    with pytest.raises(LinkError):
        run.laptops[1].relay._connect(Upstream(LAB_00.host, "127.0.0.1", impostor.port))
    assert time.monotonic() - began < 2 * run.timeouts.peer_connect + 2
    impostor.close()
    assert impostor.connections > 1
    assert not impostor.believed and taken_from(run, LAB_00.host) == 0
    assert any(host == LAB_00.host for laptop in run.laptops[1:] for host, _code in laptop.left)
    assert run.restored() == [True] * 3
    # The one that has taken the impostor's place as a head passes on what it gets.
    assert run.images() < 2.5


def test_the_real_laptop_in_the_same_place_is_asked(run: Run) -> None:
    """What the test above would see if an impostor were believed."""
    real = Impostor(with_certificate(run.authority.issue(LAB_00)))
    run.port_of = lambda laptop, port: real.port if laptop.name == LAB_00.host else port
    run.begin(BLANK)
    run.add(BLANK)
    run.join(30)
    real.close()
    assert real.believed and run.restored() == [True] * 2


@contextlib.contextmanager
def dropping() -> Iterator[int]:
    """A port of a firewall that drops what arrives: the kernel does so when its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _number in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def test_where_a_firewall_drops_what_laptops_send_each_other_it_is_said_once(run: Run) -> None:
    with dropping() as port:
        run.port_of = lambda laptop, _port: port
        for _number in range(4):
            run.add(BLANK)
        run.join(30)
    assert run.restored() == [True] * 4
    assert run.images() == 4.0
    warnings = [warning for laptop in run.laptops for warning in laptop.warnings]
    assert len(set(warnings)) == 1 and "can't connect to one another" in warnings[0]
    assert len(warnings) <= 4


def evil(run: Run, spoil: Callable[[Callable[..., Any], int, Any], Any]) -> Laptop:
    """Start a first laptop that sends what ``spoil`` makes of each record; it is called with what finds records, a chunk, and the disk."""
    first = run.begin(BLANK)
    share = first.relay._share
    honest = share.find
    share.find = lambda chunk, disk: spoil(honest, chunk, disk)
    return first


def another_frame(find: Callable[..., Any], chunk: int, disk: Any) -> Any:
    """The record of a chunk with the frame of the first one, and the header as it was."""
    record, other = find(chunk, disk), find(0, disk)
    return record and other and (record[0], other[1])


def another_chunk(find: Callable[..., Any], chunk: int, disk: Any) -> Any:
    """The record of the first chunk, whole and sound, under the number of the one that was asked for."""
    return _forged(find(0, disk), chunk)


def own_content(find: Callable[..., Any], chunk: int, disk: Any) -> Any:
    """A record of content of its own, of which all hashes are right but the index's."""
    record = find(chunk, disk)
    return record and _forged(record, chunk, content_hash=hashlib.sha256(b"mine").digest())


def _forged(record: Any, chunk: int, **more: Any) -> Any:
    if record is None:
        return None
    header = RecordHeader.unpack(record[0], geometry(SIZE), STREAM)
    return replace(header, chunk=chunk, **more).pack(), record[1]


@pytest.mark.parametrize("spoil", [another_frame, another_chunk, own_content])
def test_a_record_that_is_not_the_images_is_never_written_and_its_sender_is_named(
    run: Run, spoil: Callable[..., Any]
) -> None:
    evil(run, spoil)
    second = run.add(BLANK)
    run.join(30)
    assert run.restored() == [True, True]
    assert any("lab-00 sent damaged data to lab-01" in warning for warning in second.warnings), second.warnings
    assert ("lab-00", DAMAGE) in second.left
    assert taken_from(run, "lab-00") < 0.2 * run.image_size()


def test_a_laptop_that_replays_a_record_for_ever_is_left(run: Run) -> None:
    evil(run, lambda find, chunk, disk: find(0, disk))
    second = run.add(BLANK)
    begin = time.monotonic()
    second.join(30)
    assert run.restored()[1]
    assert time.monotonic() - begin < CHUNKS / QuickSource.rate + 12
    run.join(30)
    assert run.restored() == [True, True]


def test_a_laptop_that_denies_what_it_has_costs_no_more_than_none(run: Run) -> None:
    first = evil(run, lambda find, chunk, disk: None)
    first.relay._share.place = lambda chunk: Place.NOWHERE
    second = run.add(BLANK)
    run.join(30)
    assert run.restored() == [True, True]
    assert second.received_from == {} and run.images() < 2.1


@pytest.mark.parametrize("ranges", [[(0, CHUNKS)], [(CHUNKS, CHUNKS + 1)]], ids=["all and reads nothing", "no chunk"])
def test_a_laptop_that_asks_for_harm_keeps_its_neighbour_from_nothing(run: Run, ranges: list[tuple[int, int]]) -> None:
    first = run.begin(BLANK)
    thief = run.authority.issue(Name(LAPTOP, "lab-07"))
    with socket.create_connection(("127.0.0.1", first.session._listener.port), 5) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link = Link(connect_tls(TcpChannel(raw), thief.context(server_side=False), LAB_00, 5), LAB_00)
        want(link, ranges)
        second = run.add(BLANK)
        run.join(30)
        link.close()
    assert run.restored() == [True, True]
    assert second.received_from.get("lab-00", 0) > 0 and run.images() < 1.8


def test_a_laptop_of_another_run_gets_nothing_although_it_knows_the_authority(run: Run) -> None:
    first = run.begin(BLANK)
    stranger = replace(Authority().issue(Name(LAPTOP, "lab-01")), authority=run.authority.controller.authority)
    with socket.create_connection(("127.0.0.1", first.session._listener.port), 5) as raw:
        channel = connect_tls(TcpChannel(raw), stranger.context(server_side=False), LAB_00, 5)
        link = Link(channel, LAB_00)
        with pytest.raises(LinkError):
            want(link, [(0, CHUNKS)])
            link.receive()
    run.join(30)
    assert run.restored() == [True] and first.relay.sent == 0


def test_runs_whose_laptops_are_told_of_each_other_do_not_meet(run: Run, tmp_path: Path) -> None:
    """They have other images, the same names, and a board that can't be shared in fact."""
    (tmp_path / "other").mkdir()
    other = made_run(tmp_path / "other", noise(SIZE, 7), run.timeouts)
    other.source = QuickSource
    other.open_board = run.open_board  # type: ignore[method-assign]
    for _number in range(2):
        run.add(BLANK)
        other.add(BLANK)
    run.join(30)
    other.join(30)
    assert run.restored() == other.restored() == [True, True]
