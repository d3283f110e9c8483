# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A laptop that has a certificate and says what it likes, towards the controller's own code: what that keeps of it is bounded."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import COMPARING, STREAMING, Status
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import Geometry
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import MAX_HEADER_SIZE, ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, THE_CONTROLLER, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import (
    INDEX_PIECE,
    Kind,
    Link,
    LinkError,
    TcpChannel,
)
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink import CaptureSink
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import (
    CHUNK,
    STREAM,
    Used,
    geometry,
    make_image,
    noise,
)

SIZE = 20 * CHUNK
TWO_SECONDS = Timeouts(min_silence=2, max_silence=2)
MIB = 1 << 20
ENOUGH = 16 * MIB
"""What a controller may take for one laptop's messages, in bytes; its buffers for records are not counted here."""


class Ends:
    """Both ends of a link; what the controller's raised."""

    def __init__(self) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        with server:
            near = socket.create_connection(server.getsockname())
            far, _address = server.accept()
        self.laptop = Link(TcpChannel(near), THE_CONTROLLER, TWO_SECONDS)
        self.controller = Link(TcpChannel(far), Name(LAPTOP, "lab-01"), TWO_SECONDS)
        self.error: BaseException | None = None

    @contextlib.contextmanager
    def run(self, work: Callable[[Link], Any]) -> Iterator[Link]:
        """Have the controller work in a thread, and hand out the laptop's end."""

        def attempt() -> None:
            try:
                work(self.controller)
            except ImagingError as error:
                self.error = error
            finally:
                self.controller.close()

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        try:
            yield self.laptop
        finally:
            thread.join(3)
            self.laptop.close()
            self.controller.close()
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture(name="ends")
def fixture_ends() -> Ends:
    return Ends()


@pytest.fixture(name="store")
def fixture_store(tmp_path: Path) -> FolderStore:
    store = FolderStore(str(tmp_path))
    make_image(store.image_path("image"), noise(SIZE), Used((0, SIZE)))
    return store


@contextlib.contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """How many bytes were taken at a time, at the most."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def flood(link: Link, messages: int, kind: Kind, payload: bytes) -> int:
    """Send so many messages, as long as they are taken; returns how many were."""
    for number in range(messages):
        try:
            link.send(kind, payload)
        except LinkError:
            return number
    return messages


def test_a_flood_of_requests_is_not_kept(ends: Ends, store: FolderStore) -> None:
    source = StoredSource(store.open("image"))
    want = struct.pack("<II", 0, 20) + struct.pack("<II", 20, 20) * 8191
    with peak() as taken, ends.run(lambda link: serve(link, source)) as link:
        flood(link, 1000, Kind.WANT, want)
        assert taken() < ENOUGH


@pytest.mark.parametrize(
    "ranges", [[(0, 21)], [(5, 4)], [(3, 4), (2, 3)], [(0, 3), (2, 5)], [(0, 20)] * 3, [(0, (1 << 32) - 1)], [(20, 21)]]
)
def test_chunks_that_no_disk_has_are_not_served(ends: Ends, store: FolderStore, ranges: list[tuple[int, int]]) -> None:
    source = StoredSource(store.open("image"))
    with ends.run(lambda link: serve(link, source)) as link:
        link.send(Kind.WANT, b"".join(struct.pack("<II", *each) for each in ranges))
    assert "asked for chunks" in str(ends.error)


def test_a_chunk_that_no_disk_has_is_not_damaged(ends: Ends, store: FolderStore) -> None:
    source = StoredSource(store.open("image"))
    with ends.run(lambda link: serve(link, source)) as link:
        link.send(Kind.DAMAGED, struct.pack("<I", 20))
    assert "asked for chunks" in str(ends.error)


def test_a_restored_laptop_pushes_no_index(ends: Ends, store: FolderStore) -> None:
    image = store.open("image")
    with peak() as taken, ends.run(lambda link: serve(link, StoredSource(image))) as link:
        link.send(Kind.HEADER, image.packed_header)
        flood(link, 64, Kind.INDEX, bytes(INDEX_PIECE))
        assert taken() < ENOUGH
    assert "index" in str(ends.error)


def capturing(store: FolderStore, **expected: Any) -> CaptureSink:
    return CaptureSink(store, store.stage("new"), None, chunk_size=CHUNK, expect=expected)


def test_a_captured_laptop_pushes_no_index(ends: Ends, store: FolderStore) -> None:
    sink = capturing(store)
    with peak() as taken, ends.run(sink.converse) as link:
        link.send(Kind.HEADER, ImageHeader(geometry(SIZE), STREAM, "now").pack())
        flood(link, 64, Kind.INDEX, bytes(INDEX_PIECE))
        assert taken() < ENOUGH
    assert "index" in str(ends.error)
    sink.release()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Geometry(128 << 40, 512, 512, CHUNK), {}),
        (Geometry(SIZE, 512, 512, 2 * CHUNK), {}),
        (Geometry(2 * SIZE, 512, 512, CHUNK), {"size": SIZE}),
        (Geometry(SIZE, 4096, 4096, CHUNK), {"logical_sector_size": 512, "size": SIZE}),
    ],
    ids=["millions of chunks", "other chunks", "another size", "other sectors"],
)
def test_a_disk_that_was_not_asked_for_makes_no_image(
    ends: Ends, store: FolderStore, tmp_path: Path, said: Geometry, expected: dict[str, int]
) -> None:
    sink = capturing(store, **expected)
    with ends.run(sink.converse) as link, contextlib.suppress(LinkError):
        header = replace(ImageHeader(geometry(SIZE), STREAM, "now"), geometry=said)
        link.send(Kind.HEADER, header.pack())
        link.send(Kind.INDEX)
        time.sleep(0.5)
    assert ends.error is not None and not isinstance(ends.error, LinkError)
    sink.release()
    assert sum(file.stat().st_size for file in tmp_path.iterdir() if "new" in file.name) < 4096


def test_a_header_is_no_larger_than_a_header_can_be(ends: Ends, store: FolderStore) -> None:
    sink = capturing(store)
    with peak() as taken, ends.run(sink.converse) as link, contextlib.suppress(LinkError):
        link.send(Kind.HEADER, b"[" + b"{}," * (5 * MIB) + b"1]")
    assert isinstance(ends.error, LinkError)
    assert taken() < 64 * MIB
    sink.release()
    with pytest.raises(ImagingError, match="header"):
        ImageHeader(geometry(SIZE), STREAM, "x" * MAX_HEADER_SIZE).pack()


@pytest.mark.parametrize("phases", [(STREAMING,), (STREAMING, COMPARING)])
def test_a_flood_of_reports_is_not_kept(phases: tuple[str, ...]) -> None:
    meter = Meter(Stopwatches(), lambda: 0, capturing=True)
    stages = {f"stage {chr(97 + number)}": {"busy": 1.0, "wait": 1.0, "cpu": 1.0} for number in range(26)}
    reports = [Status(phase, 1, 2, 1, 2, 1.5, stages).pack() for phase in phases]
    for _warm_up in range(300):
        meter.update(reports[0])
    with peak() as taken:
        for number in range(3000):
            meter.update(reports[number % len(reports)])
        assert taken() < 10 * MIB
    assert len(meter.timeline) < 1000 and meter.reading("lab-01") is not None
