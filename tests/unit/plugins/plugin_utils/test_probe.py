# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both halves of a trial over real sockets, what is forecast by it, and what the controller says of itself."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action.image_probe import (
    CaptureTrialSink,
    RestoreTrialSource,
    patiently,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop import probe as probe_module
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.probe import (
    CaptureTrial,
    ProbeRequest,
    RestoreTrial,
    Trial,
)
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils import shared_resources
from ansible_collections.fleet.imaging.plugins.plugin_utils.forecast import forecast, measured_rates
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import TARGET_WRITE
from ansible_collections.fleet.imaging.plugins.plugin_utils.shared_resources import free_memory, own_link
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK
from ansible_collections.fleet.imaging.tests.unit.plugins.plugin_utils.halves import (
    SIZE,
    cut_at,
    first_only,
    flip_at,
    no_programs,
)

Half = CaptureTrialSink | RestoreTrialSource


@pytest.fixture(autouse=True)
def fixture_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test has no time for good figures."""
    monkeypatch.setattr(probe_module, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(probe_module, "LEAST_SCANNED", 1 << 20)


def tried(laptop: SimpleNamespace, half: Half, *, rotational: bool = False, **spoil: Any) -> dict[str, Any]:
    """A trial; what programs would say of the disk is left out. Returns the module's result."""

    def work(session: Session) -> dict[str, Any]:
        with RawDisk(str(laptop.disk)) as raw:
            disk: Any = SimpleNamespace(
                raw=raw, disk=SimpleNamespace(rotational=rotational), in_use=["Somebody has it."]
            )
            trial: Trial
            if isinstance(half, CaptureTrialSink):
                trial = CaptureTrial(
                    disk, no_programs, ProbeRequest(raw.path, "capture", "auto", 3, CHUNK), find_zstd()
                )
            else:
                trial = RestoreTrial(disk, find_zstd())
            session.converse(trial.converse)
            return dict(asdict(trial.result()), warnings=trial.warnings)

    result, _ends = laptop.run(work, patiently("the laptop", half.converse), lambda: half.meter.mark, **spoil)
    assert isinstance(result, dict)
    assert not result.get("failed"), result
    return result


def test_a_capture_that_has_the_time_is_tried_to_its_end(laptop: SimpleNamespace) -> None:
    sink = CaptureTrialSink(str(laptop.store.path))
    before = laptop.disk.read_bytes()
    result = tried(laptop, sink)
    assert (result["used_chunks"], result["tried_chunks"]) == (40, 40)
    assert result["used_bytes"] == sink.meter.history.last.done == SIZE
    assert any("is in use" in warning and "Somebody has it." in warning for warning in result["warnings"])
    expected = forecast(sink.meter, 7.0)
    assert expected.seconds == pytest.approx(7.0)  # nothing is left to forecast
    rates = measured_rates(sink.meter, True)
    assert {name for name, rate in rates.items() if rate} >= {"read", "compress", "store"}
    assert laptop.disk.read_bytes() == before
    assert os.listdir(laptop.store.path) == ["image.img.zst"]


def test_a_trial_that_is_over_before_is_of_chunks_from_all_over(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "TRIAL_SECONDS", 0.0)
    for half in (CaptureTrialSink(str(laptop.store.path)), RestoreTrialSource(laptop.store.open("image"))):
        result = tried(laptop, half)
        assert 8 <= result["tried_chunks"] < result["used_chunks"]
        status = half.meter.status
        assert status is not None
        assert 0 < status.done < status.total == result["used_bytes"]


