# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is let in, and what somebody in between can do, with the real TLS over real sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import (
    LAPTOP,
    THE_CONTROLLER,
    Credentials,
    Name,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import (
    Kind,
    Link,
    LinkError,
    SocketChannel,
    receive_exactly,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.listener import ControllerGone, Listener
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import TlsChannel, connect_tls
from ansible_collections.fleet.imaging.plugins.plugin_utils import run_authority
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_authority import Authority
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.ends import (
    AUTHORITY,
    CONTROLLER_CREDENTIALS,
    CREDENTIALS,
    LAB_01,
    LAB_02,
    channel_pair,
    connect,
    shaken,
    socket_pair,
)

OTHER_RUN = Authority()
YEARS = 365.25 * 24 * 3600
OPENSSL = shutil.which("openssl")


@pytest.fixture(name="listener")
def fixture_listener() -> Iterator[Listener]:
    listener = Listener("127.0.0.1", 0, CREDENTIALS[LAB_01])
    yield listener
    listener.close()


@pytest.mark.parametrize("name", [THE_CONTROLLER, LAB_01, Name(LAPTOP, "ü/ %:\n" + 100 * "x"), Name(LAPTOP, "a" * 250)])
def test_a_name_survives_its_certificate(name: Name) -> None:
    """Inventories have names of any characters, longer than a common name may be."""
    assert Name.from_uri(name.uri) == name
    shaken(*channel_pair(), AUTHORITY.issue(name), expected=lambda found: found == name)


NO_NAMES = (
    "",
    ":",
    "https:laptop/a",
    "controller/",
    "controller\n",
    "laptop",
    "laptop/",
    "laptop/a/b",
    "laptop/%ff",
    "root/a",
)


@pytest.mark.parametrize("uri", [*NO_NAMES, *(f"fleet.imaging:{end}" for end in NO_NAMES)])
def test_what_is_no_name_is_refused(uri: str) -> None:
    with pytest.raises(ValueError):
        Name.from_uri(uri)


@pytest.mark.parametrize("names", [(), (("DNS", "lab-01"),), 2 * (("URI", LAB_01.uri),)])
def test_a_certificate_has_one_name(names: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ValueError):
        Name.from_certificate({"subjectAltName": names})


def expired(name: Name) -> Credentials:
    """A certificate of this run's authority that is valid no more."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_authority, "LAST_MOMENT", datetime(2001, 1, 1))
        return AUTHORITY.issue(name)


STRANGERS = {
    "the controller, once": expired(THE_CONTROLLER),
    "another run's controller": OTHER_RUN.controller,
    "another run's laptop of this name": OTHER_RUN.issue(LAB_01),
    "another run's certificate with this run's authority": replace(
        OTHER_RUN.controller, authority=AUTHORITY.controller.authority
    ),
    "a laptop of this run": CREDENTIALS[LAB_02],
    "the laptop itself": CREDENTIALS[LAB_01],
}


@pytest.mark.parametrize("who", STRANGERS)
def test_only_the_controller_of_this_run_is_let_in(listener: Listener, who: str) -> None:
    """TLS 1.3 lets who connects finish before it is refused; so nothing that it says may be heard."""
    stranger = replace(STRANGERS[who], authority=AUTHORITY.controller.authority)
    channel = connect(listener.port, stranger)
    channel.settimeout(5)
    with contextlib.suppress(OSError):  # it may be refused by then
        Link(channel, LAB_01).send(Kind.DESCRIBE)
    with pytest.raises(LinkError):
        receive_exactly(channel, memoryview(bytearray(1)))
    with pytest.raises(ControllerGone):
        listener.next_link(0.1)


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(OTHER_RUN.issue(LAB_01), id="another run's laptop of this name"),
        pytest.param(CREDENTIALS[LAB_02], id="another laptop's, stolen"),
        pytest.param(expired(LAB_01), id="the laptop's own, expired"),
        pytest.param(CONTROLLER_CREDENTIALS, id="the controller's, which never listens"),
    ],
)
def test_only_the_laptop_of_this_name_is_believed(credentials: Credentials) -> None:
    impostor = Listener("127.0.0.1", 0, credentials, expected=lambda name: True)
    with pytest.raises(LinkError, match=r"no certificate of this run|another one was expected"):
        connect(impostor.port)
    impostor.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(b"", "closed the link during the handshake", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "another program uses the port", id="another program"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28", "another program uses the port", id="an alert"),
    ],
)
def test_what_is_no_end_of_this_run_is_named(answer: bytes, said: str) -> None:
    near, far = channel_pair()
    far.sendall(answer)
    far.end_sending()
    with pytest.raises(LinkError, match=said):
        connect_tls(near, CONTROLLER_CREDENTIALS.context(server_side=False), LAB_01, 5)


def test_laptops_know_one_another_by_their_certificates() -> None:
    listener = Listener("127.0.0.1", 0, CREDENTIALS[LAB_01], expected=lambda name: name.role == LAPTOP)
    mine = Link(connect(listener.port, CREDENTIALS[LAB_02]), LAB_01)
    theirs = listener.next_link(5, LAPTOP)
    assert theirs.peer == LAB_02
    mine.send(Kind.DONE)
    assert theirs.receive().kind == Kind.DONE
    listener.close()
    mine.close()


def plain(_credentials: Credentials) -> ssl.SSLContext:
    """A client that trusts anybody, has no certificate, and speaks any version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def tls_1_2(credentials: Credentials) -> ssl.SSLContext:
    """The controller with an older TLS."""
    context = credentials.context(server_side=False)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize("make", [plain, tls_1_2], ids=["no certificate", "TLS 1.2"])
def test_no_certificate_and_no_older_tls_get_in(
    listener: Listener, make: Callable[[Credentials], ssl.SSLContext]
) -> None:
    client = make(CONTROLLER_CREDENTIALS)
    with socket.create_connection(("127.0.0.1", listener.port), 5) as sock, pytest.raises(
        (ssl.SSLError, ConnectionError)
    ):
        client.wrap_socket(sock).recv(1)
    with pytest.raises(ControllerGone):
        listener.next_link(0.1)


def test_a_session_is_never_resumed() -> None:
    connected, accepted = shaken(*channel_pair())
    accepted.sendall(b"x")
    connected.recv_into(memoryview(bytearray(1)))
    session = connected._tls.session
    assert session is None or not session.has_ticket


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl")
@pytest.mark.parametrize("years", [-30, 30, 5000])
def test_a_clock_may_be_wrong_by_decades(tmp_path: Path, years: int) -> None:
    """Another program, which can be told another time, takes either end's place, and so does OpenSSL's at the other end."""
    now = time.time() + years * YEARS
    for name, credentials in (("laptop", CREDENTIALS[LAB_01]), ("controller", CONTROLLER_CREDENTIALS)):
        (tmp_path / f"{name}.pem").write_text(credentials.key + credentials.certificate)
    (tmp_path / "authority.pem").write_text(CONTROLLER_CREDENTIALS.authority)
    listener = Listener("127.0.0.1", 0, CREDENTIALS[LAB_01])
    command = [OPENSSL or "", "s_client", "-connect", f"127.0.0.1:{listener.port}", "-tls1_3", "-attime", str(int(now))]
    files = ["-CAfile", "authority.pem", "-cert", "controller.pem", "-key", "controller.pem", "-verify_return_error"]
    done = subprocess.run(
        [*command, *files, "-brief"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert b"Verification: OK" in done.stderr, done.stderr
    listener.next_link(5)
    listener.close()
    for name in ("laptop", "controller"):
        purpose = "sslserver" if name == "laptop" else "sslclient"
        verify = [OPENSSL or "", "verify", "-attime", str(int(now)), "-x509_strict", "-purpose", purpose]
        subprocess.run([*verify, "-CAfile", "authority.pem", f"{name}.pem"], cwd=tmp_path, check=True)


def test_credentials_that_are_none_are_refused_and_nothing_asks_for_a_password() -> None:
    whole = CREDENTIALS[LAB_01]
    locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n"
    descriptors = len(os.listdir("/proc/self/fd"))
    for wrong in (
        replace(whole, key=CREDENTIALS[LAB_02].key),
        replace(whole, key=locked),
        replace(whole, key="x" * 100_000),
        replace(whole, certificate=""),
        replace(whole, certificate="ü"),
        replace(whole, authority=""),
    ):
        with pytest.raises(ImagingError, match="Run again"):
            wrong.context(server_side=True)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert whole.key not in repr(whole)


class Tap:
    """Stands between two ends, keeps what passes from the near one to the far one, and may change or cut it."""

    def __init__(self) -> None:
        self.near, left = channel_pair()
        right, self.far = channel_pair()
        self.passed = bytearray()
        self.flip = self.cut = sys.maxsize
        """The byte that is changed; the one before which the connection is cut."""
        for source, target, counted in ((left, right, True), (right, left, False)):
            threading.Thread(target=self._pump, args=(source, target, counted), daemon=True).start()

    def _pump(self, source: SocketChannel, target: SocketChannel, counted: bool) -> None:
        room = memoryview(bytearray(1 << 16))
        with contextlib.suppress(OSError):
            while count := source.recv_into(room):
                data = bytearray(room[:count])
                if counted:
                    start, self.passed[len(self.passed) :] = len(self.passed), data
                    if start <= self.flip < len(self.passed):
                        data[self.flip - start] ^= 1
                    if self.cut < len(self.passed):
                        target.sendall(bytes(data[: self.cut - start]))
                        break
                target.sendall(bytes(data))
        source.close()
        target.close()


def test_nothing_can_be_read_on_the_way() -> None:
    tap = Tap()
    connected, accepted = shaken(tap.near, tap.far)
    secret = b"the content of somebody's disk"
    connected.sendall(secret)
    room = memoryview(bytearray(len(secret)))
    receive_exactly(accepted, room)
    assert bytes(room) == secret and secret not in tap.passed and LAB_01.host.encode() not in tap.passed


@pytest.mark.parametrize("where", [0, 4, 5, 12, 1000, 16_000, 50_000])
@pytest.mark.parametrize("what", ["flip", "cut"])
def test_a_changed_byte_and_a_cut_break_the_link(what: str, where: int) -> None:
    """In the head of a record, in its content, in a later record. What came before is right."""
    tap = Tap()
    connected, accepted = shaken(tap.near, tap.far)
    setattr(tap, what, len(tap.passed) + where)
    data = os.urandom(60_000)
    with contextlib.suppress(OSError):
        connected.sendall(data)
    accepted.settimeout(5)
    room, done, count = memoryview(bytearray(len(data))), 0, 1
    try:
        while count:
            count = accepted.recv_into(room[done:])
            done += count
        ended = True
    except ssl.SSLError:
        ended = False
    assert what == "cut" or not ended  # older versions of Python take a cut for an end
    assert bytes(room[:done]) == data[:done] and done <= where


def test_a_replayed_connection_gets_nowhere(listener: Listener) -> None:
    tap = Tap()
    shaken(tap.near, tap.far)
    with socket.create_connection(("127.0.0.1", listener.port)) as again:
        again.sendall(tap.passed)
        with pytest.raises(ControllerGone):
            listener.next_link(0.3)


def test_both_directions_carry_all_at_full_rate_from_two_threads_each() -> None:
    left, right = shaken(*channel_pair())
    total, piece = 48 << 20, 3 << 20
    content = os.urandom(piece)
    wrong: list[str] = []

    def send(channel: TlsChannel) -> None:
        for _number in range(total // piece):
            channel.sendall(content)

    def receive(channel: TlsChannel) -> None:
        room = memoryview(bytearray(piece))
        for number in range(total // piece):
            receive_exactly(channel, room)
            if bytes(room) != content:
                wrong.append(f"piece {number}")

    for channel in (left, right):
        channel.settimeout(20)
    work = [(send, left), (send, right), (receive, left), (receive, right)]
    threads = [threading.Thread(target=target, args=(channel,)) for target, channel in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_writer_is_not_kept_waiting_by_a_reader() -> None:
    left, right = shaken(*channel_pair())
    room = memoryview(bytearray(1))
    reader = threading.Thread(target=left.recv_into, args=(room,))
    reader.start()
    left.settimeout(5)
    left.sendall(b"question")
    receive_exactly(right, memoryview(bytearray(8)))
    right.sendall(b"!")
    reader.join(5)
    assert bytes(room) == b"!"


def test_readable_means_that_a_byte_of_content_has_arrived() -> None:
    near, far = socket_pair()
    connected, accepted = shaken(SocketChannel(near), SocketChannel(far))
    assert not accepted.readable()
    connected.sendall(b"x" * 40_000)
    room = memoryview(bytearray(39_999))
    receive_exactly(accepted, room)
    assert accepted.readable(), "decrypted, but not taken"
    receive_exactly(accepted, room[:1])
    assert not accepted.readable()
    # Half of a record is nothing to read yet.
    tls = connected._tls
    tls.write(b"y" * 100)
    record = connected._leaving.read()
    near.sendall(record[:50])
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        assert not accepted.readable()
    near.sendall(record[50:])
    deadline = time.monotonic() + 5
    while not accepted.readable() and time.monotonic() < deadline:
        time.sleep(0.01)
    receive_exactly(accepted, room[:100])
    assert bytes(room[:100]) == b"y" * 100
    near.close()
    assert _becomes_readable(accepted)
    with pytest.raises(LinkError):
        receive_exactly(accepted, room)


def _becomes_readable(channel: TlsChannel) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if channel.readable():
            return True
        time.sleep(0.01)
    return False


def test_a_half_that_is_closed_still_lets_the_other_one_speak() -> None:
    left, right = shaken(*channel_pair())
    left.sendall(b"the last word")
    left.end_sending()
    room = memoryview(bytearray(13))
    receive_exactly(right, room)
    right.sendall(b"heard")
    receive_exactly(left, room[:5])
    assert bytes(room[:5]) == b"heard"
    with pytest.raises(LinkError):
        receive_exactly(right, room)
