# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both halves of a probe over real sockets, what the controller measures of itself, and what it reads from an image."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action import image_probe
from ansible_collections.fleet.imaging.plugins.action.image_probe import (
    RECORD_OVERHEAD,
    LinkProbe,
    sample_pieces,
    work_of,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import ZERO
from ansible_collections.fleet.imaging.plugins.module_utils.laptop import probe as probe_module
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.probe import LaptopProbe, Measured, ProbeRequest
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils import own_link as own_link_module
from ansible_collections.fleet.imaging.plugins.plugin_utils import store_speed
from ansible_collections.fleet.imaging.plugins.plugin_utils.own_link import own_link
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_speed import free_memory, measure_store
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK
from ansible_collections.fleet.imaging.tests.unit.plugins.plugin_utils.halves import SIZE, cut_at, first_only, flip_at

MEASURED = Measured(
    device="/dev/sda",
    disk_size=SIZE,
    rotational=False,
    used_bytes=SIZE,
    used_chunks=1,
    used_by="whole",
    read_bytes=SIZE,
    map_seconds=0.0,
    read_rates={},
    read_rate=1.0,
    read_cpu=0.0,
    chunk_size=CHUNK,
    compressed=[],
    hash_rate=1.0,
    processors=1,
)


@pytest.fixture(autouse=True)
def fixture_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test has no time for good figures."""
    monkeypatch.setattr(probe_module, "CPU_SECONDS", 0.02)
    monkeypatch.setattr(image_probe, "AMOUNT", 4 << 20)
    monkeypatch.setattr(image_probe, "SECONDS", 0.2)
    monkeypatch.setattr(store_speed, "LARGEST_PIECE", 4 << 20)


def probe(laptop: SimpleNamespace, **spoil: Any) -> tuple[dict[str, Any], LinkProbe, int]:
    """A probe; the disk is not looked at. Returns the module's result, the controller's half, how often it was measured."""
    controller = LinkProbe("the laptop", sample_pieces(laptop.store.open("image")))
    measured = 0

    class Known(LaptopProbe):
        """Knows its disk already."""

        def _measure(self) -> Measured:
            nonlocal measured
            measured += 1
            return MEASURED

    def work(session: Session) -> dict[str, Any]:
        half = Known(None, ProbeRequest(str(laptop.disk), "restore", "auto", 3, CHUNK), find_zstd())  # type: ignore[arg-type]
        session.converse(half.converse)
        return asdict(half.result())

    result, _ends = laptop.run(work, controller.converse, controller.progress, **spoil)
    return result, controller, measured


def test_both_halves(laptop: SimpleNamespace) -> None:
    result, controller, measured = probe(laptop)
    assert measured == 1
    assert controller.from_laptop.rate > 0
    assert controller.to_laptop.rate > 0
    assert result["decompress_rate"] > 0
    assert result["read_rate"] == 1.0
    assert result["send_cpu"] > 0


@pytest.mark.parametrize("where", [5000, 2 << 20])
@pytest.mark.parametrize("direction", ["to_laptop", "to_controller"])
@pytest.mark.parametrize("spoil", [cut_at, flip_at])
def test_a_link_that_breaks_once_is_measured_anew(
    laptop: SimpleNamespace, where: int, direction: str, spoil: Any
) -> None:
    result, controller, measured = probe(laptop, **{direction: first_only(spoil(where))})
    assert result["decompress_rate"] > 0
    assert controller.to_laptop.rate > 0
    assert measured == 1  # what needs no link is not measured again


@pytest.mark.parametrize("direction", ["to_laptop", "to_controller"])
def test_a_link_that_keeps_breaking_ends_the_probe_and_says_so(laptop: SimpleNamespace, direction: str) -> None:
    with pytest.raises(ImagingError, match=r"broke 3 times while it was measured.*Look at the cable"):
        # Amid the first piece, which is always sent, however slow this machine is just now.
        probe(laptop, **{direction: lambda: cut_at(10_000)})


def test_the_work_that_an_image_makes(laptop: SimpleNamespace) -> None:
    image = laptop.store.open("image")
    rows = list(image.index)
    work = work_of(image)
    sent = [row for row in rows if not row.flags & ZERO]
    assert work.sent == sum(row.frame_size + len(row.ranges) + RECORD_OVERHEAD for row in sent)
    assert work.content == len(sent) * CHUNK
    assert work.back_content == len(rows) * CHUNK
    assert work.written + work.zeroed == work.back == image.index.used_bytes()
    assert 0 < work.looked < work.back
    assert image.header.geometry.disk_size == SIZE


def test_pieces_are_from_all_over_an_image_and_bounded(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = laptop.store.open("image")
    everything = sample_pieces(image)
    assert all(piece.content_size == CHUNK for piece in everything)
    total = sum(len(piece.body) for piece in everything)
    monkeypatch.setattr(image_probe, "FRAMES", total // 3)
    some = sample_pieces(image)
    assert 0 < sum(len(piece.body) for piece in some) < total / 2
    assert {piece.body for piece in some} <= {piece.body for piece in everything}


def test_the_stores_speed_leaves_nothing_and_makes_no_folder(tmp_path: Path) -> None:
    found = measure_store(str(tmp_path / "no" / "store" / "yet"))
    assert found.write > 0
    assert found.read is None or found.read > 0
    assert os.listdir(tmp_path) == []


def test_a_store_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ImagingError, match=r"store .* could not be measured.*No space left.*imaging_store"):
        measure_store(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_the_kernel_says_of_its_memory() -> None:
    assert 0 < free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_an_interface_and_its_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ['[{"dst": "192.0.2.1", "dev": "eth7"}]']
    monkeypatch.setattr(own_link_module, "run_command", lambda _command: CommandResult(0, answers[-1], ""))
    speeds = iter(["1000\n", "-1\n"])
    monkeypatch.setattr(Path, "read_text", lambda *_arguments, **_more: next(speeds))
    found = own_link("192.0.2.1")
    assert found is not None
    assert (found.interface, found.mbit) == ("eth7", 1000)
    assert own_link("192.0.2.1") is None  # it has no link
    answers.append("not JSON")
    assert own_link("192.0.2.1") is None
