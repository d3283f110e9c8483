# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both halves of a trial over real sockets, what is forecast by it, and what the controller says of itself."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action import image_probe
from ansible_collections.fleet.imaging.plugins.action.image_probe import TriedCapture
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.engine.capture import Capture
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop import probe as probe_module
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import CaptureRequest
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.probe import (
    SampledSource,
    TrialSource,
    probed,
    take_sample,
)
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve, serve_live
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils import nic as nic_module
from ansible_collections.fleet.imaging.plugins.plugin_utils.forecast import forecast, measured_rates
from ansible_collections.fleet.imaging.plugins.plugin_utils.nic import nic_towards
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import TARGET_WRITE
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK
from ansible_collections.fleet.imaging.tests.unit.plugins.plugin_utils.halves import (
    SIZE,
    cut_at,
    first_only,
    flip_at,
)

Result = tuple[dict[str, Any], Meter]


@pytest.fixture(autouse=True)
def fixture_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test has no time for good figures."""
    monkeypatch.setattr(probe_module, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(probe_module, "MIN_SCANNED", 1 << 20)


def try_capture(laptop: SimpleNamespace, store: FolderStore, **spoil: Any) -> Result:
    """Try a capture of a disk that is in use; returns the module's result, and the meter."""

    class Held(SampledSource):
        """Of which no program knows anything."""

        def __init__(self, raw: RawDisk) -> None:
            self.raw, self.in_use, self.checks = raw, "Somebody has it.", None
            self._doubted = set()
            self.disk: Any = SimpleNamespace(rotational=False)
            self.request = CaptureRequest(raw.path, "auto", 3, True, {}, chunk_size=CHUNK)

    def work(session: Session) -> dict[str, Any]:
        with RawDisk(str(laptop.disk)) as raw:
            disk = Held(raw)
            source = TrialSource(disk, SimpleNamespace(created=""), find_zstd())  # type: ignore[arg-type]
            session.converse(lambda link: serve_live(link, source))
            result, warnings = probed(disk, disk.used.ranges.total(), 0.0, disk.used.warnings)
            return dict(asdict(result), warnings=warnings)

    sink = TriedCapture(store, CHUNK)
    try:
        result, _ends = laptop.run(work, sink.converse, sink.progress, **spoil)
        sink.flush()
    finally:
        sink.release()
    assert not result.get("failed"), result
    return result, sink.meter


def try_restore(laptop: SimpleNamespace, *, rotational: bool = False, **spoil: Any) -> Result:
    """Try a restore; returns the module's result, and the meter."""
    image = laptop.store.open("image")
    source = StoredSource(image)
    meter = Meter(source.watches, lambda: source.frames_sent, frames=image.stored_bytes)

    def work(session: Session) -> dict[str, Any]:
        with RawDisk(str(laptop.disk)) as raw:
            disk: Any = SimpleNamespace(raw=raw, disk=SimpleNamespace(rotational=rotational))
            result, warnings = take_sample(disk, find_zstd(), session)
            return dict(asdict(result), warnings=warnings)

    result, _ends = laptop.run(work, lambda link: serve(link, source, meter.update), lambda: meter.mark, **spoil)
    assert not result.get("failed"), result
    return result, meter


def test_a_capture_that_has_the_time_is_tried_to_its_end(laptop: SimpleNamespace) -> None:
    before = laptop.disk.read_bytes()
    result, meter = try_capture(laptop, laptop.store)
    assert result["used_bytes"] == meter.history.last.done == SIZE
    assert any("is in use" in warning and "Somebody has it." in warning for warning in result["warnings"])
    assert forecast(meter, 7.0).seconds == pytest.approx(7.0)  # nothing is left to forecast
    rates = measured_rates(meter, True)
    assert {name for name, rate in rates.items() if rate} == {"read", "compress", "link", "store"}
    assert laptop.disk.read_bytes() == before
    assert os.listdir(laptop.store.path) == ["image.img.zst"]


def test_a_trial_that_is_over_before_is_of_a_part(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "TRIAL_SECONDS", 0.0)
    for result, meter in (try_capture(laptop, laptop.store), try_restore(laptop)):
        status = meter.status
        assert status is not None
        assert 8 * CHUNK <= status.done < status.total == result["used_bytes"]


