# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder on the controller with one file for each image."""

import os

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import FileSource, ImageReader
from ...module_utils.image.staged_file import StagedFile
from ..store_space import check_writable, writing_to
from .base import Store, StoreAccess, image_names, local_path


class FolderStore(Store):
    """A folder as an image store. It is made by the first image, with mode 0700."""

    FORM = "the path of a folder"

    @classmethod
    def takes(cls, location: str) -> bool:
        """Return whether a location has no scheme."""
        return bool(location.strip()) and "://" not in location

    def __init__(self, location: str, access: StoreAccess | None = None) -> None:
        self.path = self.folder = local_path(location)

    def names(self) -> list[str]:
        try:
            return image_names(os.listdir(self.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ImagingError(f"The image store {self.path} can't be read: {error.strerror}.") from error

    def has(self, name: str) -> bool:
        return os.path.lexists(self.image_path(name))

    def open(self, name: str) -> ImageReader:
        path = self.image_path(name)
        try:
            source = FileSource(path)
        except FileNotFoundError:
            raise self.no_image(name) from None
        except OSError as error:
            raise ImagingError(f"{path} can't be read: {error.strerror}.") from error
        return ImageReader(source)

    def check_writable(self) -> None:
        check_writable(self.path)

    def stage(self, name: str) -> StagedFile:
        with writing_to(self.path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            return StagedFile(self.image_path(name))

    def remove(self, name: str) -> None:
        if not self.has(name):
            raise self.no_image(name)
        with writing_to(self.path):
            os.unlink(self.image_path(name))
