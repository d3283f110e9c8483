# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image comes into being: ``NAME.img.zst.partial``, which becomes ``NAME.img.zst`` when it is whole.

What an earlier capture has left there is set aside as ``NAME.img.zst.partial.old``, to be read while the new file is written. Of the
two the larger one is kept when this capture breaks off as well, so that however often that happens, what was stored is not lost.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import BinaryIO

from ..errors import ImagingError
from ..private_files import open_own

BUFFER = 1 << 20


class Place:
    """The right to write the image of one path, for as long as this process holds the lock on the partial file (mode 0600)."""

    def __init__(self, path: str) -> None:
        """Take the place; raises ImagingError when another capture has it, or what is there is not this user's, and OSError."""
        self.path = path
        self.partial = path + ".partial"
        self.left = self.partial + ".old"
        """What earlier captures have left, if anything."""
        self.file = self._open_alone()
        try:
            self._set_aside()
        except BaseException:
            self.file.close()
            raise

    def _open_alone(self) -> BinaryIO:
        descriptor = open_own(self.partial)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.lstat(self.partial)):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            raise ImagingError(
                f"{self.partial} is being written: another capture of this name is running. Wait for it, or give this one another name with "
                "imaging_image."
            ) from None
        return open(descriptor, "wb", buffering=BUFFER)

    def _set_aside(self) -> None:
        if _size(self.partial) > _size(self.left):
            os.replace(self.partial, self.left)
            before, self.file = self.file, self._open_alone()
            before.close()
        else:
            self.file.truncate(0)

    def restart(self) -> None:
        """Set aside what was written, as what an earlier capture has left, and begin with an empty file; raises OSError."""
        self.file.flush()
        self.file.seek(0)
        self._set_aside()

    def commit(self, replaced: os.stat_result | None) -> None:
        """Give the finished file its final name, durably; raises ImagingError when something else has come into being there.

        ``replaced`` is the file that may be there and is replaced. The new one stays locked until it has its name: nobody may take
        it for what a killed writer left.
        """
        if replaced is not None:
            if not os.path.exists(self.path) or not os.path.samestat(os.stat(self.path), replaced):
                raise self._appeared()
            os.replace(self.partial, self.path)
        else:
            try:
                name_file(self.partial, self.path)
            except FileExistsError:
                raise self._appeared() from None
        _remove(self.left)
        sync_folder(os.path.dirname(self.path))
        self.file.close()

    def _appeared(self) -> ImagingError:
        return ImagingError(
            f"{self.path} was created or changed during the capture, and was left as it is. Capture again."
        )

    def leave(self, keep: bool) -> int:
        """Let go. What earlier captures have left stays or, if ``keep`` and it is more, what this one has written; returns its size in bytes.

        Does nothing after a commit.
        """
        if self.file.closed:
            return 0
        try:
            self.file.flush()
        except OSError:  # a full disk: what there is will do
            pass
        if os.path.exists(self.left) and (not keep or _size(self.left) > _size(self.partial)):
            os.replace(self.left, self.partial)
        elif not keep:
            _remove(self.partial)
        _remove(self.left)
        size = _size(self.partial)
        self._close()
        return size

    def remove(self) -> None:
        """Let go and keep nothing. Does nothing after a commit."""
        if not self.file.closed:
            _remove(self.left)
            _remove(self.partial)
            self._close()

    def _close(self) -> None:
        try:
            self.file.close()
        except OSError:  # what could not be written is not wanted any more
            pass


def name_file(partial: str, path: str) -> None:
    """Give a file its name; raises FileExistsError when something has it."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (exFAT): the check is then not atomic
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(partial, path)
    else:
        os.unlink(partial)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def sync_folder(path: str) -> None:
    """Make a rename in a folder durable, where the system can (macOS refuses fsync on some folders)."""
    try:
        descriptor = os.open(path or ".", os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