def test_a_restore_writes_nothing_and_takes_the_time_of_writing(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "WRITE_SHARE", 0.02)
    monkeypatch.setattr(probe_module, "TRIAL_SECONDS", 1.5)
    image = laptop.store.open("image")
    before = laptop.disk.read_bytes()
    source = RestoreTrialSource(image)
    result = tried(laptop, source)
    assert laptop.disk.read_bytes() == before
    assert result["used_bytes"] == image.index.used_bytes()
    status = source.meter.status
    assert status is not None
    assert status.scanned >= 1 << 20
    assert status.stages["write"]["busy"] == pytest.approx(status.written / result["write_rate"], rel=0.1)
    expected = forecast(source.meter, status.seconds, result)
    assert expected.to_json()["limit"] == TARGET_WRITE
    assert expected.seconds >= 0.8 * status.total / result["write_rate"]


def test_a_rotating_disk_is_written_as_fast_as_it_is_read_and_zeros_are_written(laptop: SimpleNamespace) -> None:
    source = RestoreTrialSource(laptop.store.open("image"))
    result = tried(laptop, source, rotational=True)
    rates = measured_rates(source.meter, False)
    assert rates["read"] == pytest.approx(result["write_rate"], rel=0.05)
    still = forecast(source.meter, 1.0, {**result, "rotational": False})
    status = source.meter.status
    assert status is not None
    zeros = (status.total - status.data_total) / result["write_rate"]
    assert forecast(source.meter, 1.0, result).seconds == pytest.approx(still.seconds + zeros)


def test_of_a_disk_that_is_all_zeros_it_is_said(laptop: SimpleNamespace) -> None:
    laptop.disk.write_bytes(bytes(SIZE))
    result = tried(laptop, RestoreTrialSource(laptop.store.open("image")))
    assert any("nothing but zeros" in warning for warning in result["warnings"])


@pytest.mark.parametrize("where", [5000, 2 << 20])
@pytest.mark.parametrize("spoil", [cut_at, flip_at])
def test_a_link_that_breaks_once_is_made_again(laptop: SimpleNamespace, where: int, spoil: Any) -> None:
    capture, restore = CaptureTrialSink(str(laptop.store.path)), RestoreTrialSource(laptop.store.open("image"))
    result = tried(laptop, capture, to_controller=first_only(spoil(where)))
    assert result["used_bytes"] == capture.meter.history.last.done
    assert tried(laptop, restore, to_laptop=first_only(spoil(where)))["tried_chunks"] >= 8


@pytest.mark.parametrize("direction", ["to_laptop", "to_controller"])
def test_a_link_that_keeps_breaking_ends_the_probe_and_says_so(laptop: SimpleNamespace, direction: str) -> None:
    half = (
        RestoreTrialSource(laptop.store.open("image"))
        if direction == "to_laptop"
        else CaptureTrialSink(str(laptop.store.path))
    )
    with pytest.raises(ImagingError, match=r"broke 3 times while it was measured.*Look at the cable"):
        tried(laptop, half, **{direction: lambda: cut_at(10_000)})


def test_a_store_that_takes_nothing_is_named(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_more: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ImagingError, match=r"image store .* failed: No space left.*Make room"):
        tried(laptop, CaptureTrialSink(str(laptop.store.path)))


def test_a_store_that_is_not_there_yet_is_not_made(laptop: SimpleNamespace, tmp_path: Path) -> None:
    tried(laptop, CaptureTrialSink(str(tmp_path / "no" / "store" / "yet")))
    assert not (tmp_path / "no").exists()


def test_what_the_kernel_says_of_its_memory() -> None:
    assert 0 < free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_an_interface_and_its_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ['[{"dst": "192.0.2.1", "dev": "eth7"}]']
    monkeypatch.setattr(shared_resources, "run_command", lambda _command: CommandResult(0, answers[-1], ""))
    speeds = iter(["1000\n", "-1\n"])
    monkeypatch.setattr(Path, "read_text", lambda *_arguments, **_more: next(speeds))
    found = own_link("192.0.2.1")
    assert found is not None
    assert (found.interface, found.mbit) == ("eth7", 1000)
    assert own_link("192.0.2.1") is None  # it has no link
    answers.append("not JSON")
    assert own_link("192.0.2.1") is None
