# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bucket of S3 by boto3, which finds its keys, region and profile where it always does. It is only needed with a store in S3."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import Unreadable
from ...module_utils.image.writer import SUFFIX
from .base import StoreAccess, check_name, local_path

MISSING = ("404", "NoSuchKey", "NotFound")
REPLACED = ("PreconditionFailed", "ConditionalRequestConflict")
NO_UPLOAD = "NoSuchUpload"
"""Codes of the errors of S3: no such image; the image is there, or is not the one that was to be replaced; no such upload."""

Target = Mapping[str, str]
"""Bucket and key of an image, by their names in requests."""


@functools.cache
def sdk() -> Any:
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


def code_of(error: Any) -> str:
    """Return the code of an exception of boto3, empty for none."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


class Bucket:
    """A prefix in a bucket."""

    def __init__(self, path: str, access: StoreAccess) -> None:
        """``path`` is s3://BUCKET or s3://BUCKET/PREFIX. Nothing is read yet."""
        parts = urlsplit(path)
        self.path = path
        self.name = parts.netloc
        self.prefix = parts.path.lstrip("/") + "/" if parts.path else ""
        self._access = access

    @functools.cached_property
    def client(self) -> Any:
        """The client of boto3; raises ImagingError."""
        with self.told("reached"):
            return (
                sdk()
                .Session()
                .client(
                    "s3",
                    endpoint_url=self._access.endpoint or None,
                    verify=local_path(self._access.ca) if self._access.ca else None,
                    config=sdk().Config(
                        signature_version="s3v4",
                        connect_timeout=10,
                        read_timeout=60,
                        retries={"mode": "standard"},  # also of 429 and 503, three times with growing pauses
                        s3={"payload_signing_enabled": True},  # the server checks the hash of what is uploaded
                    ),
                )
            )

    @contextlib.contextmanager
    def told(self, what: str, kind: type[ImagingError] = Unreadable) -> Iterator[None]:
        """Raise an error of boto3 as one that says what could not be done, and why; without boto3, raise how to get it."""
        if sdk() is None:
            raise ImagingError(
                f"The image store {self.path} needs boto3 on this machine: install it for the Python of ansible-playbook (pip install boto3), and "
                "run again."
            )
        try:
            yield
        except sdk().NoCredentialsError as error:
            raise kind(
                f"The image store {self.path} can't be {what}: there are no credentials for S3. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, for ansible-playbook, as for any program with boto3."
            ) from error
        except (sdk().ClientError, sdk().BotoCoreError, OSError, ValueError) as error:
            no_bucket = code_of(error) == "NoSuchBucket"
            reason = f"there is no bucket {self.name}; create it first" if no_bucket else str(error)
            raise kind(f"The image store {self.path} can't be {what}: {reason.rstrip('.')}.") from error

    def target(self, name: str) -> Target:
        """Return where the image of a name is; raises ImagingError when it is no name."""
        return {"Bucket": self.name, "Key": f"{self.prefix}{check_name(name)}{SUFFIX}"}

    def tag(self, name: str) -> str | None:
        """Return the entity tag of an image, None when there is none; raises what boto3 raises."""
        client, target = self.client, self.target(name)
        try:
            return str(client.head_object(**target)["ETag"])
        except sdk().ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise
