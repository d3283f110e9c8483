# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image store: a folder on the controller with one file for each image."""

from __future__ import annotations

import os
import re

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import SUFFIX
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import IMAGE_EXISTS, NO_IMAGE
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_space import check_writable, store_error

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,199}")


def check_name(name: str) -> str:
    """Return an image's name; raises ImagingError when it is none."""
    if not NAME.fullmatch(name) or ".." in name or name.endswith((SUFFIX, ".partial")):
        raise ImagingError(
            f"{name!r} is not a valid image name: expected up to 200 letters, digits and any of _ . + @ : -, beginning with a letter, a digit or _, "
            f"without '..', without folder and without the ending {SUFFIX}."
        )
    return name


class ImageStore:
    """Images by name. Raises ImagingError that says what is there instead."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def image_path(self, name: str) -> str:
        """Where the image of that name lies, or would lie."""
        return os.path.join(self.path, check_name(name) + SUFFIX)

    def names(self) -> list[str]:
        """The names of all images, sorted; none when the store does not exist."""
        try:
            entries = os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ImagingError(f"The image store {self.path} can't be read: {error.strerror}.") from error
        names = (entry[: -len(SUFFIX)] for entry in entries if entry.endswith(SUFFIX))
        return sorted(name for name in names if NAME.fullmatch(name))

    def open(self, name: str) -> ImageReader:
        """Open an image and check that it is whole; raises ImagingError."""
        path = self.image_path(name)
        try:
            source = FileSource(path)
        except FileNotFoundError:
            raise ImagingError(
                f"There is no image {name!r} in {self.path}. {self._what_there_is()}", [NO_IMAGE]
            ) from None
        except OSError as error:
            raise ImagingError(f"{path} can't be read: {error.strerror}.") from error
        return ImageReader(source)

    def _what_there_is(self) -> str:
        names = self.names()
        return f"There are: {', '.join(names)}." if names else "The store is empty: capture a reference first."

    def existing(self, name: str, update: bool) -> ImageReader | None:
        """The image of that name which a capture may replace, or None.

        Raises ImagingError when there is one that it may not, and when the store can't be written to.
        """
        there = os.path.lexists(self.image_path(name))
        if there and not update:
            raise ImagingError(
                f"There is an image {name!r} in {self.path} already, and images are not overwritten by default: set imaging_update: true to bring "
                "it up to date, give the new one another name with imaging_image, or remove the old one with images.yml and "
                f"imaging_remove_images: [{name}].",
                [IMAGE_EXISTS],
            )
        check_writable(self.path)
        return self.open(name) if there else None

    def stage(self, name: str) -> StagedFile:
        """Take the place of an image that is to be made, in a store that is made (mode 0700) if need be; raises ImagingError."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            return StagedFile(self.image_path(name))
        except OSError as error:
            raise store_error(self.path, error) from error
