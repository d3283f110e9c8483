# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who knows the ticket and says what he likes, towards the laptop's own code: nothing is written but what was asked for."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import HEAD, Index
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import INDEX_PIECE, Kind, Link, LinkError
from ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink import CaptureSink
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK, STREAM, geometry

from . import halves
from .halves import DISK, SIZE

MIB = 1 << 20
PACKED = ImageHeader(geometry(SIZE), STREAM, "now").pack()


@pytest.fixture(name="laptop")
def fixture_laptop(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with halves.made_laptop(tmp_path) as laptop:
        yield laptop


class Pushing(StoredSource):
    """Sends the second chunk before all else."""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, memoryview], None, None]:
        yield from super().records(1, 2)
        yield from super().records(start, end)


def test_a_chunk_that_nobody_asked_for_is_not_written(laptop: SimpleNamespace) -> None:
    before = bytearray(DISK)
    before[20 * CHUNK : 21 * CHUNK] = bytes(CHUNK)
    laptop.disk.write_bytes(before)
    result, _ends = halves.restore(laptop, source=Pushing)
    assert result["failed"] and "chunk 1, which this laptop did not ask for" in result["msg"]


@pytest.mark.parametrize("write", [True, False])
def test_an_index_is_no_larger_than_the_disk_can_have(laptop: SimpleNamespace, write: bool) -> None:
    def push(link: Link) -> None:
        link.receive()
        link.send(Kind.HEADER, ImageHeader(geometry(SIZE), STREAM, "now").pack())
        with contextlib.suppress(LinkError):
            for _piece in range(64):
                link.send(Kind.INDEX, bytes(INDEX_PIECE))
        raise_what_it_says(link)

    tracemalloc.start()
    try:
        result, _ends = halves.restore(laptop, conversation=push, write=write)
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()
    assert "an index of more than" in result["msg"]


def raise_what_it_says(link: Link) -> None:
    """Hear why the laptop gives up, as far as it can be heard."""
    while True:
        link.receive()


@pytest.mark.parametrize(
    "index",
    [
        b"FLIMIDX1" + b"\xff" * 80,
        HEAD.pack(b"FLIMIDX1", 1 << 40, 0, 0, bytes(32), bytes(32)),
        HEAD.pack(b"FLIMIDX1", 0, 1 << 60, (1 << 32) - 1, bytes(32), bytes(32)),
        Index(geometry(SIZE)).pack(PACKED),
    ],
    ids=["no index", "many rows", "many ranges", "another image's"],
)
def test_another_index_than_the_tickets_is_refused(laptop: SimpleNamespace, index: bytes) -> None:
    before = laptop.disk.read_bytes()

    def describe(link: Link) -> None:
        link.receive()
        link.send(Kind.HEADER, PACKED)
        link.send(Kind.INDEX, index)
        link.send(Kind.INDEX)
        raise_what_it_says(link)

    result, _ends = halves.restore(laptop, conversation=describe)
    assert result["failed"] and "index" in result["msg"]
    assert laptop.disk.read_bytes() == before


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("\x1b[2J\u202eevil", "\\x1b[2J\\u202eevil"), ("", "The other end gave up and did not say why.")],
)
def test_what_the_controller_says_in_the_end_is_fit_to_be_shown(
    laptop: SimpleNamespace, reason: str, shown: str
) -> None:
    def end(link: Link) -> None:
        link.receive()
        link.send(Kind.END, reason.encode())
        raise_what_it_says(link)

    result, _ends = halves.restore(laptop, conversation=end)
    assert result["msg"] == shown


def test_a_captured_laptop_reads_no_chunks_that_it_does_not_have(laptop: SimpleNamespace) -> None:
    class Wanting(CaptureSink):
        """Wants more than there is."""

        def converse(self, link: Link) -> None:
            self._learn(link)
            link.send(Kind.WANT, struct.pack("<II", 0, 1 << 31))
            raise_what_it_says(link)

    result, _ends = halves.capture(laptop, sink_type=Wanting)
    assert result["failed"] and "asked for chunks" in result["msg"]
