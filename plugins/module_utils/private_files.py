# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and folders in places where other users can put theirs, such as /tmp: nothing is written through a link, nothing of theirs is used.

What a killed process has left is recognized by its name, its owner, its age, and by a lock that the kernel took from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from typing import Iterator

from .errors import ImagingError
from .timeouts import DEFAULTS

PREFIX = "fleet.imaging.scratch-"
SCRATCH = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
"""The names that tempfile.mkdtemp makes of the prefix."""


def open_new(path: str) -> int:
    """Make a file of mode 0600 and return its descriptor, for writing; raises FileExistsError, also for a link, and OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def open_own(path: str) -> int:
    """Open a file for writing that is there or is made; raises ImagingError when it is not a regular file of this user's alone, and OSError.

    On file systems without owners all files have the same, which the folder then has, too.
    """
    while True:
        try:
            return open_new(path)
        except FileExistsError:
            pass
        try:
            # Opening a FIFO or a device must neither wait nor do anything.
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            if not os.path.lexists(path):
                continue  # it was removed in between
            raise
        except OSError as error:
            if stat.S_ISREG(os.lstat(path).st_mode):
                raise
            raise _not_own(path) from error
        found, folder = os.fstat(descriptor), os.stat(os.path.dirname(path) or ".")
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in (os.geteuid(), folder.st_uid):
            return descriptor
        os.close(descriptor)
        raise _not_own(path)


def _not_own(path: str) -> ImagingError:
    return ImagingError(
        f"{path} is in the way: expected no file, or a regular file of this user; found a link, another user's file or something else. It was "
        "not touched. Find out who made it, remove it, and run again."
    )


def remove_own_folder(path: str, owner: int | None = None) -> None:
    """Remove a folder with all that is in it, unless it is a link or belongs to others than this user and ``owner``. Never raises."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode) and found.st_uid in (os.geteuid(), owner):
            shutil.rmtree(path, ignore_errors=True)


class Scratch:
    """A temporary folder of mode 0700, with a lock on it for as long as this process, or one forked from it, has it."""

    def __init__(self) -> None:
        clear_scratch()
        self.path = tempfile.mkdtemp(prefix=PREFIX)
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # On a file system without locks, nothing is taken for somebody's leftovers either.
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove it. May be called again."""
        if self._descriptor >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """A temporary folder for as long as the context lasts; returns its path."""
    scratch = Scratch()
    try:
        yield scratch.path
    finally:
        scratch.remove()


def clear_scratch() -> None:
    """Remove the temporary folders that killed processes of this user have left. Never raises."""
    base = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            if SCRATCH.fullmatch(name):
                _clear(os.path.join(base, name))


def settled(moment: float, age: float) -> bool:
    """Whether a time of a file is so many seconds from now: also one that lies in the future, because the clock may have been set meanwhile."""
    return abs(time.time() - moment) > age


def _clear(path: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if found.st_uid == os.geteuid() and settled(found.st_ctime, DEFAULTS.settled):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)
