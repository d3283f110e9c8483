# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the processes that lock a disk, have it open, or use a file system on it. Source: proc(5)."""

from __future__ import annotations

import os
import re
import stat
from typing import Callable, Iterator, Sequence

from ..printable import printable

MAX_NAMED = 5

LOCK = re.compile(r"^\d+: FLOCK +ADVISORY +(?:READ|WRITE) +(\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) ", re.M)
"""A line of /proc/locks with a flock(2): process, device of the file system that contains the file (hexadecimal), inode."""


def processes() -> Iterator[tuple[int, str]]:
    """Yield all other visible processes with their names."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            name = said_of(int(entry), "comm")
            if name:
                yield int(entry), printable(name.decode(errors="replace"))


def said_of(pid: int, name: str) -> bytes:
    """Return the content of a file of a process in /proc; nothing when it has ended or is hidden from this user."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def stat_fields(pid: int) -> list[str]:
    """Return what follows the name in a process's /proc/PID/stat, from the state on; nothing when it has ended."""
    return said_of(pid, "stat").decode("ascii", "replace").rpartition(")")[2].split()


def summarize(found: Sequence[str]) -> str:
    """Return the first few of several processes, and the number of the others."""
    return ", ".join([*found[:MAX_NAMED], *([f"{len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else [])])


def lockers_of(path: str) -> list[str]:
    """Return the processes that hold a flock(2) on a file or block device; if the kernel names none, those that have it open."""
    try:
        found = os.stat(path)
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            locks = LOCK.findall(file.read())
    except OSError:
        return []
    place = (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
    owners = {int(pid) for pid, major, minor, inode in locks if (int(major, 16), int(minor, 16), int(inode)) == place}
    named = [f"process {pid} ({name})" for pid, name in processes() if pid in owners]
    return named or openers_of(path)


def openers_of(path: str) -> list[str]:
    """Return the processes that have open a file, or a block device or one of its partitions."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    wanted = {_place(found)}
    if stat.S_ISBLK(found.st_mode):
        wanted.update((number,) for number in _partitions(found.st_rdev))
    return [
        f"process {pid} ({name})"
        for pid, name in processes()
        if _has_open(pid, ("fd",), lambda other: _place(other) in wanted)
    ]


def _place(found: os.stat_result) -> tuple[int, ...]:
    """Return the number of a block device, or the device and inode of another file."""
    return (found.st_rdev,) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)


def _partitions(device: int) -> Iterator[int]:
    """Yield the device numbers of a disk's partitions."""
    folder = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    try:
        children = [os.path.join(folder, name) for name in os.listdir(folder)]
        for child in children:
            if os.path.exists(os.path.join(child, "partition")):
                with open(os.path.join(child, "dev"), encoding="ascii") as file:
                    major, _colon, minor = file.read().strip().partition(":")
                yield os.makedev(int(major), int(minor))
    except (OSError, ValueError):
        return  # they have just gone


def users_of(device: str) -> list[str]:
    """Return the processes that use the mounted file system with this device number (major:minor), and how."""
    found = []
    for pid, name in processes():
        how = _how_used(pid, device)
        if how:
            found.append(f"process {pid} ({name}, {how})")
    return found


def _how_used(pid: int, device: str) -> str:
    def is_on_it(other: os.stat_result) -> bool:
        return f"{os.major(other.st_dev)}:{os.minor(other.st_dev)}" == device

    places = {"cwd": "its working folder", "root": "its root", "exe": "its program"}
    for link, words in places.items():
        if _leads_to(f"/proc/{pid}/{link}", is_on_it):
            return words
    return "an open file" if _has_open(pid, ("fd", "map_files"), is_on_it) else ""


def _has_open(pid: int, folders: Sequence[str], is_it: Callable[[os.stat_result], bool]) -> bool:
    for folder in folders:
        try:
            links = os.listdir(f"/proc/{pid}/{folder}")
        except OSError:
            continue  # it has ended, or is another user's
        if any(_leads_to(f"/proc/{pid}/{folder}/{link}", is_it) for link in links):
            return True
    return False


def _leads_to(path: str, is_it: Callable[[os.stat_result], bool]) -> bool:
    try:
        return is_it(os.stat(path))
    except OSError:
        return False
