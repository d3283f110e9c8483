# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prefix in a bucket of S3, or of any server with the same API, as an image store.

Images are read by signed URLs, so that laptops need no keys. boto3 signs them, lists, removes and uploads; it finds its keys, region and profile
where it always does. It is only needed with such a store.
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import ImageReader, Unreadable
from ...module_utils.image.staged_file import StagedFile
from ...module_utils.image.writer import SUFFIX
from ...module_utils.reasons import STORE_NOT_WRITABLE
from ...module_utils.sources.http_file import PATIENT_RATE, HttpFile, HttpLocation, NoFile
from ...module_utils.timeouts import DEFAULTS
from ..store_space import check_writable, writing_to
from ..verify_images import in_order
from .base import Store, StoreAccess, check_name, image_names, local_path

BUCKET = re.compile("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""The names of buckets. Source: the rules in the user guide of Amazon S3."""

SIGNED_SECONDS = 12 * 3600
"""How long a signed URL is valid: longer than a restore takes. The longest that S3 allows is a week."""

PART_SIZE = 16 << 20
"""Bytes of a part of an upload; more for an image of more than MAX_PARTS parts."""

MAX_PARTS = 10_000
"""Maximum number of parts of an upload. Source: the limits of multipart uploads in the user guide of Amazon S3."""

MISSING = ("404", "NoSuchKey", "NotFound")
REPLACED = ("PreconditionFailed", "ConditionalRequestConflict")
"""Codes of the errors of S3: no such image; the image is there, or is not the one that was to be replaced."""


@functools.cache
def _sdk() -> Any:
    """Return what is used of boto3; None when it is not installed. Its import takes half a second, for which only users of such a store wait."""
    try:
        from boto3.session import Session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    except ImportError:
        return None
    return SimpleNamespace(
        Session=Session,
        Config=Config,
        BotoCoreError=BotoCoreError,
        ClientError=ClientError,
        NoCredentialsError=NoCredentialsError,
    )


class S3Store(Store):
    """Images in a bucket, by name. A new image is written to the folder for staging, and is uploaded when it is complete."""

    FORM: ClassVar[str] = "s3://BUCKET or s3://BUCKET/PREFIX"

    @classmethod
    def takes(cls, location: str) -> bool:
        if not location.startswith("s3://"):
            return False
        parts = urlsplit(location)
        if not BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment or "//" in parts.path:
            raise ValueError("not a bucket with a prefix")
        return True

    def __init__(self, location: str, access: StoreAccess) -> None:
        self.path = location.rstrip("/")
        self.folder = local_path(access.staging)
        parts = urlsplit(self.path)
        self._bucket = parts.netloc
        self._prefix = parts.path.lstrip("/") + "/" if parts.path else ""
        self._access = access

    @functools.cached_property
    def _client(self) -> Any:
        if _sdk() is None:
            raise ImagingError(
                f"The image store {self.path} needs boto3 on this machine: install it for the Python of ansible-playbook (pip install boto3), and "
                "run again."
            )
        config = _sdk().Config(
            signature_version="s3v4",
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard"},  # also of 429 and 503, three times with growing pauses
            s3={"payload_signing_enabled": True},  # the server checks the hash of what is uploaded
        )
        verify = local_path(self._access.ca) if self._access.ca else None
        with self._told("reached"):
            return (
                _sdk().Session().client("s3", endpoint_url=self._access.endpoint or None, verify=verify, config=config)
            )

    @contextlib.contextmanager
    def _told(self, what: str, kind: type[ImagingError] = Unreadable) -> Iterator[None]:
        """Raise an error of boto3 as one that says what could not be done, and why."""
        try:
            yield
        except _sdk().NoCredentialsError as error:
            raise kind(
                f"The image store {self.path} can't be {what}: there are no credentials for S3. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, for ansible-playbook, as for any program with boto3."
            ) from error
        except _sdk().ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            reason = f"there is no bucket {self._bucket}; create it first" if code == "NoSuchBucket" else str(error)
            raise kind(f"The image store {self.path} can't be {what}: {reason.rstrip('.')}.") from error
        except (_sdk().BotoCoreError, OSError, ValueError) as error:
            raise kind(f"The image store {self.path} can't be {what}: {str(error).rstrip('.')}.") from error

    def _key(self, name: str) -> str:
        return f"{self._prefix}{check_name(name)}{SUFFIX}"

    def names(self) -> list[str]:
        client = self._client
        with self._told("listed"):
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix, Delimiter="/"
            )
            return image_names(
                [each["Key"][len(self._prefix) :] for page in pages for each in page.get("Contents", ())]
            )

    def has(self, name: str) -> bool:
        client, key = self._client, self._key(name)
        with self._told("read"):
            try:
                client.head_object(Bucket=self._bucket, Key=key)
            except _sdk().ClientError as error:
                if error.response["Error"]["Code"] in MISSING:
                    return False
                raise
        return True

    def http_location(self, name: str) -> HttpLocation:
        client, key = self._client, self._key(name)
        with self._told("read"):
            # A signature that covers a range would be valid for this range alone.
            url = client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=SIGNED_SECONDS
            )
        return HttpLocation(url=url, ca=self._access.read("ca"))

    def open(self, name: str) -> ImageReader:
        location, silence = self.http_location(name), DEFAULTS.http_silence
        file = HttpFile(location, silence, lambda: self.http_location(name), PATIENT_RATE)
        try:
            file.open()
            return ImageReader(file)
        except NoFile:
            raise self.no_image(name) from None

    def check_writable(self) -> None:
        client = self._client
        with self._told("written", _NotWritable):
            try:
                client.head_bucket(Bucket=self._bucket)
            except _sdk().ClientError as error:
                if error.response["Error"]["Code"] in MISSING:
                    error.response["Error"]["Code"] = "NoSuchBucket"  # the response to HEAD has no body that says it
                raise
        check_writable(self.folder)

    def stage(self, name: str) -> StagedFile:
        with writing_to(self.folder):
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            return _UploadedFile(self, name)

    def remove(self, name: str) -> None:
        if not self.has(name):
            raise self.no_image(name)
        with self._told("written", _NotWritable):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def upload(self, path: str, name: str, replaced: str | None) -> None:
        """Upload an image, which is there completely or not at all; ``replaced`` is the entity tag of the one that it replaces, None for none."""
        client, target = self._client, {"Bucket": self._bucket, "Key": self._key(name)}
        condition = {"IfNoneMatch": "*"} if replaced is None else {"IfMatch": replaced}
        with self._told("written", _NotWritable):
            try:
                _upload(client, target, path, condition, self.on_upload)
            except _sdk().ClientError as error:
                if error.response["Error"]["Code"] in REPLACED:
                    raise ImagingError(
                        f"{self.image_path(name)} was created or changed during the capture, and was left as it is. Capture again."
                    ) from error
                raise
            _abort_uploads(client, target)


