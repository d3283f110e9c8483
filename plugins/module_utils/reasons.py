# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reasons against something: a code, by which programs and playbooks decide, and a message, which is only shown.

All codes stand here, and docs/codes.md says what each means. A code keeps its meaning; a message may be reworded at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

from .errors import ImagingError

# Against the use of a disk.
LIVE_MEDIUM = "live_medium"
MOUNTED = "mounted"
SWAP = "swap"
BUILT_ON = "built_on"
PARTITION = "partition"
NOT_A_DISK = "not_a_disk"
NO_CAPACITY = "no_capacity"
BAD_SIZE = "bad_size"
READ_ONLY = "read_only"

# Against the use of a disk that is not named.
USB = "usb"
REMOVABLE = "removable"
HOTPLUG = "hotplug"
OVER_NETWORK = "over_network"
EMMC_BOOT = "emmc_boot"
VIRTUAL = "virtual"
IS_FILE = "file"

# Against an image on a disk.
TOO_SMALL = "too_small"
SECTOR_SIZE = "sector_size"
REFERENCE = "reference"

# No disk was selected, or another one is there now.
NO_SUCH_DISK = "no_such_disk"
NO_DISK = "no_disk"
SEVERAL_DISKS = "several_disks"
ANOTHER_DISK = "another_disk"
RESTARTED = "restarted"

# Other failures.
NOT_CONFIRMED = "not_confirmed"
CANNOT_RELEASE = "cannot_release"
LOCKED = "locked"
UNREADABLE_SECTORS = "unreadable_sectors"
READ_BACK_DIFFERS = "read_back_differs"
SEEN_DIFFERENTLY = "seen_differently"
KERNEL_TABLE = "kernel_table"
MISSING_PROGRAM = "missing_program"
PORT_IN_USE = "port_in_use"
LINK_BROKEN = "link_broken"
NO_IMAGE = "no_image"
IMAGE_EXISTS = "image_exists"
DAMAGED_IMAGE = "damaged_image"
UNREADABLE_IMAGE = "unreadable_image"
STORE_NOT_WRITABLE = "store_not_writable"
STORE_FULL = "store_full"
UPLOAD_UNFINISHED = "upload_unfinished"


@dataclass(frozen=True)
class Reason:
    """A reason, with the way out in its message where there is one."""

    code: str
    message: str


@dataclass(frozen=True)
class Refusal(Reason):
    """A reason not to use a disk; ``releasable`` says whether ``disk.release`` can put an end to it."""

    releasable: bool = False


def messages(reasons: Iterable[Reason]) -> str:
    """What is shown of reasons."""
    return " ".join(reason.message for reason in reasons)


def refuse_for(reasons: Iterable[Reason], saying: str = "") -> None:
    """Raise ImagingError, whose message begins with ``saying``, unless there is no reason."""
    reasons = list(reasons)
    if reasons:
        raise ImagingError(f"{saying} {messages(reasons)}".lstrip(), [reason.code for reason in reasons])
