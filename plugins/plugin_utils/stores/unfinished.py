# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Complete images in the folder for staging whose upload has not ended: the file, and a note that says where it was to go and how far it came.

The file is ``NAME.img.zst.STORE.upload``, where ``STORE`` tells stores with the same folder apart, and the note is the same with ``.json``. Who
works on an upload has a lock on the file. Neither is trusted before it was checked.
"""

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import BadImage, FileSource, ImageReader
from ...module_utils.image.staged_file import sync_folder
from ...module_utils.image.writer import SUFFIX
from ...module_utils.private_files import open_own
from ..verify_images import verify_image
from .base import check_name

MAX_NOTE_SIZE = 64 << 10


@dataclass(frozen=True)
class UploadNote:
    """What the file of an upload is recognised by, and where it was to go.

    ``replaced`` is the entity tag of the image that the upload was to replace, None for none. ``upload_id`` is the server's name of the upload, empty
    before it has one.
    """

    store: str
    endpoint: str
    name: str
    size: int
    root_digest: str
    image_id: str
    replaced: str | None
    upload_id: str = ""

    @classmethod
    def unpack(cls, text: bytes) -> Self | None:
        """Return the note in the content of a file; None when it is none."""
        try:
            note = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        texts = (
            note.store,
            note.endpoint,
            note.name,
            note.root_digest,
            note.image_id,
            note.upload_id,
            note.replaced or "",
        )
        return note if isinstance(note.size, int) and all(isinstance(text, str) for text in texts) else None

    def describes(self, image: ImageReader) -> bool:
        """Return whether an image is, as far as it says itself, the one that was to be uploaded."""
        found = (image.source.size, image.root_digest.hex(), image.header.image_id.hex())
        return found == (self.size, self.root_digest, self.image_id)


class LockedUpload:
    """The file of an upload, locked by this process, and its note, None when there is none that is sound. Close it."""

    def __init__(self, path: str, note: UploadNote | None, descriptor: int) -> None:
        self.path = path
        self.note = note
        self._descriptor = descriptor

    def check(self) -> ImageReader:
        """Read the whole file; raises BadImage unless it is the image that the note describes, and undamaged. Takes seconds for each GiB."""
        image = ImageReader(FileSource(self.path))
        if self.note is None or not self.note.describes(image):
            raise BadImage(
                f"{self.path} is not the image that was to be uploaded: something else changed it, or the note beside it."
            )
        verify_image(image)
        return image

    def remember(self, upload_id: str) -> None:
        """Write the server's name of the upload to the note, durably; raises OSError."""
        if self.note is not None:
            self.note = replace(self.note, upload_id=upload_id)
            write_note(self.path, self.note)

    def remove(self) -> None:
        """Remove the file and its note, and unlock the file."""
        Path(self.path).unlink(missing_ok=True)
        Path(note_path(self.path)).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Unlock the file. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class UnfinishedUploads:
    """The uploads to one store, by the names of their images."""

    def __init__(self, folder: str, store: str, endpoint: str) -> None:
        self._folder = folder
        self._store = store
        self._endpoint = endpoint
        self._suffix = f"{SUFFIX}.{hashlib.sha256(f'{endpoint} {store}'.encode()).hexdigest()[:8]}.upload"

    def path(self, name: str) -> str:
        """Return the path of a file for the upload of an image."""
        return os.path.join(self._folder, check_name(name) + self._suffix)

    def names(self) -> list[str]:
        """Return the names of all images with a file, sorted."""
        try:
            files = os.listdir(self._folder)
        except OSError:
            return []
        return sorted(file[: -len(self._suffix)] for file in files if file.endswith(self._suffix))

    def note(self, name: str) -> UploadNote | None:
        """Return the note of an upload; None when there is none, or none that is sound."""
        try:
            with open(note_path(self.path(name)), "rb") as file:
                note = UploadNote.unpack(file.read(MAX_NOTE_SIZE))
        except OSError:
            return None
        expected = (self._store, self._endpoint, name)
        return note if note and (note.store, note.endpoint, note.name) == expected else None

    def stored_bytes(self, name: str) -> int:
        """Return the size of the file of an upload in bytes; 0 for none."""
        try:
            return os.lstat(self.path(name)).st_size
        except FileNotFoundError:
            return 0

    def running(self, name: str) -> bool:
        """Return whether a process works on an upload now."""
        try:
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def keep(self, partial: str, image: ImageReader, name: str, replaced: str | None, locked: int) -> LockedUpload:
        """Make a finished file one that is to be uploaded; raises OSError. ``locked`` is a descriptor of it, which has the lock."""
        note = UploadNote(
            store=self._store,
            endpoint=self._endpoint,
            name=name,
            size=image.source.size,
            root_digest=image.root_digest.hex(),
            image_id=image.header.image_id.hex(),
            replaced=replaced,
        )
        path = self.path(name)
        write_note(path, note)
        os.replace(partial, path)
        sync_folder(self._folder)
        return LockedUpload(path, note, os.dup(locked))

    def lock(self, name: str) -> LockedUpload | None:
        """Lock the file of an upload and return it; None for none. Raises ImagingError when another process works on it, and OSError."""
        path = self.path(name)
        try:
            descriptor = open_own(path) if os.path.getsize(path) else -1
        except FileNotFoundError:
            descriptor = -1
        if descriptor < 0:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            raise ImagingError(
                f"{path} is being uploaded: another run works on this image. Wait for it, or give this one another name with imaging_image."
            ) from None
        return LockedUpload(path, self.note(name), descriptor)


def note_path(path: str) -> str:
    """Return the path of the note of a file for an upload."""
    return f"{path}.json"


def write_note(path: str, note: UploadNote) -> None:
    """Replace the note of a file for an upload, durably; raises OSError."""
    new = f"{note_path(path)}.new"
    with open(open_own(new), "w", encoding="utf-8") as file:
        file.truncate(0)
        json.dump(asdict(note), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, note_path(path))
