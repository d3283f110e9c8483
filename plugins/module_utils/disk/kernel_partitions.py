# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the partitions that the kernel uses with the partition table of the disk.

The kernel reads a table when it is told to, and refuses while a partition is open. Until then, the devices of partitions refer to the old places.

Source: the kernel's block/partitions/core.c for /sys and for the refusals, msdos.c and efi.c there for the interpretation of tables.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

from ..errors import ImagingError
from .command import RunCommand
from .partition_table import Partition, PartitionTable, read_partition_table
from .raw_io import RawDisk

KERNEL_SECTOR = 512
"""Bytes of a sector in /sys, whatever the sector size of the disk is."""

NESTED_TYPES = ("63", "81", "82", "a5", "a6", "a9", "b7", "bf")
"""Types of DOS partitions in which the kernel looks for partitions of UnixWare, Minix, Solaris and the BSDs (82 is also the type of Linux swap)."""


@dataclass(frozen=True)
class KernelPartition(Partition):
    """A partition that the kernel uses; it has no type. ``uuid`` and ``name`` are empty where the kernel does not know them."""

    device: str = ""
    """The numbers of its block device (major:minor)."""


@dataclass
class KernelView:
    """The result of letting the kernel read a table."""

    stale: list[str] = field(default_factory=list)
    """How the kernel's partitions differ from the table, as sentences without their full stop."""
    warning: str = ""


def kernel_partitions(disk: str, sys: str = "/sys") -> dict[int, KernelPartition]:
    """Return the kernel's partitions of a block device, by number; none for a regular file. Raises OSError when they disappear meanwhile."""
    device = os.stat(disk)
    if not stat.S_ISBLK(device.st_mode):
        return {}
    folder = f"{sys}/dev/block/{os.major(device.st_rdev)}:{os.minor(device.st_rdev)}"
    found = {}
    for name in os.listdir(folder):
        child = os.path.join(folder, name)
        if os.path.exists(os.path.join(child, "partition")):
            number, start, size = (int(_read(child, each)) for each in ("partition", "start", "size"))
            said = dict(line.partition("=")[::2] for line in _read(child, "uevent").splitlines())
            found[number] = KernelPartition(
                number=number,
                node="/dev/" + name.replace("!", "/"),
                start=start * KERNEL_SECTOR,
                size=size * KERNEL_SECTOR,
                type="",
                # Since Linux 6.10, and only for a table that the kernel itself has read.
                uuid=said.get("PARTUUID", "").lower(),
                name=said.get("PARTNAME", ""),
                device=_read(child, "dev"),
            )
    return found


def _read(folder: str, name: str) -> str:
    return Path(folder, name).read_text(encoding="latin-1").strip()


def differences(known: Mapping[int, KernelPartition], table: PartitionTable | None) -> list[str]:
    """Return how the kernel's partitions differ from a table (None: the disk has none), as sentences without their full stop.

    A kernel without any partition does not use an old table: it may not know this kind, or may not look for tables on such a device.
    """
    expected = {each.number: each for each in table.partitions} if table else {}
    return [
        f"partition {number}: the table has {_words(expected.get(number))}, and the kernel {_words(known.get(number))}"
        for number in sorted({*known, *expected} if known else ())
        if not _agree(known.get(number), expected.get(number), table)
    ]


def _agree(here: KernelPartition | None, there: Partition | None, table: PartitionTable | None) -> bool:
    if table is None or there is None:
        return bool(table and here and _is_nested(here, table))
    if there.end > table.disk_size:
        return True  # the kernel cuts it or leaves it out
    if here is None or here.start != there.start:
        return False
    # The kernel uses only as much of an extended partition as a boot loader needs, and seven bits of each character of a name.
    return (
        (here.size == there.size or table.is_extended(there))
        and here.uuid in ("", table.id_of(there))
        and (not here.name or not there.name.isascii() or here.name.strip() == there.name.strip())
    )


def _is_nested(known: KernelPartition, table: PartitionTable) -> bool:
    """Return whether a partition that is not in the table lies in one in which the kernel looks for more."""
    return table.label == "dos" and any(
        each.type.lower().lstrip("0") in NESTED_TYPES and each.start <= known.start and known.end <= each.end
        for each in table.partitions
    )


def _words(partition: Partition | None) -> str:
    if partition is None:
        return "none"
    called = " ".join(text for text in (partition.uuid.lower(), partition.name) if text)
    return f"bytes {partition.start} to {partition.end}{f' ({called})' if called else ''}"


def compare_with_kernel(run: RunCommand, path: str) -> list[str]:
    """Return how the kernel's partitions differ from the table of a disk (:func:`differences`); raises ImagingError."""
    try:
        known = kernel_partitions(path)
        return differences(known, read_partition_table(run, path)) if known else []
    except (ImagingError, OSError) as error:
        raise ImagingError(
            f"Whether the kernel goes by the partition table of {path} can't be said: {str(error).rstrip('.')}."
        ) from error


def reread_table(run: RunCommand, disk: RawDisk, changed: bool) -> KernelView:
    """Let the kernel read the partition table of a held disk, and check its partitions.

    An unchanged table is read only when the kernel uses another one.
    """
    complaint: str | None = None
    try:
        if not changed and not compare_with_kernel(run, disk.path):
            return KernelView()
        complaint = disk.reread_partition_table()
        wrong = compare_with_kernel(run, disk.path)
    except ImagingError as error:
        return KernelView(warning=" ".join(filter(None, (str(error), complaint))))
    if complaint:
        return KernelView([complaint.rstrip("."), *wrong] if wrong else [])
    # The kernel forgets its partitions before it reads the table.
    another = f"The kernel has read the partition table of {disk.path}, and takes it for another one than sfdisk does"
    return KernelView(warning=f"{another}: {'; '.join(wrong)}." if wrong else "")
