# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and writes a whole disk past the page cache, and holds it exclusively.

A disk is a block device or a regular file. Linux only: ``O_DIRECT`` (open(2)), ``O_EXCL`` on a block device (open(2): fails with EBUSY while it is
mounted or held), and ioctls of linux/fs.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from typing import Callable, Iterable, Protocol, Sequence, TypeVar

from ..errors import ImagingError
from ..reasons import LOCKED
from ..timeouts import DEFAULTS
from .deallocate import discard_range, zero_range
from .processes import lockers_of, openers_of, summarize

T = TypeVar("T")

BLKRRPART = 0x125F
BLKSSZGET = 0x1268

FILE_ALIGNMENT = 4096
"""The alignment in bytes that O_DIRECT needs for regular files on current file systems."""

WORTH_SKIPPING = 128 << 10
"""Bytes. Transferring a smaller gap is cheaper than another request."""

MAX_STEP_SIZE = 1 << 30
"""Maximum bytes that the kernel zeros or discards at a time, so that interruptions are noticed in between."""

ZEROS = 1 << 20

FIRST_TRY = 64 << 10
"""Bytes. A failed request is repeated in pieces of this size, and the failed pieces in pieces of :data:`MIN_TRY`."""

MIN_TRY = 4096
"""Bytes; the physical sector size of nearly all disks. Each further attempt to read a bad sector can take a failing disk many seconds."""


class DiskError(ImagingError):
    """A disk can't be held, read or written."""


class ReadError(DiskError):
    """A disk did not give back what is stored on it."""


def aligned_buffer(size: int) -> memoryview:
    """Return a page-aligned writable buffer, as O_DIRECT needs it, in huge pages if the kernel has them: private memory, because most kernels have
    none for shared memory.

    Child processes do not get it. A child that shares a private page could cost this process what O_DIRECT reads into it (open(2), NOTES).
    """
    buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    buffer.madvise(mmap.MADV_DONTFORK)
    with contextlib.suppress(OSError):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(buffer)


def spans(ranges: Iterable[tuple[int, int]], alignment: int, length: int) -> list[tuple[int, int]]:
    """Return few, aligned requests that cover all ``ranges`` of a chunk of ``length`` bytes, and small gaps between them."""
    result: list[tuple[int, int]] = []
    for start, end in ranges:
        start -= start % alignment
        end = min(length, end + -end % alignment)
        if result and start - result[-1][1] < WORTH_SKIPPING:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def logical_sector_size(descriptor: int) -> int:
    """Return the sector size of an opened block device in bytes; 512 for a regular file."""
    if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
        return 512
    size: int = struct.unpack("i", fcntl.ioctl(descriptor, BLKSSZGET, b"\0" * 4))[0]
    return size


