# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of an image one request of a server reads, for a laptop that requests chunks one by one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import max_frame_size
from ansible_collections.fleet.imaging.plugins.module_utils.sources.base import Pace
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpFile, HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import (
    MAX_REQUESTS,
    MIN_REQUESTS,
    STORE,
    HttpImage,
)

from ..range_server import serving
from ..samples import CHUNK, Used, make_image, noise

CHUNKS = 400


@pytest.mark.parametrize(("seconds", "most"), [(0.001, MAX_REQUESTS), (0.1, 32), (0.5, MIN_REQUESTS)])
def test_a_request_is_as_long_as_its_records_come_quickly(tmp_path: Path, seconds: float, most: int) -> None:
    path = tmp_path / "image.img.zst"
    make_image(str(path), noise(CHUNKS * CHUNK, 5), Used((0, CHUNKS * CHUNK)))
    index, room, now = ImageReader(FileSource(str(path))).index, memoryview(bytearray(max_frame_size(CHUNK))), 0.0
    with serving(str(tmp_path)) as server:
        file = HttpFile(HttpLocation(url=f"{server.url}/{path.name}"), 5.0)
        image = HttpImage(STORE, file, index, pytest.fail, clock=lambda: now)
        asked = waiting = 0
        read: list[int] = []
        while len(read) < CHUNKS:
            if asked < CHUNKS and waiting < image.max_requests and image.has(asked):
                image.request([asked])
                asked, waiting = asked + 1, waiting + 1
            header = image.receive(room)
            if header is None:
                waiting -= 1
            else:
                read.append(header.chunk)
                now += seconds
    assert read == list(range(CHUNKS))
    assert max(sum(start <= row.record_offset < end for row in index) for start, end in server.ranges) == most


def test_the_pace_is_that_of_arriving_records_without_the_wait_for_the_answer(tmp_path: Path) -> None:
    path, pace = tmp_path / "image.img.zst", Pace()
    make_image(str(path), noise(4 * CHUNK, 5), Used((0, 4 * CHUNK)))
    index, room = ImageReader(FileSource(str(path))).index, memoryview(bytearray(max_frame_size(CHUNK)))
    with serving(str(tmp_path)) as server:
        file = HttpFile(HttpLocation(url=f"{server.url}/{path.name}"), 5.0)
        image = HttpImage(STORE, file, index, pytest.fail, pace)
        assert image.has(0) and pace.rate == 0

        def wait(_handler: Any) -> bool:
            time.sleep(2)
            return False

        def slowly(_offset: int, data: bytes) -> bytes:
            time.sleep(0.2)
            return data

        server.answer = wait
        image.request([0])
        assert image.receive(room) is not None and pace.rate > CHUNK
        server.spoil = slowly
        pace = image._pace = Pace()
        image.request([2])
        assert image.receive(room) is None and image.receive(room) is not None
        frame = index.row_at(2).frame_size
        assert 0 < pace.rate < 1.5 * CHUNK / (0.2 * frame / (1 << 14))
