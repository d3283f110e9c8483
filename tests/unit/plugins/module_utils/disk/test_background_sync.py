# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A slow medium is felt while it is written, and its errors are."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.background_sync import BackgroundSync

STEP, MOST = 16, 64


def broken() -> None:
    raise OSError(errno.EIO, "the disk is broken")


def test_who_writes_waits_for_a_slow_disk() -> None:
    slow = threading.Event()
    calls: list[int] = []

    def sync() -> None:
        calls.append(1)
        slow.wait(10)

    file = BackgroundSync(sync, STEP, MOST)
    file.wrote(STEP)
    file.wrote(MOST)  # not too much yet
    late = threading.Thread(target=file.wrote, args=(MOST + STEP + 1,))
    late.start()
    time.sleep(0.2)
    assert late.is_alive() and len(calls) == 1
    slow.set()
    late.join(5)
    assert not late.is_alive()
    file.close()


def test_little_is_left_alone() -> None:
    file = BackgroundSync(lambda: pytest.fail("it was synced"), STEP, MOST)
    file.wrote(STEP - 1)
    file.close()


def test_an_error_of_the_disk_is_raised_by_the_next_write() -> None:
    file = BackgroundSync(broken, STEP, MOST)
    with pytest.raises(OSError, match="the disk is broken"):
        for position in range(STEP, 10 * STEP, STEP):
            file.wrote(position)
            time.sleep(0.05)


def test_an_error_after_the_last_write_is_raised_in_the_end() -> None:
    written = threading.Event()

    def sync() -> None:
        written.wait(10)
        broken()

    file = BackgroundSync(sync, STEP, MOST)
    file.wrote(STEP)
    written.set()
    with pytest.raises(OSError, match="the disk is broken"):
        file.close()
