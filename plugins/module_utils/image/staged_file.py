# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file in which an image is written: ``NAME.img.zst.partial``, which is renamed to ``NAME.img.zst`` when it is complete.

The partial file of an earlier capture is renamed to ``NAME.img.zst.partial.old`` and read while the new file is written. When this capture is
interrupted too, the larger file is kept, so repeated interruptions do not lose stored data.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..errors import ImagingError
from ..private_files import open_own
from .reader import ImageReader

BUFFER = 1 << 20


class FinishedFile(Protocol):
    """A complete image that an earlier run could not put into the store."""

    reader: ImageReader

    def commit(self, replaced: Any) -> None:
        """Put it there; ``replaced`` is as of :meth:`StagedFile.commit`. Raises ImagingError, and the file stays."""


class StagedFile:
    """The partial file (mode 0600) of one image, locked by this process."""

    COMMIT_STAGE = "finish"
    """The stage under which the time of :meth:`commit` is counted."""

    finished: FinishedFile | None = None
    """What an earlier run has left complete. Another file that is committed takes its place."""

    def __init__(self, path: str) -> None:
        """Create and lock the file; raises OSError, and ImagingError when another capture has it or it belongs to another user."""
        self.path = path
        self.partial = path + ".partial"
        self.leftover = self.partial + ".old"
        """The partial file of earlier captures, if there is one."""
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
        if _size(self.partial) > _size(self.leftover):
            os.replace(self.partial, self.leftover)
            before, self.file = self.file, self._open_alone()
            before.close()
        else:
            self.file.truncate(0)

    def restart(self) -> None:
        """Set the file aside, like one of an earlier capture, and begin with an empty one; raises OSError."""
        self.file.flush()
        self.file.seek(0)
        self._set_aside()

    def commit(self, replaced: Any) -> None:
        """Rename the finished file to its final name, durably; raises ImagingError when another file appeared there meanwhile.

        ``replaced`` is the version (``ByteSource.version``) of the existing image that may be replaced, None for none. The new file stays locked
        until it has its name, so that nobody takes it for the file of a killed writer.
        """
        if replaced is not None:
            if not os.path.exists(self.path) or not os.path.samestat(os.stat(self.path), replaced):
                raise self._appeared()
            os.replace(self.partial, self.path)
        else:
            try:
                rename_noreplace(self.partial, self.path)
            except FileExistsError:
                raise self._appeared() from None
        Path(self.leftover).unlink(missing_ok=True)
        sync_folder(os.path.dirname(self.path))
        self.file.close()

    def _appeared(self) -> ImagingError:
        return ImagingError(
            f"{self.path} was created or changed by something else meanwhile, and was left as it is. Run again."
        )

    def release(self, keep: bool) -> int:
        """Unlock the file. With ``keep``, the larger of this file and that of earlier captures stays, else the latter; returns its size in bytes.

        Does nothing after a commit.
        """
        if self.file.closed:
            return 0
        try:
            self.file.flush()
        except OSError:  # the disk is full: keep what was written
            pass
        if os.path.exists(self.leftover) and (not keep or _size(self.leftover) > _size(self.partial)):
            os.replace(self.leftover, self.partial)
        elif not keep:
            Path(self.partial).unlink(missing_ok=True)
        Path(self.leftover).unlink(missing_ok=True)
        size = _size(self.partial)
        self._close()
        return size

    def remove(self) -> None:
        """Unlock and remove all files. Does nothing after a commit."""
        if not self.file.closed:
            Path(self.leftover).unlink(missing_ok=True)
            Path(self.partial).unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        try:
            self.file.close()
        except OSError:  # the content is not needed any more
            pass


def rename_noreplace(partial: str, path: str) -> None:
    """Rename a file without replacing another one; raises FileExistsError."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (exFAT), where the check is not atomic
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


def sync_folder(path: str) -> None:
    """Make a rename in a folder durable, if the system supports it (macOS refuses fsync on some folders)."""
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
