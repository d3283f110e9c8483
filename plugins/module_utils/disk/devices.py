# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists the disks of this machine with their properties, contents and users, and the reasons against using them."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from ..errors import ImagingError
from ..printable import printable
from ..reasons import BAD_SIZE, IS_FILE, NO_CAPACITY, NOT_A_DISK, PARTITION, READ_ONLY, Reason, Refusal
from .blkid import Content, detect
from .command import RunCommand
from .device_checks import NETWORK_TRANSPORTS, in_the_way, reasons_against_default
from .holders import BlockDevices, Use, node
from .partition_table import read_partition_table
from .release import release_steps

# Only columns that lsblk has had since util-linux 2.27: it fails for unknown ones.
COLUMNS = "NAME,KNAME,TYPE,SIZE,LOG-SEC,PHY-SEC,MODEL,SERIAL,WWN,TRAN,ROTA,RM,HOTPLUG,RO,FSTYPE,LABEL"
NOT_A_DEVICE = 32
"""Exit status of lsblk(8) when it shows none of the requested devices, such as a loop device without a file."""

BY_ID = "/dev/disk/by-id"

Row = Mapping[str, Any]
"""A device as lsblk describes it. Any field may be missing; old versions write all values as text."""


@dataclass(frozen=True)
class DiskPartition:
    """A partition as the kernel knows it or, if the kernel does not know it, as the table describes it. ``size`` is in bytes."""

    node: str
    size: int
    fstype: str
    label: str
    mount_points: tuple[str, ...]


@dataclass(frozen=True)
class Disk:
    """A block device, or a regular file that stands for a disk. Sizes are in bytes; an unknown text is empty.

    ``kind`` is "disk", "loop", "zram", "file" and so on, "part" for a partition. ``mount_points``, ``swap`` and ``holders`` include those of
    partitions and of everything built on them. The refusals are the reasons against using the disk, and ``not_default`` the reasons why it must be
    named.
    """

    path: str
    size: int
    logical_sector_size: int = 512
    physical_sector_size: int = 512
    model: str = ""
    serial: str = ""
    wwn: str = ""
    transport: str = ""
    rotational: bool = False
    removable: bool = False
    hotplug: bool = False
    read_only: bool = False
    kind: str = "disk"
    by_id: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    mount_points: tuple[str, ...] = ()
    swap: tuple[str, ...] = ()
    live_medium: bool = False
    source_refusals: tuple[Refusal, ...] = ()
    target_refusals: tuple[Refusal, ...] = ()
    not_default: tuple[Reason, ...] = ()

    def refusals(self, write: bool, release: bool = False) -> list[Refusal]:
        """Return the reasons against reading or writing the disk; with ``release``, without those that can be released."""
        found = self.target_refusals if write else self.source_refusals
        return [refusal for refusal in found if not (release and refusal.releasable)]


@dataclass(frozen=True)
class DescribedDisk(Disk):
    """A disk with its partitions."""

    partitions: tuple[DiskPartition, ...] = ()


def list_disks(run: RunCommand) -> list[DescribedDisk]:
    """Return all disks of this machine in lsblk's order. Raises MissingTool, ImagingError."""
    devices = BlockDevices()
    links = _links_by_id()
    rows = [row for row in _lsblk(run) if row.get("type") != "rom"]
    disks = [(_block_device(devices, row, links), row) for row in rows if _text(row, "kname")]
    return [_with_partitions(run, devices, disk, row) for disk, row in disks]


