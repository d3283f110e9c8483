# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who says everything right but for one message, or for every few: in any order, of any content, signed as it should be.

A laptop then has the image's bytes, or says why not, and nothing else of its disk has changed. The store has a whole image, or none.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils import zstd
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import Geometry
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import HEAD as INDEX_HEAD
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import FIELDS
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve, serve_live
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK, noise

from . import halves
from .halves import SIZE, USED

FIRST, LAST = 0, int(os.environ.get("LIES", "12"))
"""The numbers of the lies that are told; more of them with LIES=1000, say."""

BORED = 1.0
"""Seconds after which a liar hangs up."""

Said = tuple[Kind, bytes, bytes]
Lie = Callable[[random.Random, list[Said], Said], list[Said]]
BOMB = zstd.find_zstd().codec().compress(memoryview(bytes(64 << 20)), 3)
"""Few bytes that are 64 MiB."""


def twice(_random: random.Random, _before: list[Said], said: Said) -> list[Said]:
    return [said, said]


def nothing(_random: random.Random, _before: list[Said], _said: Said) -> list[Said]:
    return []


def something_else(chance: random.Random, _before: list[Said], said: Said) -> list[Said]:
    kind = chance.choice(list(Kind))
    return [(kind, chance.choice([b"", said[1], chance.randbytes(chance.choice([4, 8, 88, 4000]))]), b"")]


def something_more(chance: random.Random, before: list[Said], said: Said) -> list[Said]:
    return [*something_else(chance, before, said), said]


def what_was_said(chance: random.Random, before: list[Said], said: Said) -> list[Said]:
    return [chance.choice(before or [said]), said]


def another_payload(chance: random.Random, _before: list[Said], said: Said) -> list[Said]:
    payload = bytearray(said[1] or b"\0")
    for _change in range(chance.choice([1, 1, 2, 8])):
        payload[chance.randrange(len(payload))] = chance.choice([0, 1, 2, 3, 127, 128, 255])
    cut = chance.choice([len(payload)] * 3 + [0, chance.randrange(len(payload))])
    return [(said[0], bytes(payload[:cut]) + bytes(chance.choice([0, 0, 4])), said[2])]


def another_body(chance: random.Random, _before: list[Said], said: Said) -> list[Said]:
    body = chance.choice([b"", said[2][:-1], said[2] + b"\0", chance.randbytes(len(said[2])), BOMB])
    return [(said[0], said[1], body)]


