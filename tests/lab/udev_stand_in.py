# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does to one disk what udev does to all, whose daemon would act on every device of the machine that the lab is on.

udev_stand_in.py DISK SECONDS: whenever a program closes DISK or one of its partitions after it could write to it, open the disk for reading
and hold a shared lock on it for so long. A disk that somebody else has locked is tried again until it is free. A line is written for each time.

Sources: inotify(7); systemd, "Locking Block Device Access" and src/udev/udev-worker.c (worker_lock_whole_disk). udev also has the kernel
read the partition table anew: that is left out, because a kernel without the parsers of tables would lose the partitions that it was told of.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import struct
import sys
import time

IN_CLOSE_WRITE = 0x8
EVENT = struct.Struct("iIII")
"""struct inotify_event without the name that follows."""

RETRY_SECONDS = 0.2


def main() -> None:
    """Watch until this is ended."""
    disk, seconds = sys.argv[1], float(sys.argv[2])
    folder, name = os.path.split(disk)
    ours = re.compile(rf"{re.escape(name)}(p?[0-9]+)?")
    watch = _watch(folder)
    print("watching", flush=True)
    while True:
        if any(ours.fullmatch(each) for each in _closed(watch)):
            _hold(disk, seconds)


def _watch(folder: str) -> int:
    """A descriptor that tells of the files in a folder that are closed after they could be written to."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor: int = library.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0 or library.inotify_add_watch(descriptor, os.fsencode(folder), IN_CLOSE_WRITE) < 0:
        raise OSError(ctypes.get_errno(), f"{folder} can't be watched: {os.strerror(ctypes.get_errno())}")
    return descriptor


def _closed(watch: int) -> set[str]:
    """Wait, and return the names of what was closed since the last time."""
    events = os.read(watch, 1 << 16)
    names, offset = set(), 0
    while offset < len(events):
        _watch_number, _mask, _cookie, length = EVENT.unpack_from(events, offset)
        offset += EVENT.size + length
        names.add(os.fsdecode(events[offset - length : offset].rstrip(b"\0")))
    return names


def _hold(disk: str, seconds: float) -> None:
    try:
        descriptor = os.open(disk, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # It is gone.
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(RETRY_SECONDS)
        print("locked", flush=True)
        time.sleep(seconds)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
