# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads of images to a bucket, which go on where they broke off, also in a later run."""

import contextlib
import os
from pathlib import Path
from typing import Any

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import BadImage, FileSource, ImageReader
from ...module_utils.image.staged_file import StagedFile
from ...module_utils.image.writer import SUFFIX
from ...module_utils.quantities import size
from ...module_utils.reasons import STORE_NOT_WRITABLE, UPLOAD_UNFINISHED
from ..interruption import Interrupted
from ..store_space import writing_to
from .base import Store, UnfinishedUpload, UploadFacts
from .s3_bucket import NO_UPLOAD, REPLACED, Bucket, code_of, sdk
from .s3_parts import abort_uploads, listed_parts, upload_file
from .unfinished import LockedUpload, UnfinishedUploads


class NotWritable(ImagingError):
    """The bucket can't be written."""

    code = STORE_NOT_WRITABLE


class ImageChanged(ImagingError):
    """The image that an upload was to replace was replaced by something else meanwhile."""

    code = UPLOAD_UNFINISHED


class Uploads:
    """The uploads to one store. Methods raise ImagingError."""

    def __init__(self, store: Store, bucket: Bucket) -> None:
        self.store = store
        self.files = UnfinishedUploads(store.folder, store.path, bucket.client.meta.endpoint_url)
        self._bucket = bucket

    def put(self, name: str, locked: LockedUpload, replaced: str | None) -> None:
        """Upload a file, or the rest of it, and remove it here. The image is there completely or not at all.

        ``replaced`` is the entity tag of the image that it replaces, None for none.
        """
        with self._bucket.told("written", NotWritable):
            done = self._bucket.tag(name) == replaced and self._complete(name, locked, replaced)
            if not done and not self._is_there(name, locked):
                self._give_up(name, locked, replaced)
            abort_uploads(self._bucket.client, self._bucket.target(name))
        with writing_to(self.store.folder):
            locked.remove()

    def _complete(self, name: str, locked: LockedUpload, replaced: str | None) -> bool:
        """Return whether an upload was completed; False when the server knows no such upload, or the image changed.

        The server checks a condition (RFC 9110, 13.1) when all parts are there.
        """
        client, target = self._bucket.client, self._bucket.target(name)
        condition = {"IfNoneMatch": "*"} if replaced is None else {"IfMatch": replaced}
        try:
            parts = upload_file(client, target, locked, self.store.on_upload, self.store.say)
            client.complete_multipart_upload(**parts, **condition)
        except sdk().ClientError as error:
            if code_of(error) in (*REPLACED, NO_UPLOAD):
                return False
            raise
        return True

    def _is_there(self, name: str, locked: LockedUpload) -> bool:
        """Return whether the image in the store is the one that is to be uploaded: an upload was completed, and the answer was lost."""
        try:
            return locked.note is not None and locked.note.describes(self.store.open(name))
        except ImagingError:
            return False

    def _give_up(self, name: str, locked: LockedUpload, replaced: str | None) -> None:
        """Have the next attempt begin anew, and raise ImagingError, which says why the upload could not be completed."""
        changed = self._bucket.tag(name) != replaced
        self._abort(name, locked)
        locked.remember("")
        if changed:
            raise ImageChanged(
                f"{self.store.image_path(name)} was created or changed meanwhile, and was left as it is."
            )
        raise NotWritable(f"The image store {self.store.path} has dropped what it had of the upload.")

    def _abort(self, name: str, locked: LockedUpload) -> None:
        """Have the server remove what it has of an upload. Who may upload need not have the right to do that."""
        if locked.note is None or not locked.note.upload_id:
            return
        try:
            self._bucket.client.abort_multipart_upload(**self._bucket.target(name), UploadId=locked.note.upload_id)
        except (sdk().ClientError, sdk().BotoCoreError) as error:
            if code_of(error) != NO_UPLOAD:
                self.store.say(
                    f"What {self.store.path} has of the upload of {name} could not be removed there ({error}). A rule of the bucket that ends "
                    "incomplete uploads does that."
                )

    def finished(self, name: str) -> "FinishedUpload | None":
        """Return the image that is complete on this machine and not in the store yet, checked and locked; None for none.

        One that is damaged is removed.
        """
        with writing_to(self.store.folder):
            locked = self.files.lock(name)
            if locked is None:
                return None
            self.store.say(f"{locked.path} is of an upload that did not end. All of it is checked now.")
            try:
                return FinishedUpload(self, name, locked, locked.check())
            except BadImage as error:
                self.store.say(f"{error} It is not used, and was removed.")
                self.drop(name, locked)
                return None
            except BaseException:
                locked.close()
                raise

    def drop(self, name: str, locked: LockedUpload) -> None:
        """Remove the file of an upload, and what the server has of it."""
        self._abort(name, locked)
        with writing_to(self.store.folder):
            locked.remove()

    def facts(self, name: str) -> UploadFacts:
        """Return what is known of an upload."""
        path, note, stored = self.files.path(name), self.files.note(name), self.files.stored_bytes(name)
        running = self.files.running(name)
        if note is None:
            error = f"The note beside {path} is missing or damaged, so it can't be uploaded: drop it, and capture or import it again."
            return UploadFacts(name=name, path=path, stored_bytes=stored, running=running, error=error)
        sent = 0 if not note.upload_id else None
        with contextlib.suppress(sdk().ClientError, sdk().BotoCoreError):
            if note.upload_id:
                parts = listed_parts(self._bucket.client, self._bucket.target(name), note.upload_id)
                sent = sum(part["Size"] for part in parts)
        return UploadFacts(
            name=name,
            path=path,
            stored_bytes=stored,
            root_digest=note.root_digest,
            sent_bytes=sent,
            running=running,
        )


