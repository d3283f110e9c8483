# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads a file to S3 in parts, and goes on with an upload that broke off. Functions raise the exceptions of boto3, and OSError."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from ...module_utils.quantities import size
from ..verify_images import in_order
from .s3_bucket import NO_UPLOAD, Target, code_of, sdk
from .unfinished import LockedUpload

PART_SIZE = 16 << 20
"""Bytes of a part of an upload; more for an image of more than MAX_PARTS parts."""

MAX_PARTS = 10_000
"""Maximum number of parts of an upload. Source: the limits of multipart uploads in the user guide of Amazon S3."""


def upload_file(
    client: Any,
    target: Target,
    locked: LockedUpload,
    report: Callable[[int, int], object],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Upload the parts of a file that the server does not have, several at a time; returns what completes the upload, as arguments of boto3.

    The server keeps what was sent when this fails, and ``locked`` remembers the name of the upload.
    """
    upload_id = locked.note.upload_id if locked.note else ""
    with open(locked.path, "rb") as file:
        parts = _Parts(client, target, file.fileno())
        there = parts.there(upload_id) if upload_id else None
        if upload_id and there is None:
            say(f"The server has dropped what it had of {locked.path}: the upload begins anew.")
        elif there:
            done = sum(map(parts.length, there))
            say(f"The upload of {locked.path} goes on: {size(done, parts.size)} are in the store already.")
        if there is None:
            upload_id, there = client.create_multipart_upload(**target)["UploadId"], {}
            locked.remember(upload_id)
        tags = parts.send(upload_id, there, report)
    listed = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
    return {**target, "UploadId": upload_id, "MultipartUpload": {"Parts": listed}}


class _Parts:
    """The parts of a file, which are numbered from 1."""

    def __init__(self, client: Any, target: Target, descriptor: int) -> None:
        self._client = client
        self._target = target
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._part_size = max(PART_SIZE, -(-self.size // MAX_PARTS))
        self._numbers = range(1, -(-self.size // self._part_size) + 1)

    def length(self, number: int) -> int:
        """Return the bytes of a part."""
        return min(self._part_size, self.size - (number - 1) * self._part_size)

    def _read(self, number: int) -> bytes:
        return os.pread(self._descriptor, self._part_size, (number - 1) * self._part_size)

    def there(self, upload_id: str) -> dict[int, str] | None:
        """Return the entity tags of the parts that the server has as they are in the file, by number; None when it does not know the upload.

        A part counts when its size and the MD5 of its content are those in the file. Where the server encrypts with a key of the user, the tag is no
        MD5 (API reference of Amazon S3, Object), so all parts are sent again.
        """
        try:
            found = {each["PartNumber"]: each for each in listed_parts(self._client, self._target, upload_id)}
        except sdk().ClientError as error:
            if code_of(error) == NO_UPLOAD:
                return None
            raise

        def tag_of_equal(number: int) -> tuple[int, str]:
            part = found[number]
            equal = part["Size"] == self.length(number) and part["ETag"].strip('"') == _md5(self._read(number))
            return number, part["ETag"] if equal else ""

        tags = in_order([number for number in self._numbers if number in found], tag_of_equal)
        return {number: tag for number, tag in tags if tag}

    def send(self, upload_id: str, there: Mapping[int, str], report: Callable[[int, int], object]) -> dict[int, str]:
        """Send all parts but those that are there; returns the entity tags of all by number."""

        def send(number: int) -> tuple[int, str]:
            answer = self._client.upload_part(
                **self._target, UploadId=upload_id, PartNumber=number, Body=self._read(number)
            )
            return number, answer["ETag"]

        tags, done = dict(there), sum(map(self.length, there))
        report(done, self.size)
        for number, tag in in_order([number for number in self._numbers if number not in there], send):
            tags[number] = tag
            done += self.length(number)
            report(done, self.size)
        return tags


def listed_parts(client: Any, target: Target, upload_id: str) -> list[dict[str, Any]]:
    """Return what the server says of the parts that it has of an upload."""
    pages = client.get_paginator("list_parts").paginate(**target, UploadId=upload_id)
    return [part for page in pages for part in page.get("Parts", ())]


def abort_uploads(client: Any, target: Target) -> None:
    """Remove what is left of other uploads of an image, which takes up space unseen. Now that the image is there, none can complete.

    Who may upload need not have the right to do that.
    """
    with contextlib.suppress(sdk().ClientError, sdk().BotoCoreError):
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=target["Bucket"], Prefix=target["Key"])
        for upload in [each for page in pages for each in page.get("Uploads", ()) if each["Key"] == target["Key"]]:
            client.abort_multipart_upload(**target, UploadId=upload["UploadId"])


def _md5(part: bytes) -> str:
    return hashlib.md5(part, usedforsecurity=False).hexdigest()
