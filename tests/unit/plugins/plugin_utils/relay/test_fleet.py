# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laptops pass an image on over real sockets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.store import ImageStore

from ...module_utils.samples import CHUNK, Used, make_image, noise
from .fleet import Laptop, Run

CHUNKS = 300
SIZE = CHUNKS * CHUNK
USED = Used((0, SIZE))
DISK = noise(SIZE, 5)
BLANK = bytes(SIZE)


@pytest.fixture(name="run")
def fixture_run(tmp_path: Path) -> Run:
    store = ImageStore(str(tmp_path / "store"))
    os.mkdir(store.path)
    make_image(store.image_path("image"), DISK, USED)
    return Run(tmp_path, store)


def is_restored(laptop: Laptop) -> bool:
    return laptop.error is None and not laptop.result.get("failed") and laptop.disk.read_bytes() == DISK


def test_eight_laptops_take_one_image_from_the_controller(run: Run) -> None:
    for _number in range(8):
        run.add(BLANK)
    run.join()
    assert [(laptop.error, laptop.result.get("msg")) for laptop in run.laptops] == [(None, None)] * 8
    assert all(map(is_restored, run.laptops))
    assert run.images() < 1.2
    print(run.images(), [laptop.received_from for laptop in run.laptops])
