# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for udev, which examines every disk when a program that could write to it closes it.

It makes the kernel read the partition table, so the nodes of partitions disappear for a moment, and holds a shared lock on the whole disk: for a
tenth of a second on a fast machine, for more than one on a slow one. Sources: systemd, "Locking Block Device Access"; udevadm(8); udev(7) on the
option "watch".
"""

from __future__ import annotations

from ..timeouts import DEFAULTS
from .command import MissingTool, RunCommand


def settle(run: RunCommand, patience: float = DEFAULTS.held_disk) -> None:
    """Wait until udev is idle, for at most ``patience`` seconds; returns at once without udev.

    Do not call it while holding the lock of a disk: udev would wait for the lock, and this function for udev.
    """
    try:
        run(["udevadm", "settle", f"--timeout={patience:.0f}"])
    except MissingTool:
        pass
