# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading ranges from HTTP servers as they are: quick, slow, silent, forgetful."""

from __future__ import annotations

import itertools
import os
import random
import socket
import ssl
import subprocess
import threading
import time
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import MAX_GAP_SIZE, Unreadable
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import (
    FileChanged,
    HttpFile,
    HttpLocation,
    NoFile,
    Patience,
    image_url,
)

from ..range_server import RangeServer, serving

SIZE = 3 << 20
CONTENT = random.Random(3).getrandbits(8 * SIZE).to_bytes(SIZE, "little")
SILENCE = 0.4


@pytest.fixture(name="server")
def fixture_server(tmp_path: Any) -> Iterator[RangeServer]:
    (tmp_path / "file").write_bytes(CONTENT)
    with serving(str(tmp_path)) as server:
        yield server


def opened(server: RangeServer) -> HttpFile:
    file = HttpFile(HttpLocation(url=f"{server.url}/file"), SILENCE)
    file.open()
    return file


def test_what_is_read_is_what_is_there(server: RangeServer) -> None:
    file, chance = opened(server), random.Random(1)
    assert (file.size, file.fileno()) == (SIZE, -1)
    for dummy in range(60):
        start = chance.randrange(SIZE - 1)
        size = chance.choice((1, 100, 70000, SIZE - start))
        file.plan(start, min(SIZE, start + chance.choice((size, 2 * size, SIZE))))
        assert file.read_range(start, min(size, SIZE - start)) == CONTENT[start : start + size]
    assert server.connections < 60


def test_what_was_planned_is_one_request_over_small_gaps_and_is_left_for_large_ones(server: RangeServer) -> None:
    file = opened(server)
    server.ranges.clear()
    file.plan(1000, SIZE)
    for start in (1000, 2000, 2000 + MAX_GAP_SIZE):
        assert file.reaches(start) == (start > 1000)
        assert file.read_range(start, 900) == CONTENT[start : start + 900]
    assert server.ranges == [(1000, SIZE)]
    assert not file.reaches(2900 + 2 * MAX_GAP_SIZE) and not file.reaches(0)
    assert file.read_range(2 << 20, 5) == CONTENT[2 << 20 : (2 << 20) + 5]
    assert server.ranges[1:] == [(2 << 20, SIZE)]


def test_a_server_that_closes_after_each_answer_is_asked_over_new_connections(server: RangeServer) -> None:
    def close_then(handler: Any) -> bool:
        handler.close_connection = True
        return False

    file = opened(server)
    server.answer = close_then
    for start in range(0, 5000, 1000):
        assert file.read_range(start, 10) == CONTENT[start : start + 10]


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_silent_server_is_given_up() -> None:
    with listening() as silent:
        began = time.monotonic()
        with pytest.raises(Unreadable, match="too slow"):
            HttpFile(HttpLocation(url=f"http://127.0.0.1:{silent.getsockname()[1]}/x"), SILENCE).open()
        assert SILENCE <= time.monotonic() - began < 5 * SILENCE


def test_a_server_that_drips_is_given_up(server: RangeServer) -> None:
    file = opened(server)

    def drip(offset: int, data: bytes) -> bytes:
        time.sleep(SILENCE / 4)
        return data

    server.spoil = drip
    began = time.monotonic()
    with pytest.raises(Unreadable, match="too slow"):
        file.read_range(0, 200000)
    assert time.monotonic() - began < 5 * SILENCE


