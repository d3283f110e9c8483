# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written is flushed meanwhile. An error of that fails the transfer, because the system may tell it no second time."""

from __future__ import annotations

import errno
import threading
import time
from types import SimpleNamespace

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import DiskError, RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.disk_state import VERIFIED
from ansible_collections.fleet.imaging.plugins.module_utils.engine import restore as engine
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils import captured_image
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK

from .halves import capture, cut_at, disk_is_restored, first_only, restore


def in_background() -> bool:
    return threading.current_thread().name.startswith("sync")


def test_a_disk_is_flushed_while_it_is_written(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FLUSH_STEP", 4 * CHUNK)
    real, flushed = RawDisk.flush, []

    def flush(disk: RawDisk) -> None:
        flushed.append(in_background())
        real(disk)

    monkeypatch.setattr(RawDisk, "flush", flush)
    result, _ends = restore(laptop)
    assert any(flushed) and not flushed[-1]
    assert disk_is_restored(laptop) and result["disk_state"] == VERIFIED


def test_an_error_of_such_a_flush_fails_a_restore(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FLUSH_STEP", 4 * CHUNK)
    real = RawDisk.flush

    def flush(disk: RawDisk) -> None:
        if in_background():
            raise DiskError("flushing failed")
        real(disk)

    monkeypatch.setattr(RawDisk, "flush", flush)
    result, _ends = restore(laptop)
    assert result["failed"] and "flushing failed" in result["msg"]


def test_an_error_of_such_a_flush_is_not_lost_when_the_link_breaks(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FLUSH_STEP", 15 * CHUNK)
    real, failed = RawDisk.flush, threading.Event()

    def flush(disk: RawDisk) -> None:
        if in_background() and not failed.is_set():
            time.sleep(0.3)  # until the link is cut
            failed.set()
            raise DiskError("flushing failed")
        real(disk)

    monkeypatch.setattr(RawDisk, "flush", flush)
    result, _ends = restore(laptop, to_laptop=first_only(cut_at(20 * CHUNK // 2)))
    assert failed.is_set() and result["failed"] and "flushing failed" in result["msg"]


def test_an_error_after_the_last_record_fails_a_capture(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured_image, "SYNC_STEP", 1)
    last = threading.Event()

    def sync(_descriptor: int) -> None:
        last.wait(5)  # until all records have arrived
        raise OSError(errno.EIO, "the disk is broken")

    class Sink(captured_image.CapturedImage):
        def close(self) -> None:
            last.set()
            super().close()

    monkeypatch.setattr(captured_image, "_sync", sync)
    monkeypatch.setattr("ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink.CapturedImage", Sink)
    with pytest.raises(ImagingError, match="the disk is broken"):
        capture(laptop)
    assert not laptop.store.has("captured")
