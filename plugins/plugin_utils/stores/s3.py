# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prefix in a bucket of S3, or of any server with the same API, as an image store.

Images are read by signed URLs, so that laptops need no keys. boto3 signs them, lists, removes and uploads.
"""

import functools
import os
import re
from collections.abc import Collection
from typing import ClassVar
from urllib.parse import urlsplit

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import ImageReader
from ...module_utils.image.staged_file import StagedFile
from ...module_utils.sources.http_file import HttpLocation, NoFile
from ..store_space import check_writable, writing_to
from .base import Store, StoreAccess, UploadFacts, image_names, local_path
from .s3_bucket import MISSING, Bucket, code_of, sdk
from .s3_uploads import NotWritable, UploadedFile, Uploads

BUCKET = re.compile("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""The names of buckets. Source: the rules in the user guide of Amazon S3."""

SIGNED_SECONDS = 12 * 3600
"""How long a signed URL is valid: longer than a restore takes. The longest that S3 allows is a week."""


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
        self._bucket = Bucket(self.path, access)
        self._access = access

    @functools.cached_property
    def _uploads(self) -> Uploads:
        return Uploads(self, self._bucket)

    def names(self) -> list[str]:
        bucket, client = self._bucket, self._bucket.client
        with bucket.told("listed"):
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket.name, Prefix=bucket.prefix, Delimiter="/"
            )
            return image_names(
                [each["Key"][len(bucket.prefix) :] for page in pages for each in page.get("Contents", ())]
            )

    def has(self, name: str) -> bool:
        with self._bucket.told("read"):
            return self._bucket.tag(name) is not None

    def http_location(self, name: str) -> HttpLocation:
        bucket, client = self._bucket, self._bucket.client
        with bucket.told("read"):
            # A signature that covers a range would be valid for this range alone.
            url = client.generate_presigned_url("get_object", Params=bucket.target(name), ExpiresIn=SIGNED_SECONDS)
        return HttpLocation(url=url, ca=self._access.read("ca"))

    def open(self, name: str) -> ImageReader:
        try:
            return ImageReader(self.http_file(self.http_location(name), lambda: self.http_location(name)))
        except NoFile:
            raise self.no_image(name) from None

    def check_writable(self) -> None:
        bucket, client = self._bucket, self._bucket.client
        with bucket.told("written", NotWritable):
            try:
                client.head_bucket(Bucket=bucket.name)
            except sdk().ClientError as error:
                if code_of(error) in MISSING:
                    error.response["Error"]["Code"] = "NoSuchBucket"  # the response to HEAD has no body that says it
                raise
        check_writable(self.folder)

    def stage(self, name: str) -> StagedFile:
        with writing_to(self.folder):
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            return UploadedFile(self._uploads, name)

    def remove(self, name: str) -> None:
        if not self.has(name):
            raise self.no_image(name)
        with self._bucket.told("written", NotWritable):
            self._bucket.client.delete_object(**self._bucket.target(name))

    def no_image(self, *names: str) -> ImagingError:
        error = super().no_image(*names)
        unfinished = [name for name in self._uploads.files.names() if name in names]
        if not unfinished:
            return error
        return ImagingError(
            f"{error} The upload of {' and '.join(unfinished)} did not end: run images.yml with imaging_uploads: finish.",
            error.facts["codes"],
        )

    def unfinished_uploads(self, names: Collection[str] | None = None) -> list[UploadFacts]:
        return [self._uploads.facts(name) for name in self._uploads.files.names() if names is None or name in names]

    def finish_upload(self, name: str) -> None:
        finished = self._uploads.finished(name)
        if finished is None:
            raise self.no_upload(name)
        try:
            finished.commit(finished.replaced)
        finally:
            finished.close()

    def drop_upload(self, name: str) -> None:
        with writing_to(self.folder):
            locked = self._uploads.files.lock(name)
        if locked is None:
            raise self.no_upload(name)
        self._uploads.drop(name, locked)
