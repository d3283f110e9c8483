# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the reasons against using a disk and the ways to remove them, and the reasons why it is not selected by default."""

from __future__ import annotations

import re
from typing import Iterator, Sequence

from ..reasons import (
    BUILT_ON,
    EMMC_BOOT,
    HOTPLUG,
    LIVE_MEDIUM,
    MOUNTED,
    OVER_NETWORK,
    REMOVABLE,
    SWAP,
    USB,
    VIRTUAL,
    Reason,
    Refusal,
)
from .holders import Use

SHOWN = 5
"""Maximum number of mount points or swap areas in a sentence."""

NETWORK_TRANSPORTS = ("fc", "fcoe", "iscsi", "nbd", "rdma", "tcp")
NETWORK_NAMES = re.compile("(nbd|rbd|drbd|etherd!)")
EMMC_BOOT_NAMES = re.compile(r"mmcblk\d+(boot\d+|rpmb|gp\d+)")


def in_the_way(use: Use, releasable: bool = False) -> Iterator[Refusal]:
    """Yield the uses that must end before a capture or a restore; ``releasable`` says whether ``release`` can end all of them."""
    points, swaps = use.mount_points, use.swaps
    if use.live_medium:
        message = f"This machine runs from it ({_few(points)}): boot it from another medium, or choose another disk."
        yield Refusal(LIVE_MEDIUM, message, releasable)
    elif points:
        message = f"It holds file systems that are mounted at {_few(points)}: unmount them (umount {' '.join(points[:SHOWN])})."
        yield Refusal(MOUNTED, message, releasable)
    if swaps:
        message = f"It holds active swap: switch it off (swapoff {' '.join(swaps[:SHOWN])})."
        yield Refusal(SWAP, message, releasable)
    for holder in use.holders:
        name = "" if holder.name in holder.node else f" {holder.name}"
        message = f"{holder.node} ({holder.kind}{name}) is built on it: take it down first ({holder.release})."
        yield Refusal(BUILT_ON, message, releasable)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def reasons_against_default(name: str, folder: str, transport: str, removable: bool, hotplug: bool) -> Iterator[Reason]:
    """Yield the reasons why a disk is used only when it is named. ``folder`` is its folder below /sys."""
    if transport == "usb":
        yield Reason(USB, "it is connected by USB")
    if removable:
        yield Reason(REMOVABLE, "its medium can be removed")
    if hotplug and transport != "usb":
        yield Reason(HOTPLUG, "it can be unplugged while the machine runs")
    if transport in NETWORK_TRANSPORTS or NETWORK_NAMES.match(name):
        yield Reason(OVER_NETWORK, "it is reached over a network")
    if EMMC_BOOT_NAMES.fullmatch(name):
        yield Reason(EMMC_BOOT, "it is a boot area of an eMMC")
    if "/devices/virtual/block/" in folder:
        yield Reason(VIRTUAL, "it is a virtual device")