class FinishedUpload:
    """An image that is complete on this machine, locked. Close it."""

    def __init__(self, uploads: Uploads, name: str, locked: LockedUpload, reader: ImageReader) -> None:
        self.reader = reader
        self.replaced = locked.note.replaced if locked.note else None
        """The entity tag of the image that it was to replace, None for none."""
        self._uploads = uploads
        self._name = name
        self._locked = locked

    def commit(self, replaced: Any) -> None:
        """Upload it, or the rest of it, and remove it here; raises UnfinishedUpload, and the file stays."""
        try:
            self._uploads.put(self._name, self._locked, replaced)
        except (ImagingError, Interrupted) as error:
            stored = self.reader.source.size
            if isinstance(error, ImageChanged):
                way = "Capture or import it again with imaging_update: true, which goes on from it, or run images.yml with imaging_uploads: drop."
            else:
                way = (
                    "Run images.yml with imaging_uploads: finish to upload what is missing, or with imaging_uploads: drop to remove it. A capture or "
                    "an import of this name goes on from it, too."
                )
            codes = [*(error.facts["codes"] if isinstance(error, ImagingError) else ()), UPLOAD_UNFINISHED]
            raise UnfinishedUpload(
                f"{str(error).rstrip('.')}. The image is complete, and is kept as {self._locked.path} ({size(stored)}). {way}",
                list(dict.fromkeys(codes)),
                stored,
            ) from error

    def drop(self) -> None:
        """Remove it, and what the server has of it."""
        self._uploads.drop(self._name, self._locked)

    def withdraw(self, path: str) -> None:
        """Make it a file again that is not to be uploaded; raises OSError."""
        os.replace(self._locked.path, path)
        self._locked.remove()

    def close(self) -> None:
        """Unlock it. May be called again."""
        self._locked.close()


class UploadedFile(StagedFile):
    """The file in which an image is written, in the folder for staging, and which is uploaded when it is complete."""

    COMMIT_STAGE = "upload"

    def __init__(self, uploads: Uploads, name: str) -> None:
        self._uploads = uploads
        self._name = name
        self.finished: FinishedUpload | None = uploads.finished(name)
        try:
            super().__init__(os.path.join(uploads.store.folder, name + SUFFIX))
        except BaseException:
            self._let_go()
            raise

    def commit(self, replaced: Any) -> None:
        """Upload the finished file, and remove it here; raises ImagingError, and the file stays."""
        reader = ImageReader(FileSource(self.partial))
        if self.finished is not None:
            self.finished.drop()
        locked = self._uploads.files.keep(self.partial, reader, self._name, replaced, self.file.fileno())
        self.finished = FinishedUpload(self._uploads, self._name, locked, reader)
        Path(self.leftover).unlink(missing_ok=True)
        try:
            self.finished.commit(replaced)
        except UnfinishedUpload as error:
            if isinstance(error.__cause__, ImageChanged):
                self.finished.withdraw(self.partial)
                raise ImageChanged(f"{error.__cause__} Run again.") from error.__cause__
            raise
        self.remove()

    def release(self, keep: bool) -> int:
        self._let_go()
        return super().release(keep)

    def remove(self) -> None:
        self._let_go()
        super().remove()

    def _let_go(self) -> None:
        if self.finished is not None:
            self.finished.close()
            self.finished = None