def resolve(path: str) -> tuple[str, os.stat_result]:
    """Return the real path of a block device or regular file, and its status; raises ImagingError when there is none."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
    except OSError as error:
        raise ImagingError(
            f"{path}: {error.strerror}. Expected a whole disk; lsblk lists the disks of this machine."
        ) from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise ImagingError(f"{path} is neither a block device nor a regular file. Expected a whole disk.")
    return real, found


def describe(run: RunCommand, path: str) -> DescribedDisk:
    """Return the block device or regular file at ``path``; links are followed. Raises ImagingError when there is none."""
    devices = BlockDevices()
    return _with_partitions(run, devices, *_disk_at(run, devices, path))


def disk_at(run: RunCommand, path: str) -> Disk:
    """Return the disk at ``path`` without its partitions. Only lsblk is run, which reads nothing from the disk."""
    return _disk_at(run, BlockDevices(), path)[0]


def _disk_at(run: RunCommand, devices: BlockDevices, path: str) -> tuple[Disk, Row]:
    real, found = resolve(path)
    if stat.S_ISREG(found.st_mode):
        return _regular_file(devices, real, found.st_size), {}
    name = os.path.basename(devices.folder(f"../../dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"))
    rows = _lsblk(run, real)
    row = dict(rows[0] if rows else {}, kname=name)
    return _block_device(devices, row, _links_by_id(), real), row


def _with_partitions(run: RunCommand, devices: BlockDevices, disk: Disk, row: Row) -> DescribedDisk:
    return DescribedDisk(**vars(disk), partitions=tuple(_partitions(run, devices, row, disk.path)))


def _lsblk(run: RunCommand, *paths: str) -> list[Row]:
    result = run(["lsblk", "--json", "--bytes", "--output", COLUMNS, *paths])
    if paths and result.rc == NOT_A_DEVICE:
        return []
    if result.rc:
        raise ImagingError(f"lsblk can't list the disks of this machine: {result.complaint()}.")
    try:
        rows = json.loads(result.out, strict=False)["blockdevices"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ImagingError(f"The output of lsblk can't be read: {result.out[:200]!r}.") from error
    if not isinstance(rows, list):
        raise ImagingError(f"The output of lsblk is not a list of disks: {result.out[:200]!r}.")
    return [row for row in rows if isinstance(row, dict)]


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return printable(value) if isinstance(value, str) else ""


def _flag(row: Row, name: str) -> bool:
    return row.get(name) in (True, "1", "true")


def _number(row: Row, name: str) -> int:
    try:
        return max(0, int(row.get(name) or 0))
    except (TypeError, ValueError):
        return 0


def _links_by_id() -> dict[str, list[str]]:
    """Return the persistent names of devices, by the devices that they lead to."""
    links: dict[str, list[str]] = {}
    names = sorted(os.listdir(BY_ID)) if os.path.isdir(BY_ID) else []
    for link in (os.path.join(BY_ID, name) for name in names):
        links.setdefault(os.path.realpath(link), []).append(link)
    return links


def _block_device(devices: BlockDevices, row: Row, links: Mapping[str, list[str]], path: str = "") -> Disk:
    name = _text(row, "kname")
    path = path or node(name)
    use = devices.of_device(name)
    transport = _transport(row, devices, name)
    # lsblk calls everything on an MMC bus hot-pluggable; soldered storage has the type MMC, a card has SD.
    soldered = devices.attribute(name, "device/type") == "MMC"
    removable, hotplug = _flag(row, "rm"), _flag(row, "hotplug") and not soldered
    size = _number(row, "size") or 512 * int(devices.attribute(name, "size") or 0)
    read_only = _flag(row, "ro") or devices.attribute(name, "ro") == "1"
    kind = _kind(row, devices, name)
    forbidden = f"It is read-only: look for a switch on it, or try blockdev --setrw {path}."
    refusals = (*_not_a_disk(devices, name, kind, size), *in_the_way(use, _releasable(devices, path, use)))
    return Disk(
        path=path,
        size=size,
        logical_sector_size=_number(row, "log-sec") or 512,
        physical_sector_size=_number(row, "phy-sec") or 512,
        model=_text(row, "model") or devices.attribute(name, "device/model"),
        serial=_text(row, "serial") or devices.attribute(name, "device/serial") or devices.attribute(name, "serial"),
        wwn=_text(row, "wwn") or devices.attribute(name, "wwid") or devices.attribute(name, "device/wwid"),
        transport=transport,
        rotational=_flag(row, "rota"),
        removable=removable,
        hotplug=hotplug,
        read_only=read_only,
        kind=kind,
        by_id=tuple(links.get(node(name), ())),
        holders=tuple(holder.node for holder in use.holders),
        mount_points=use.mount_points,
        swap=use.swaps,
        live_medium=use.live_medium,
        source_refusals=refusals,
        target_refusals=(*refusals, *([Refusal(READ_ONLY, forbidden)] if read_only else [])),
        not_default=tuple(reasons_against_default(name, devices.folder(name), transport, removable, hotplug)),
    )


def _transport(row: Row, devices: BlockDevices, name: str) -> str:
    """Return how a device is connected. Without udev, lsblk does not always know; it calls NVMe over a network nvme."""
    fabric = devices.attribute(name, "device/transport")
    if fabric in NETWORK_TRANSPORTS:
        return fabric
    folder = devices.folder(name)
    for part, transport in (("/usb", "usb"), ("/session", "iscsi"), ("/rport-", "fc")):
        if part in folder:
            return transport
    return _text(row, "tran")


def _kind(row: Row, devices: BlockDevices, name: str) -> str:
    if devices.parent(name):
        return "part"
    memory = next((kind for kind in ("zram", "ram") if name.startswith(kind)), "")
    return memory or _text(row, "type") or "disk"


def _not_a_disk(devices: BlockDevices, name: str, kind: str, size: int) -> Iterator[Refusal]:
    if kind == "part":
        disk = node(devices.parent(name))
        yield Refusal(PARTITION, f"It is a partition of {disk}: expected a whole disk. Use {disk}.")
    elif kind in ("crypt", "lvm", "dm", "rom"):
        yield Refusal(NOT_A_DISK, f"It is of the type {kind}: expected a whole disk.")
    if not size:
        yield Refusal(NO_CAPACITY, "It has no capacity: there is no medium in it, or it is not set up.")


def _partitions(run: RunCommand, devices: BlockDevices, row: Row, path: str) -> Iterator[DiskPartition]:
    children = row.get("children")
    rows = [child for child in children if isinstance(child, dict)] if isinstance(children, list) else []
    parts = [child for child in rows if _text(child, "kname") and devices.parent(_text(child, "kname"))]
    for child in parts:
        name = _text(child, "kname")
        fstype, label = _text(child, "fstype"), _text(child, "label")
        if not fstype:  # lsblk knows them from udev, which may not run
            content = _detect(run, node(name))
            fstype, label = content.type, content.label
        yield DiskPartition(
            node=node(name),
            size=_number(child, "size"),
            fstype=fstype,
            label=label,
            mount_points=devices.of_device(name).mount_points,
        )
    if not parts:
        yield from _partitions_by_table(run, path)


def _partitions_by_table(run: RunCommand, path: str) -> Iterator[DiskPartition]:
    """Yield the partitions of a disk whose table the kernel has not read; none when they can't be read."""
    try:
        table = read_partition_table(run, path)
    except ImagingError:
        return
    for partition in table.partitions if table else ():
        content = _detect(run, path, partition.start, partition.size)
        yield DiskPartition(
            node=partition.node,
            size=partition.size,
            fstype=content.type,
            label=content.label or printable(partition.name),
            mount_points=(),
        )