def another_record(chance: random.Random, _before: list[Said], said: Said) -> list[Said]:
    """With fields that agree with its frame, as far as they can."""
    kind, payload, body = said
    if kind != Kind.RECORD:
        return another_payload(chance, _before, said)
    fields, ranges = list(FIELDS.unpack_from(payload)), payload[FIELDS.size :]
    body = chance.choice(
        [body, BOMB, zstd.find_zstd().codec().compress(memoryview(noise(CHUNK, chance.randrange(9))), 3)]
    )
    fields[0] = chance.choice([fields[0], chance.randrange(SIZE // CHUNK), SIZE // CHUNK, (1 << 32) - 1])
    fields[1] = chance.choice([fields[1], 0, 1, 3, 255])
    fields[4] = chance.choice([fields[4], fields[4], 0, 1, (1 << 32) - 1])
    fields[5] = chance.choice([len(body), len(body), 0, (1 << 32) - 1])
    fields[8] = hashlib.sha256(body).digest()
    if chance.random() < 0.3:
        ranges = b"".join(
            struct.pack("<HH", *chance.choice([(0, 1), (1, 128), (5, 5), (9, 3), (127, 65535)])) for _each in range(3)
        )
        fields[3] = chance.choice([3, 65535])
    return [(kind, FIELDS.pack(*fields) + ranges, body)]


def another_disk(chance: random.Random, _before: list[Said], said: Said) -> list[Said]:
    """A header, or the head of an index, of another size."""
    if said[0] == Kind.HEADER:
        size = chance.choice([CHUNK, SIZE - CHUNK, SIZE + CHUNK, 1 << 39, 1 << 50])
        measures = Geometry(size, 512, 512, chance.choice([CHUNK, 4 << 20, 16 << 20]))
        return [(said[0], replace(ImageHeader.unpack(said[1]), geometry=measures).pack(), b"")]
    if said[0] == Kind.INDEX and said[1]:
        fields = list(INDEX_HEAD.unpack_from(said[1]))
        fields[chance.randrange(1, 4)] = chance.choice([0, 1, 1 << 20, (1 << 32) - 1])
        return [(said[0], INDEX_HEAD.pack(*fields) + said[1][INDEX_HEAD.size :], b"")]
    return another_payload(chance, _before, said)


LIES: tuple[Lie, ...] = (
    twice,
    nothing,
    something_else,
    something_more,
    what_was_said,
    another_payload,
    another_body,
    another_record,
    another_record,
    another_disk,
)


class Liar:
    """A link on which some messages are lies."""

    def __init__(self, link: Link, chance: random.Random, moments: Iterator[bool]) -> None:
        self._link = link
        self._chance = chance
        self._moments = moments
        self._said: list[Said] = []

    def send(self, kind: Kind, payload: bytes = b"", body: bytes | memoryview = b"") -> None:
        said = (kind, bytes(payload), bytes(body))
        self._said.append(said)
        lies = [said]
        if next(self._moments):
            lies = self._chance.choice(LIES)(self._chance, self._said, said)
            self._hang_up_later()
        for each in lies:
            self._link.send(*each)

    def _hang_up_later(self) -> None:
        """Who is waited for, and says so, is waited for without end: that is another matter."""
        timer = threading.Timer(BORED, self._link.close)
        timer.daemon = True
        timer.start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


def moments(chance: random.Random, number: int) -> Iterator[bool]:
    """When to lie: in one moment, in a few of the first, or one in ten times for ever."""
    if number % 3 == 0:
        return (chance.random() < 0.1 for _each in itertools.count())
    if number % 3 == 1:
        lie = chance.randrange(35)
        return (each == lie for each in itertools.count())
    return itertools.chain((chance.randrange(45) == 0 for _each in range(45)), itertools.repeat(False))


def restore_from_a_liar(laptop: SimpleNamespace, number: int, **options: Any) -> dict[str, Any]:
    """Messages come in the same order in each run, but for reports."""
    chance = random.Random(number)
    lies = moments(chance, number)
    source = StoredSource(laptop.store.open("image"))

    def conversation(link: Link) -> None:
        serve(Liar(link, chance, lies), source)  # type: ignore[arg-type]

    try:
        result, _ends = halves.restore(laptop, conversation=conversation, **options)
    except ImagingError as error:  # the controller gave up first
        return {"failed": True, "msg": str(error)}
    return dict(result)


@pytest.mark.parametrize("number", range(FIRST, LAST))
def test_a_lie_is_found_out_and_writes_nothing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    unused, decoders = ("leave", "zero")[number % 2], zstd.available()
    monkeypatch.setattr(halves, "find_zstd", lambda: decoders[number % len(decoders)])
    with halves.made_laptop(tmp_path) as laptop:
        before = laptop.disk.read_bytes()
        result = restore_from_a_liar(laptop, number, unused=unused)
        after = laptop.disk.read_bytes()
        assert len(after) == SIZE
        if result.get("failed"):
            assert result["msg"] and not result.get("verified")
        else:
            assert result["verified"] is True
            assert halves.disk_is_restored(laptop)
        position = 0
        for start, end in [*USED.ranges, (SIZE, SIZE)]:
            left = after[position:start]
            assert left == before[position:start] or (unused == "zero" and set(left) <= {0, *before[position:start]})
            position = end


@pytest.mark.parametrize("number", range(FIRST, LAST // 2))
def test_a_laptop_that_lies_makes_a_whole_image_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    chance = random.Random(number)
    lies = moments(chance, number)
    monkeypatch.setattr(halves, "serve_live", lambda link, source: serve_live(Liar(link, chance, lies), source))  # type: ignore[arg-type]
    with halves.made_laptop(tmp_path) as laptop:
        try:
            result, _ends = halves.capture(laptop)
        except ImagingError as error:
            result = {"failed": True, "msg": str(error)}
        path = Path(laptop.store.image_path("captured"))
        assert path.exists() or result["msg"]
        assert not (path.exists() and result.get("failed"))
        if path.exists():  # what its frames decode to is the laptop's word, until it is verified or restored
            image = laptop.store.open("captured")
            for row in image.index:
                image.check_frame(image.record(row))