def test_the_end_of_a_trial_does_not_count(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that ends early finishes chunks that are not sent any more."""
    records = Capture.records

    def ending_slowly(capture: Capture, start: int, end: int) -> Any:
        try:
            yield from records(capture, start, end)
        finally:
            time.sleep(1.5)

    monkeypatch.setattr(Capture, "records", ending_slowly)
    monkeypatch.setattr(probe_module, "TRIAL_SECONDS", 0.0)
    began = time.monotonic()
    _result, meter = try_capture(laptop, laptop.store)
    assert meter.status is not None
    assert meter.status.seconds < time.monotonic() - began - 1.4


def test_a_restore_writes_nothing_and_takes_the_time_of_writing(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "WRITE_SHARE", 0.02)
    before = laptop.disk.read_bytes()
    result, meter = try_restore(laptop)
    assert laptop.disk.read_bytes() == before
    assert result["used_bytes"] == laptop.store.open("image").index.used_bytes()
    status = meter.status
    assert status is not None
    assert status.scanned >= 1 << 20
    assert status.stages["write"]["busy"] == pytest.approx(status.written / result["write_rate"], rel=0.2)
    expected = forecast(meter, status.seconds, result)
    assert expected.to_json()["limit"] == TARGET_WRITE
    assert expected.seconds >= 0.8 * status.total / result["write_rate"]


def test_a_rotating_disk_is_written_as_fast_as_it_is_read(laptop: SimpleNamespace) -> None:
    result, meter = try_restore(laptop, rotational=True)
    assert measured_rates(meter, False)["read"] == pytest.approx(result["write_rate"], rel=0.05)


def test_of_a_disk_that_is_all_zeros_it_is_said(laptop: SimpleNamespace) -> None:
    assert not try_restore(laptop)[0]["warnings"]
    laptop.disk.write_bytes(bytes(SIZE))
    assert any("nothing but zeros" in warning for warning in try_restore(laptop)[0]["warnings"])


@pytest.mark.parametrize("where", [5000, 2 << 20])
@pytest.mark.parametrize("spoil", [cut_at, flip_at])
def test_a_link_that_breaks_once_is_made_again(laptop: SimpleNamespace, where: int, spoil: Any) -> None:
    result, meter = try_capture(laptop, laptop.store, to_controller=first_only(spoil(where)))
    assert result["used_bytes"] == meter.history.last.done
    result, meter = try_restore(laptop, to_laptop=first_only(spoil(where)))
    assert meter.status is not None and meter.status.done == meter.status.data_total


@pytest.mark.parametrize("direction", ["to_laptop", "to_controller"])
def test_a_link_that_keeps_breaking_ends_the_probe_and_says_so(laptop: SimpleNamespace, direction: str) -> None:
    with pytest.raises(ImagingError, match="could not be kept"):
        if direction == "to_laptop":
            try_restore(laptop, to_laptop=lambda: cut_at(10_000))
        else:
            try_capture(laptop, laptop.store, to_controller=lambda: cut_at(10_000))


def test_a_laptop_that_does_not_end_its_trial_fills_no_store(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_probe, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(image_probe, "MAX_LATE", 20 * CHUNK)
    monkeypatch.setattr(probe_module.Trial, "goes_on", lambda self: True)
    with pytest.raises(ImagingError, match=r"was to end the trial"):
        try_capture(laptop, laptop.store)
    monkeypatch.setattr(probe_module.Trial, "goes_on", lambda self: self.chunks < probe_module.MIN_CHUNKS)
    try_capture(laptop, laptop.store)
    assert os.listdir(laptop.store.path) == ["image.img.zst"]


def test_a_store_that_takes_nothing_is_named(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_more: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ImagingError, match=r"image store .* failed: No space left.*Make room"):
        try_capture(laptop, laptop.store)


def test_a_store_that_is_not_there_yet_is_not_made(laptop: SimpleNamespace, tmp_path: Path) -> None:
    try_capture(laptop, FolderStore(str(tmp_path / "no" / "store" / "yet")))
    assert not (tmp_path / "no").exists()


def test_an_interface_and_its_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ['[{"dst": "192.0.2.1", "dev": "eth7"}]']
    monkeypatch.setattr(nic_module, "run_command", lambda _command: CommandResult(0, answers[-1], ""))
    speeds = iter(["1000\n", "-1\n"])
    monkeypatch.setattr(Path, "read_text", lambda *_arguments, **_more: next(speeds))
    found = nic_towards("192.0.2.1")
    assert found is not None
    assert (found.interface, found.mbit) == ("eth7", 1000)
    assert nic_towards("192.0.2.1") is None  # it has no link
    answers.append("not JSON")
    assert nic_towards("192.0.2.1") is None