class Readable(Protocol):
    """An object whose byte ranges can be read."""

    alignment: int

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset``; raises DiskError, ReadError."""


class RawDisk:
    """An opened disk. Raises DiskError that names the disk, the operation and the offset."""

    def __init__(
        self, path: str, writable: bool = False, shared: bool = False, patience: float = DEFAULTS.held_disk
    ) -> None:
        """Open and hold ``path``; raises DiskError when another program holds it for longer than ``patience`` seconds.

        A ``shared`` disk is not held.
        """
        self.path = path
        self._patience = patience
        flags = os.O_CLOEXEC | (os.O_RDWR if writable else os.O_RDONLY)
        try:
            exclusive = os.O_EXCL if stat.S_ISBLK(os.stat(path).st_mode) and not shared else 0
            self._buffered = _retry(lambda: os.open(path, flags | exclusive), errno.EBUSY, patience)
        except OSError as error:
            raise DiskError(_open_error(path, error)) from error
        self._direct = -1
        try:
            self.is_device = stat.S_ISBLK(os.fstat(self._buffered).st_mode)
            if not shared:
                self._lock()
            self.size = os.lseek(self._buffered, 0, os.SEEK_END)
            self.logical_sector_size = logical_sector_size(self._buffered)
            self.alignment = self.logical_sector_size if self.is_device else FILE_ALIGNMENT
            # Through the descriptor, because the path may lead to another disk by now. tmpfs and some FUSE file systems have no O_DIRECT.
            with contextlib.suppress(OSError):
                self._direct = os.open(f"/proc/self/fd/{self._buffered}", flags | os.O_DIRECT)
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        # udev leaves a disk alone while it is locked (systemd: "Locking Block Device Access").
        try:
            _retry(
                lambda: fcntl.flock(self._buffered, fcntl.LOCK_EX | fcntl.LOCK_NB), errno.EWOULDBLOCK, self._patience
            )
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise DiskError(f"{self.path} can't be locked: {error.strerror}.") from error
            who = summarize(lockers_of(self.path)) or "another program, which can't be seen from here"
            raise DiskError(
                f"{self.path} is locked by {who}, which did not release it within {self._patience:g} s: wait for it or end it, then run again.",
                [LOCKED],
            ) from error

    def fileno(self) -> int:
        return self._buffered

    @property
    def past_cache(self) -> bool:
        """Whether reads and writes go past the page cache."""
        return self._direct >= 0

    def _descriptor(self, offset: int, length: int) -> int:
        aligned = offset % self.alignment == 0 and length % self.alignment == 0
        return self._direct if aligned and self._direct >= 0 else self._buffered

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset``, both in bytes."""
        descriptor = self._descriptor(offset, len(view))
        done = 0
        while done < len(view):
            try:
                count = os.preadv(descriptor, [view[done:]], offset + done)
            except OSError as error:
                raise ReadError(
                    f"{self.path}: reading {len(view) - done} bytes at {offset + done} failed: {error.strerror}. The disk is probably "
                    "failing: look at the kernel's log (dmesg) and at smartctl -a."
                ) from error
            if not count:
                raise DiskError(
                    f"{self.path} ended at {offset + done} while bytes up to {offset + len(view)} were expected."
                )
            done += count

    def write_from(self, offset: int, view: memoryview) -> None:
        """Write all of ``view`` at ``offset``."""
        descriptor = self._descriptor(offset, len(view))
        done = 0
        while done < len(view):
            try:
                done += os.pwritev(descriptor, [view[done:]], offset + done)
            except OSError as error:
                raise self._write_error(offset + done, len(view) - done, error) from error

    def _write_error(self, offset: int, length: int, error: OSError) -> DiskError:
        return DiskError(
            f"{self.path}: writing {length} bytes at {offset} failed: {error.strerror}. The disk is not restored and does not boot: "
            "look at the kernel's log (dmesg), replace the disk if it is failing, and run again."
        )

    def salvage_into(self, offset: int, view: memoryview) -> list[tuple[int, int]]:
        """Fill ``view`` like :meth:`read_into`, with zeros for unreadable ranges; returns these ranges, as offsets of the disk."""
        bad: list[tuple[int, int]] = []
        self._salvage(offset, view, FIRST_TRY, bad)
        return bad

    def _salvage(self, offset: int, view: memoryview, step: int, bad: list[tuple[int, int]]) -> None:
        for start in range(0, len(view), step):
            piece = view[start : start + step]
            try:
                self.read_into(offset + start, piece)
            except ReadError:
                if step > MIN_TRY:
                    self._salvage(offset + start, piece, MIN_TRY, bad)
                    continue
                piece[:] = bytes(len(piece))
                if bad and bad[-1][1] == offset + start:
                    bad[-1] = (bad[-1][0], offset + start + len(piece))
                else:
                    bad.append((offset + start, offset + start + len(piece)))

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, by the kernel's own means if possible."""
        for start in range(offset, offset + length, MAX_STEP_SIZE):
            end = min(offset + length, start + MAX_STEP_SIZE)
            try:
                done = zero_range(self._buffered, start, end - start)
            except OSError as error:
                raise self._write_error(start, end - start, error) from error
            if not done:
                zeros = aligned_buffer(min(ZEROS, end - start))
                for position in range(start, end, len(zeros)):
                    self.write_from(position, zeros[: end - position])

    def discard(self, offset: int, length: int) -> bool:
        """Discard a range, whose content is then undefined; returns False when the device does not support that."""
        for start in range(offset, offset + length, MAX_STEP_SIZE):
            try:
                if not discard_range(
                    self._buffered, self.is_device, start, min(MAX_STEP_SIZE, offset + length - start)
                ):
                    return False
            except OSError:  # discarding is optional
                return False
        return True

    def is_hole(self, offset: int, length: int) -> bool:
        """Return whether a regular file has no data in this range; False for a device."""
        return not self.is_device and is_hole(self._buffered, offset, length)

    def flush(self) -> None:
        """Write all data to the medium, and drop the page cache."""
        try:
            os.fsync(self._buffered)
        except OSError as error:
            raise DiskError(
                f"{self.path}: flushing failed: {error.strerror}. What was written may be lost: run again."
            ) from error
        os.posix_fadvise(self._buffered, 0, 0, os.POSIX_FADV_DONTNEED)

    def reread_partition_table(self) -> str | None:
        """Make the kernel read the partition table; returns why it did not, or None."""
        if not self.is_device:
            return None
        try:
            _retry(lambda: fcntl.ioctl(self._buffered, BLKRRPART), errno.EBUSY, self._patience)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return f"The kernel does not read a partition table on {self.path}."
            who = summarize(openers_of(self.path)) if error.errno == errno.EBUSY else ""
            return (
                f"The kernel did not read the new partition table of {self.path} ({error.strerror}"
                f"{f'; a partition may be open in {who}' if who else ''}): it will at the next boot."
            )
        return None

    def close(self) -> None:
        for descriptor in (self._direct, self._buffered):
            if descriptor >= 0:
                os.close(descriptor)
        self._direct = self._buffered = -1

    def __enter__(self) -> RawDisk:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Return whether a regular file has no data in this range, as far as the system knows."""
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO


def write_spans(disk: RawDisk, offset: int, content: memoryview, ranges: Sequence[tuple[int, int]]) -> int:
    """Write the used ranges of a chunk at ``offset``; returns the number of bytes written."""
    written = 0
    for start, end in spans(ranges, disk.alignment, len(content)):
        disk.write_from(offset + start, content[start:end])
        written += end - start
    return written


def read_spans(disk: Readable, offset: int, content: memoryview, ranges: Sequence[tuple[int, int]]) -> int:
    """Read the used ranges of a chunk at ``offset``; the bytes between them are undefined. Returns the number of bytes read."""
    read = 0
    for start, end in spans(ranges, disk.alignment, len(content)):
        disk.read_into(offset + start, content[start:end])
        read += end - start
    return read


PAUSE = 0.05
"""Seconds between two attempts."""


def _retry(action: Callable[[], T], transient: int, patience: float) -> T:
    """Call ``action`` until its error number is not ``transient``; raises other OSErrors, and that one after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno != transient or time.monotonic() >= deadline:
                raise
        time.sleep(PAUSE)


def _open_error(path: str, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        who = summarize(openers_of(path))
        return (
            f"{path} is held by somebody else (mounted, in use by LVM, RAID or crypt, or another transfer"
            f"{f'; it is open in {who}' if who else ''}): release it and try again."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{path} can't be opened: {error.strerror}. Disks belong to root: set ansible_become: true for this laptop."
        )
    return f"{path} can't be opened: {error.strerror}."