def _detect(run: RunCommand, path: str, offset: int = 0, size: int = 0) -> Content:
    """Return the content of a range; unknown when it can't be determined."""
    try:
        return detect(run, path, offset, size)
    except ImagingError:
        return Content()


def _releasable(devices: BlockDevices, path: str, use: Use) -> bool:
    """Return whether everything that uses a disk can be ended; False when nothing uses it."""
    if not any(in_the_way(use)):
        return False
    try:
        release_steps(devices, path)
    except (ImagingError, OSError):
        return False
    return True


def _regular_file(devices: BlockDevices, path: str, size: int) -> Disk:
    use: Use = devices.of_file(path)
    read_only = not os.access(path, os.W_OK)
    refusals = list(in_the_way(use, _releasable(devices, path, use)))
    if not size or size % 512:
        refusals.append(Refusal(BAD_SIZE, f"It has {size} bytes: the size of a disk is a positive multiple of 512."))
    forbidden = Refusal(READ_ONLY, "It is read-only: its mode or its file system forbids writing.")
    return Disk(
        path=path,
        size=size,
        read_only=read_only,
        kind="file",
        holders=tuple(holder.node for holder in use.holders),
        mount_points=use.mount_points,
        swap=use.swaps,
        source_refusals=tuple(refusals),
        target_refusals=(*refusals, *([forbidden] if read_only else [])),
        not_default=(Reason(IS_FILE, "it is a file"),),
    )
