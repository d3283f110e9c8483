# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every kind of image store can do. A kind is one file here, which the registry lists."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import ImageReader
from ...module_utils.image.staged_file import StagedFile
from ...module_utils.image.writer import SUFFIX
from ...module_utils.reasons import IMAGE_EXISTS, NO_IMAGE
from ...module_utils.sources.http_file import PATIENT_RATE, HttpFile, HttpLocation, Patience
from ...module_utils.timeouts import DEFAULTS

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,199}")

MAX_CREDENTIAL_SIZE = 256 << 10
"""Maximum bytes of a file with certificates, a key or a token: the certificates of all public authorities take as much."""


def check_name(name: str) -> str:
    """Return an image's name; raises ImagingError when it is none."""
    if not NAME.fullmatch(name) or ".." in name or name.endswith((SUFFIX, ".partial")):
        raise ImagingError(
            f"{name!r} is not a valid image name: expected up to 200 letters, digits and any of _ . + @ : -, beginning with a letter, a digit or _, "
            f"without '..', without folder and without the ending {SUFFIX}."
        )
    return name


def local_path(text: str) -> str:
    """Return the absolute path of a file or folder on this machine; ``~`` and variables of the environment are replaced."""
    return os.path.abspath(os.path.expanduser(os.path.expandvars(text)))


@dataclass(frozen=True)
class StoreAccess:
    """What it takes to reach a store that is not a folder. All are settings of the user, and paths on this machine except ``endpoint``.

    ``ca``, ``certificate`` and ``key`` are PEM files, ``token`` is a file with a bearer token; empty for none. ``endpoint`` is the URL of an S3
    service, empty for the one that boto3 is configured for. ``staging`` is the folder for what a store elsewhere has on this machine.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""
    endpoint: str = ""
    staging: str = "~/fleet-images"

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """The access that a module's arguments (``arguments.STORE``) describe."""
        return cls(**{each.name: arguments[f"store_{each.name}"] for each in fields(cls)})

    def read(self, name: str) -> str:
        """Return the content of the file that a field names, empty for none; raises ImagingError."""
        path = getattr(self, name)
        if not path:
            return ""
        setting = f"imaging_store_{name}"
        try:
            with open(local_path(path), encoding="ascii") as file:
                text = file.read(MAX_CREDENTIAL_SIZE + 1)
        except OSError as error:
            raise ImagingError(f"{setting} is {path}, which can't be read: {error.strerror}.") from error
        except ValueError as error:
            raise ImagingError(f"{setting} is {path}, which is not a text of ASCII characters.") from error
        if len(text) > MAX_CREDENTIAL_SIZE or not text.strip():
            raise ImagingError(
                f"{setting} is {path}: expected a file of 1 to {MAX_CREDENTIAL_SIZE} bytes, found {'nothing in it' if not text.strip() else 'more'}."
            )
        return text


@dataclass(frozen=True)
class UploadFacts:
    """What is known of an image that is complete on this machine and not in its store yet.

    ``sent_bytes`` is what the server says that it has of it, None when it was not asked or can't say. ``running`` says whether a process works on it
    now. ``root_digest`` is empty, and ``error`` says why, when the upload can't go on.
    """

    name: str
    path: str
    stored_bytes: int
    root_digest: str = ""
    sent_bytes: int | None = None
    running: bool = False
    error: str = ""


class UnfinishedUpload(ImagingError):
    """An image is complete on this machine, as a file of ``kept_bytes``, and could not be put into its store."""

    def __init__(self, message: str, codes: list[str], kept_bytes: int) -> None:
        super().__init__(message, codes)
        self.kept_bytes = kept_bytes


class Store(ABC):
    """Images by name. All methods raise ImagingError, which says what is there instead or what to do."""

    FORM: ClassVar[str]
    """How a location of this kind is written."""

    path: str
    """Where the store is, as it is shown."""

    on_upload: Callable[[int, int], object] = staticmethod(lambda _done, _total: None)
    """Is called during an upload: the server has so many bytes of so many, at first those of an earlier run."""

    say: Callable[[str], object] = staticmethod(lambda _said: None)
    """Is called with what the user has to know at once."""

    folder: str
    """The folder on this machine for what is not in the store yet, and for reports."""

    @classmethod
    @abstractmethod
    def takes(cls, location: str) -> bool:
        """Return whether a location is of this kind; raises ValueError when it is one that is written wrongly."""

    @abstractmethod
    def __init__(self, location: str, access: StoreAccess) -> None:
        """Nothing is read yet."""

    def image_path(self, name: str) -> str:
        """Return where the image of that name lies, or would lie, as it is shown."""
        return f"{self.path}/{check_name(name)}{SUFFIX}"

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all images, sorted; none when the store does not exist yet."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return whether there is an image of that name, whole or damaged."""

    @abstractmethod
    def open(self, name: str) -> ImageReader:
        """Open an image and check that its structure is whole."""

    def http_location(self, name: str) -> HttpLocation | None:
        """Return where a laptop can read an image itself; None when only this machine can."""
        return None

    @abstractmethod
    def check_writable(self) -> None:
        """Raise ImagingError when the store can't take an image."""

    @abstractmethod
    def stage(self, name: str) -> StagedFile:
        """Return the file in which an image of that name is written, and which puts it into the store."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an image."""

    def unfinished_uploads(self, names: Collection[str] | None = None) -> list[UploadFacts]:
        """Return the images, of these names or all, that are complete on this machine and not in the store yet, by name."""
        return []

    def finish_upload(self, name: str) -> None:
        """Put such an image into the store."""
        raise self.no_upload(name)

    def drop_upload(self, name: str) -> None:
        """Remove such an image from this machine, and what the store has of it."""
        raise self.no_upload(name)

    def http_file(self, location: HttpLocation, renew: Callable[[], HttpLocation] | None = None) -> HttpFile:
        """Open a file on a server, where no other machine has it; ``renew`` is as of HttpFile. Raises NoFile, too."""
        file = HttpFile(location, DEFAULTS.http_silence, renew, PATIENT_RATE, Patience(DEFAULTS.http_busy, self.say))
        file.open()
        return file

    def no_upload(self, name: str) -> ImagingError:
        """Return the error that there is no such image."""
        return ImagingError(
            f"There is no unfinished upload of {name!r} to {self.path}. List them with images.yml.", [NO_IMAGE]
        )

    def existing(self, name: str, update: bool) -> ImageReader | None:
        """Return the image of that name which a capture may replace, or None.

        Raises ImagingError when there is one that it may not replace, and when the store can't be written to.
        """
        there = self.has(name)
        if there and not update:
            raise ImagingError(
                f"There is an image {name!r} in {self.path} already, and images are not overwritten by default: set imaging_update: true to bring "
                "it up to date, give the new one another name with imaging_image, or remove the old one with images.yml and "
                f"imaging_remove_images: [{name}].",
                [IMAGE_EXISTS],
            )
        self.check_writable()
        return self.open(name) if there else None

    def no_image(self, *names: str) -> ImagingError:
        """Return the error that there are no images of these names."""
        found = self.names()
        there = f"There are: {', '.join(found)}." if found else "The store is empty: capture a reference first."
        return ImagingError(f"There is no image {' or '.join(map(repr, names))} in {self.path}. {there}", [NO_IMAGE])


def image_names(files: list[str]) -> list[str]:
    """Return the names of the images among files of a store, sorted."""
    names = (file[: -len(SUFFIX)] for file in files if file.endswith(SUFFIX))
    return sorted(name for name in names if NAME.fullmatch(name))