@pytest.fixture(name="certificate", scope="module")
def fixture_certificate(tmp_path_factory: Any) -> str:
    """The path of a certificate of 127.0.0.1 that nobody but itself has signed, and of its key."""
    path = str(tmp_path_factory.mktemp("tls") / "both.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mirror"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    with open(path, "a", encoding="ascii") as both, open(f"{path}.crt", encoding="ascii") as part:
        both.write(part.read())
    return path


def test_over_tls_the_certificate_counts(certificate: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(str(tmp_path), tls=tls) as server:
        with pytest.raises(Unreadable, match="CERTIFICATE_VERIFY_FAILED"):
            opened(server)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        file = opened(server)
        assert file.read_range(5, SIZE - 5) == CONTENT[5:]

        def redirect(handler: Any) -> bool:
            handler.send_response(302)
            handler.send_header("Location", "http://127.0.0.1/file")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        server.answer = redirect
        with pytest.raises(Unreadable, match="after https with https"):
            file.read_range(0, 5)


def test_a_clients_certificate_is_shown_to_its_own_server_alone(certificate: str, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    tls.load_verify_locations(certificate)
    tls.verify_mode = ssl.CERT_OPTIONAL
    shown: list[tuple[str, bool]] = []

    def note(name: str, then: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def answer(handler: Any) -> bool:
            shown.append((name, handler.connection.getpeercert(True) is not None))
            return then(handler)

        return answer

    with open(certificate, encoding="ascii") as file:
        pem = file.read()
    with serving(str(tmp_path), tls=tls) as home, serving(str(tmp_path), tls=tls) as abroad:
        home.answer = note("home", refuse(302, Location=f"{abroad.url}/file"))
        abroad.answer = note("abroad", lambda handler: False)
        location = HttpLocation(url=f"{home.url}/file", ca=pem, certificate=pem, key=pem)
        assert HttpFile(location, SILENCE).read_range(5, 10) == CONTENT[5:15]
    assert shown == [("home", True), ("abroad", False)]


def test_a_read_that_waits_is_stopped_by_another_thread(server: RangeServer) -> None:
    file = HttpFile(HttpLocation(url=f"{server.url}/file"), 60.0)
    file.open()

    def wait(handler: Any) -> bool:
        time.sleep(3)
        return True

    server.answer = wait
    threading.Timer(0.2, file.stop).start()
    began = time.monotonic()
    with pytest.raises(Unreadable):
        file.read_range(0, 10)
    assert time.monotonic() - began < 2
    server.answer = lambda handler: False
    file.restart()
    assert file.read_range(7, 3) == CONTENT[7:10]


def refuse(status: int, times: int = 1 << 30, **headers: str) -> Callable[[Any], bool]:
    """Make what answers so often with a status and without a body."""
    left = itertools.repeat(True, times)

    def answer(handler: Any) -> bool:
        if not next(left, False):
            return False
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        return True

    return answer


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"'])
def test_a_file_that_is_replaced_is_noticed(server: RangeServer, etag: str) -> None:
    server.etag = etag
    file = opened(server)
    assert file.version == etag and file.read_range(5, 10) == CONTENT[5:15]
    server.etag = etag.replace("1", "2")
    with pytest.raises(FileChanged, match="changed while it was read"):
        file.read_range(100, 10)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for_as_long_as_it_asks_for(server: RangeServer, status: int) -> None:
    file = opened(server)
    server.answer = refuse(status, 2, Retry_After="0")
    assert file.read_range(5, 10) == CONTENT[5:15]
    server.answer = refuse(status, Retry_After="60")
    began = time.monotonic()
    with pytest.raises(Unreadable, match=rf"busy \({status}\).*asks for 60 more seconds"):
        file.read_range(100, 10)
    assert time.monotonic() - began < SILENCE


def test_a_busy_server_that_asks_for_more_time_is_waited_for_within_a_bound_and_that_is_said(
    server: RangeServer,
) -> None:
    said: list[str] = []
    file = HttpFile(HttpLocation(url=f"{server.url}/file?signature=0"), 1.5, patience=Patience(4.0, said.append))
    server.answer = refuse(503, 1, Retry_After="2")
    began = time.monotonic()
    file.open()
    assert time.monotonic() - began >= 2
    assert said == [
        f"{server.url}/file: the server is busy (503), and is asked again after the 2 seconds that it asks for."
    ]
    server.answer = refuse(429, Retry_After="9")
    with pytest.raises(
        Unreadable, match=r"^http.*/file: it is busy \(429\) and asks for 9 more seconds.* 2 at the most"
    ):
        file.read_range(5, 10)
    file.patience.end()
    server.answer = refuse(429, 1, Retry_After="2")
    with pytest.raises(Unreadable, match="asks for 2 more seconds"):
        file.read_range(5, 10)
    assert len(said) == 1


def test_a_busy_server_that_names_no_time_is_waited_for_with_growing_pauses(server: RangeServer) -> None:
    file = HttpFile(HttpLocation(url=f"{server.url}/file"), 1.2)
    server.answer = refuse(503, 1, Retry_After="Sun, 29 Nov 2026 00:00:00 GMT")
    file.open()
    server.answer = refuse(503)
    with pytest.raises(Unreadable, match="busy"):
        file.read_range(0, 10)


def test_a_token_is_sent_to_its_own_server_alone(server: RangeServer) -> None:
    seen: list[tuple[str, str | None]] = []

    def note(name: str, then: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def answer(handler: Any) -> bool:
            seen.append((name, handler.headers["Authorization"]))
            return then(handler)

        return answer

    with serving(server.folder) as other:
        server.answer = note("home", refuse(302, Location=f"{other.url}/file"))
        other.answer = note("abroad", lambda handler: False)
        file = HttpFile(HttpLocation(url=f"{server.url}/file", token="secret"), SILENCE)
        file.open()
        assert file.read_range(5, 10) == CONTENT[5:15]
    assert seen == [("home", "Bearer secret"), ("abroad", None), ("abroad", None)]


def test_an_expired_signature_is_renewed_once_for_each_request(server: RangeServer) -> None:
    renewed: list[str] = []

    def renew() -> HttpLocation:
        renewed.append("again")
        return HttpLocation(url=f"{server.url}/file?signature={len(renewed)}")

    file = HttpFile(HttpLocation(url=f"{server.url}/file?signature=0"), SILENCE, renew)
    server.answer = refuse(403, 1)
    file.open()
    assert renewed == ["again"]
    server.answer = refuse(404)
    with pytest.raises(NoFile):
        file.read_range(5, 10)
    server.answer = refuse(403)
    with pytest.raises(Unreadable, match="wrong or expired credentials") as caught:
        file.open()
    assert renewed == ["again"] * 2 and "signature" not in str(caught.value)


def test_what_may_be_secret_is_not_shown() -> None:
    location = HttpLocation(
        url="https://host/a?X-Amz-Signature=secret", certificate="secret", key="secret", token="secret"
    )
    assert "secret" not in f"{location!r} {location} {location.name}"


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        ("", ""),
        ("http://host/images", "http://host/images/a%40b%3A1.img.zst"),
        ("https://host/", "https://host/a%40b%3A1.img.zst"),
    ],
)
def test_an_image_has_the_name_that_it_has_in_the_store(folder: str, url: str) -> None:
    assert image_url(folder, "a@b:1") == url
    assert os.path.basename(image_url(folder, "plain")) in ("", "plain.img.zst")