def _upload(
    client: Any,
    target: Mapping[str, str],
    path: str,
    condition: Mapping[str, str],
    report: Callable[[int, int], object],
) -> None:
    """Upload a file in parts, several at a time, under a condition (RFC 9110, 13.1) that is checked when all are there."""
    size = os.path.getsize(path)
    part_size = max(PART_SIZE, -(-size // MAX_PARTS))
    upload = {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}
    with open(path, "rb") as file:

        def send(number: int) -> dict[str, Any]:
            part = os.pread(file.fileno(), part_size, (number - 1) * part_size)
            answer = client.upload_part(**upload, PartNumber=number, Body=part)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            report(0, size)
            parts = []
            for part in in_order(range(1, -(-size // part_size) + 1), send):
                parts.append(part)
                report(min(size, len(parts) * part_size), size)
            client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **condition)
        except BaseException:
            with contextlib.suppress(_sdk().ClientError, _sdk().BotoCoreError):
                client.abort_multipart_upload(**upload)
            raise


def _abort_uploads(client: Any, target: Mapping[str, str]) -> None:
    """Remove what is left of uploads of an image that were killed, which takes up space unseen. Now that the image is there, none can complete.

    Who may upload need not have the right to do that.
    """
    with contextlib.suppress(_sdk().ClientError, _sdk().BotoCoreError):
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=target["Bucket"], Prefix=target["Key"])
        for upload in [each for page in pages for each in page.get("Uploads", ()) if each["Key"] == target["Key"]]:
            client.abort_multipart_upload(**target, UploadId=upload["UploadId"])


class _NotWritable(ImagingError):
    code = STORE_NOT_WRITABLE


class _UploadedFile(StagedFile):
    """The file in which an image is written, in the folder for staging, and which is uploaded when it is complete."""

    COMMIT_STAGE = "upload"

    def __init__(self, store: S3Store, name: str) -> None:
        super().__init__(os.path.join(store.folder, name + SUFFIX))
        self._store = store
        self._name = name

    def commit(self, replaced: Any) -> None:
        """Upload the finished file, and remove it here; raises ImagingError, and the file stays."""
        self._store.upload(self.partial, self._name, replaced)
        self.remove()
