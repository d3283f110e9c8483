# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder on an HTTPS server as an image store, which is only read. The server must serve ranges."""

import re
from typing import NoReturn
from urllib.parse import urlsplit

from ...module_utils.errors import ImagingError
from ...module_utils.image.reader import ImageReader
from ...module_utils.image.staged_file import StagedFile
from ...module_utils.reasons import NO_IMAGE, STORE_NOT_WRITABLE
from ...module_utils.sources.http_file import HttpLocation, NoFile, image_url
from .base import Store, StoreAccess, check_name, local_path

TOKEN = re.compile("[!-~]*")
"""What a header can carry as a token, and a little more than RFC 6750 allows."""


class HttpsStore(Store):
    """Images of an HTTPS server, by name."""

    FORM = "https://HOST/FOLDER without user, password, query and fragment"

    @classmethod
    def takes(cls, location: str) -> bool:
        if not location.startswith("https://"):
            return False
        parts = urlsplit(location)
        if not parts.hostname or parts.port == 0 or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("not the address of a folder")
        return True

    def __init__(self, location: str, access: StoreAccess) -> None:
        self.path = location.rstrip("/")
        self.folder = local_path(access.staging)
        self._access = access

    def names(self) -> NoReturn:
        raise ImagingError(
            f"The images in {self.path} can't be listed, because an HTTPS server has no list of them: name the image with imaging_image."
        )

    def http_location(self, name: str) -> HttpLocation:
        access = self._access
        if access.key and not access.certificate:
            raise ImagingError("imaging_store_key is set without imaging_store_certificate: expected both, or none.")
        location = HttpLocation(
            url=image_url(self.path, check_name(name)),
            ca=access.read("ca"),
            certificate=access.read("certificate"),
            key=access.read("key"),
            token=_token(access),
        )
        try:
            location.tls()
        except (OSError, ValueError) as error:
            raise ImagingError(
                f"The certificates for {self.path} can't be used ({error}): expected PEM files in imaging_store_ca, imaging_store_certificate and, "
                "without a password, imaging_store_key."
            ) from error
        return location

    def has(self, name: str) -> bool:
        try:
            self.http_file(self.http_location(name))
        except NoFile:
            return False
        return True

    def open(self, name: str) -> ImageReader:
        try:
            return ImageReader(self.http_file(self.http_location(name)))
        except NoFile:
            raise self.no_image(name) from None

    def no_image(self, *names: str) -> ImagingError:
        return ImagingError(
            f"There is no image {' or '.join(map(repr, names))} in {self.path}: check imaging_image and imaging_store.",
            [NO_IMAGE],
        )

    def check_writable(self) -> NoReturn:
        raise ImagingError(
            f"The image store {self.path} is only read: set imaging_store to a folder for captures and imports, and copy the images to the server.",
            [STORE_NOT_WRITABLE],
        )

    def stage(self, name: str) -> StagedFile:
        self.check_writable()

    def remove(self, name: str) -> None:
        self.check_writable()


def _token(access: StoreAccess) -> str:
    """Return the bearer token, empty for none; raises ImagingError, which does not show what the file holds instead."""
    token = access.read("token").strip()
    if not TOKEN.fullmatch(token):
        raise ImagingError(
            f"imaging_store_token is {access.token}: expected one token in it, of letters, digits and punctuation without spaces, on one line."
        )
    return token
