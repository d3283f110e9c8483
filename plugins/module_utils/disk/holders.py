# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the uses of a block device: mounted file systems, active swap, and devices that are built on it.

Sources: proc(5) for mountinfo and swaps; the kernel's sysfs for partitions and holders; linux/loop.h for loop devices.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
from dataclasses import dataclass
from typing import Iterator, Sequence

LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO_SIZE = 232

LIVE_MOUNT_POINTS = {
    "/",
    "/cdrom",
    "/isodevice",
    "/lib/live/mount/medium",
    "/run/archiso/bootmnt",
    "/run/initramfs/isoscan",
    "/run/initramfs/live",
    "/run/live/medium",
}
"""The mount points of live media: Debian, Ubuntu, Arch, Fedora and their derivatives."""

SYSTEM_IMAGES = ("squashfs", "erofs")
"""File systems of the image of a live system, which is a file on the live medium behind a loop device."""


@dataclass(frozen=True)
class Mount:
    """A mounted file system: the number of its device (major:minor), its source, its mount point, and its type.

    ``id`` and ``parent`` are the kernel's ids of this mount and of the one that contains its mount point.
    """

    device: str
    source: str
    path: str
    fstype: str
    id: str = ""
    parent: str = ""


@dataclass(frozen=True)
class Loop:
    """A loop device: its name, and the number of its block device, or the device and inode of its file."""

    name: str
    block_device: str
    file_device: str
    inode: int


@dataclass(frozen=True)
class Holder:
    """A device that is built on another one: its node, its kind, its own name, and the command that takes it down."""

    node: str
    kind: str
    name: str
    release: str


@dataclass(frozen=True)
class Use:
    """All uses of a device, direct and through the devices that are built on it."""

    mounts: tuple[Mount, ...] = ()
    swaps: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    live_medium: bool = False

    @property
    def mount_points(self) -> tuple[str, ...]:
        """The mount points of its file systems."""
        return tuple(mount.path for mount in self.mounts)


