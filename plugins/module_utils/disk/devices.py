# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of this machine: what they are, what is on them, who holds them, and so what they may be used for."""

from __future__ import annotations

from dataclasses import dataclass

from .command import RunCommand


@dataclass(frozen=True)
class DiskPartition:
    """A partition as the kernel knows it. ``size`` in bytes."""

    node: str
    size: int
    fstype: str
    label: str
    mount_points: tuple[str, ...]


@dataclass(frozen=True)
class Disk:
    """A block device or a regular file that can stand for a disk. Sizes in bytes; an unknown text is empty.

    ``kind`` is "disk", "loop", "zram", "file" and so on, "part" for a partition. ``mount_points`` and ``holders`` are of the disk, its
    partitions and everything on top of them. The refusals are sentences that say what is in the way, and the way out: empty means
    usable. ``not_default`` says why the disk is used only when it is named.
    """

    path: str
    size: int
    logical_sector_size: int
    physical_sector_size: int
    model: str
    serial: str
    wwn: str
    transport: str
    rotational: bool
    removable: bool
    hotplug: bool
    read_only: bool
    kind: str
    by_id: tuple[str, ...]
    partitions: tuple[DiskPartition, ...]
    holders: tuple[str, ...]
    mount_points: tuple[str, ...]
    swap: tuple[str, ...]
    live_medium: bool
    source_refusals: tuple[str, ...]
    target_refusals: tuple[str, ...]
    not_default: tuple[str, ...]


def list_disks(run: RunCommand) -> list[Disk]:
    """All disks of this machine, in lsblk's order. Raises MissingTool, ImagingError."""
    raise NotImplementedError


def describe(run: RunCommand, path: str) -> Disk:
    """The block device or regular file at ``path``, links followed. Raises ImagingError when it is neither, or not there."""
    raise NotImplementedError
