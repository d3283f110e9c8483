# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A slow disk is felt while it is written, and its errors are."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils import background_sync
from ansible_collections.fleet.imaging.plugins.plugin_utils.background_sync import MAX_UNSYNCED, STEP, BackgroundSync


def test_who_writes_waits_for_a_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = threading.Event()
    calls: list[int] = []

    def sync(descriptor: int) -> None:
        calls.append(descriptor)
        slow.wait(10)

    monkeypatch.setattr(background_sync, "_sync", sync)
    file = BackgroundSync(7)
    file.wrote(STEP)
    file.wrote(MAX_UNSYNCED)  # not too much yet
    late = threading.Thread(target=file.wrote, args=(MAX_UNSYNCED + STEP + 1,))
    late.start()
    time.sleep(0.2)
    assert late.is_alive() and calls == [7]
    slow.set()
    late.join(5)
    assert not late.is_alive()
    file.close()


def test_little_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_sync, "_sync", lambda _descriptor: pytest.fail("it was synced"))
    file = BackgroundSync(7)
    file.wrote(STEP - 1)
    file.close()


def test_an_error_of_the_disk_is_raised_by_the_next_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(_descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(background_sync, "_sync", sync)
    file = BackgroundSync(7)
    with pytest.raises(OSError, match="the disk is broken"):
        for position in range(STEP, 10 * STEP, STEP):
            file.wrote(position)
            time.sleep(0.05)
    file.close()