class BlockDevices:
    """The block devices of this machine at one moment. ``root`` replaces the root folder in tests."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._sys = os.path.join(root, "sys/class/block")
        self.mounts = list(self._read_mounts())
        """All mounted file systems, in the order in which they were mounted."""
        self.swaps = list(self._read_swaps())
        """The devices and files with active swap."""
        self._loops = list(self._read_loops())

    def attribute(self, name: str, attribute: str) -> str:
        """Return an attribute of a device in /sys; empty when there is none."""
        try:
            with open(os.path.join(self._sys, name, attribute), encoding="utf-8", errors="replace") as file:
                return file.read(4096).strip()
        except OSError:
            return ""

    def folder(self, name: str) -> str:
        """Return the real folder of a device below /sys, whose path shows how it is connected."""
        return os.path.realpath(os.path.join(self._sys, name))

    def parent(self, name: str) -> str:
        """Return the disk of a partition; empty when the device is not a partition."""
        return os.path.basename(os.path.dirname(self.folder(name))) if self.attribute(name, "partition") else ""

    def of_device(self, name: str) -> Use:
        """Return the uses of a device, with those of its partitions and of everything that is built on it."""
        stack = list(self.stack([name]))
        mounts = tuple(mount for mount in self.mounts if any(self.is_from(mount, each) for each in stack))
        swaps = tuple(swap for swap in self.swaps if swap in {node(each) for each in stack})
        # What is on top must be taken down first.
        holders = tuple(holder for holder in map(self.holder, reversed(stack)) if holder)
        live = any(mount.path in LIVE_MOUNT_POINTS or mount.fstype in SYSTEM_IMAGES for mount in mounts)
        return Use(mounts, swaps, holders, live)

    def of_file(self, path: str) -> Use:
        """Return the uses of a regular file as a swap area or through loop devices."""
        uses = [self.of_device(name) for name in self.names_of(path)]
        swaps = [swap for swap in self.swaps if swap == path] + [swap for use in uses for swap in use.swaps]
        return Use(
            tuple(mount for use in uses for mount in use.mounts),
            tuple(swaps),
            tuple(holder for use in uses for holder in use.holders),
        )

    def names_of(self, path: str) -> list[str]:
        """Return the kernel's name of the block device at ``path``; for a regular file, the names of its loop devices."""
        found = os.stat(path)
        if stat.S_ISBLK(found.st_mode):
            return [os.path.basename(self.folder(f"../../dev/block/{_numbers(found.st_rdev)}"))]
        place = (_numbers(found.st_dev), found.st_ino)
        return [loop.name for loop in self._loops if not loop.block_device and (loop.file_device, loop.inode) == place]

    def stack(self, names: Sequence[str]) -> Iterator[str]:
        """Yield these devices, their partitions, and everything that is built on them, each once."""
        names = list(names)
        seen: set[str] = set()
        while names:
            name = names.pop(0)
            if name in seen:
                continue
            seen.add(name)
            yield name
            names += self._partitions(name) + self._names(name, "holders") + self._loops_on(name)

    def _names(self, name: str, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self._sys, name, folder)))
        except OSError:
            return []

    def _partitions(self, name: str) -> list[str]:
        return [each for each in self._names(name, "") if self.attribute(os.path.join(name, each), "partition")]

    def _loops_on(self, name: str) -> list[str]:
        numbers = {self.attribute(name, "dev"), *(mount.device for mount in self.mounts if self.is_from(mount, name))}
        return [loop.name for loop in self._loops if (loop.block_device or loop.file_device) in numbers]

    def is_from(self, mount: Mount, name: str) -> bool:
        """Return whether a file system is mounted from a device."""
        # btrfs has its own device numbers, so the source must be compared, too.
        return mount.device == self.attribute(name, "dev") or mount.source == node(name)

    def is_loop(self, name: str) -> bool:
        """Return whether a device is a loop device that is in use."""
        return any(loop.name == name for loop in self._loops)

    def loops_in(self, mount: Mount) -> list[str]:
        """Return the loop devices of files in a mounted file system."""
        return [loop.name for loop in self._loops if not loop.block_device and loop.file_device == mount.device]

    def swap_files_in(self, mount: Mount) -> list[str]:
        """Return the active swap files in a mounted file system."""
        return [swap for swap in self.swaps if not swap.startswith("/dev/") and _device_of_file(swap) == mount.device]

    def holder(self, name: str) -> Holder | None:
        """Return a description of a device that is built on others; None for other devices."""
        if not self._names(name, "slaves"):
            return None
        kind, own_name, release = "another device", name, "remove it first"
        mapped, uuid = self.attribute(name, "dm/name"), self.attribute(name, "dm/uuid")
        if self.attribute(name, "md/level") or name.startswith("md"):
            kind, release = "RAID", f"mdadm --stop {node(name)}"
        elif uuid.startswith("LVM-"):
            kind, own_name = "LVM", mapped
            group = re.sub(r"--", "-", re.split(r"(?<!-)-(?!-)", mapped)[0])
            release = f"vgchange --activate n {group}"
        elif uuid.startswith("CRYPT-"):
            kind, own_name, release = "crypt", mapped, f"cryptsetup close {mapped}"
        elif uuid.startswith("mpath-"):
            kind, own_name, release = "multipath", mapped, f"use /dev/mapper/{mapped} instead"
        elif mapped:
            kind, own_name, release = "device mapper", mapped, f"dmsetup remove {mapped}"
        return Holder(node(name), kind, own_name, release)

    def _read_mounts(self) -> Iterator[Mount]:
        for line in self._lines("proc/self/mountinfo"):
            fields = line.split()
            # A variable number of optional fields ends with a dash.
            if "-" in fields[6:-2]:
                separator = fields.index("-", 6)
                source = _unescape(fields[separator + 2])
                yield Mount(
                    device=fields[2],
                    source=os.path.realpath(source) if source.startswith("/dev/") else source,
                    path=_unescape(fields[4]),
                    fstype=fields[separator + 1],
                    id=fields[0],
                    parent=fields[1],
                )

    def _read_swaps(self) -> Iterator[str]:
        if not os.path.exists(os.path.join(self._root, "proc/swaps")):
            return  # a kernel without swap
        for line in self._lines("proc/swaps")[1:]:
            fields = line.split()
            if fields:
                yield os.path.realpath(_unescape(fields[0]))

    def _lines(self, path: str) -> list[str]:
        with open(os.path.join(self._root, path), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()

    def _read_loops(self) -> Iterator[Loop]:
        """Yield the loop devices. Only root may read what a loop device is made of; other users see none."""
        for name in sorted(each for each in os.listdir(self._sys) if each.startswith("loop")):
            if not os.path.isdir(os.path.join(self._sys, name, "loop")):
                continue
            try:
                with open(node(name), "rb", buffering=0) as device:
                    status = fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(LOOP_INFO_SIZE))
            except OSError:
                continue
            file_device, inode, block_device = struct.unpack_from("=QQQ", status)
            yield Loop(name, _numbers(block_device) if block_device else "", _numbers(file_device), inode)


def _device_of_file(path: str) -> str:
    try:
        return _numbers(os.stat(path).st_dev)
    except OSError:
        return ""


def node(name: str) -> str:
    """Return the path of a block device by its kernel name."""
    return "/dev/" + name.replace("!", "/")


def _numbers(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _unescape(text: str) -> str:
    """Decode the octal numbers that the kernel writes for space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)
