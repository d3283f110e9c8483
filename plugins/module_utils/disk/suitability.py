# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk may be used for: sentences that say what is in the way and the way out, and why it is not a default choice."""

from __future__ import annotations

import re
from typing import Iterator, Sequence

from .holders import Use

SHOWN = 5
"""So many mount points or swap areas are named in a sentence."""

NETWORK_TRANSPORTS = ("fc", "fcoe", "iscsi", "nbd", "rdma", "tcp")
NETWORK_NAMES = re.compile("(nbd|rbd|drbd|etherd!)")
EMMC_BOOT_NAMES = re.compile(r"mmcblk\d+(boot\d+|rpmb|gp\d+)")


def in_the_way(use: Use) -> Iterator[str]:
    """What must end before a disk is captured or restored."""
    points, swaps = use.mount_points, use.swaps
    if use.live_medium:
        yield f"This machine runs from it ({_few(points)}): boot it from another medium, or choose another disk."
    elif points:
        yield f"It holds file systems that are mounted at {_few(points)}: unmount them (umount {' '.join(points[:SHOWN])})."
    if swaps:
        yield f"It holds active swap: switch it off (swapoff {' '.join(swaps[:SHOWN])})."
    for holder in use.holders:
        name = "" if holder.name in holder.node else f" {holder.name}"
        yield f"{holder.node} ({holder.kind}{name}) is built on it: take it down first ({holder.release})."


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def reasons_against_default(name: str, folder: str, transport: str, removable: bool, hotplug: bool) -> Iterator[str]:
    """Why a disk is used only when it is named. ``folder`` is where it is below /sys."""
    if transport == "usb":
        yield "it is connected by USB"
    if removable:
        yield "its medium can be removed"
    if hotplug and transport != "usb":
        yield "it can be unplugged while the machine runs"
    if transport in NETWORK_TRANSPORTS or NETWORK_NAMES.match(name):
        yield "it is reached over a network"
    if EMMC_BOOT_NAMES.fullmatch(name):
        yield "it is a boot area of an eMMC"
    if "/devices/virtual/block/" in folder:
        yield "it is a virtual device"
