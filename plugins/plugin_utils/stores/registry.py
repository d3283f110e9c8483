# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of image stores."""

from collections.abc import Callable, Mapping
from typing import Any

from ...module_utils.errors import ImagingError
from ...module_utils.printable import without_secrets
from .base import Store, StoreAccess
from .folder import FolderStore
from .https import HttpsStore
from .s3 import S3Store

KINDS: tuple[type[Store], ...] = (S3Store, HttpsStore, FolderStore)

FORMS = ", or ".join(kind.FORM for kind in reversed(KINDS))
"""How the location of a store is written."""


def kind_of(location: str) -> type[Store] | None:
    """Return the kind of store that a location is of; None when it is of none, or written wrongly."""
    try:
        return next((kind for kind in KINDS if kind.takes(location)), None)
    except ValueError:
        return None


def open_store(arguments: Mapping[str, Any], say: Callable[[str], object] | None = None) -> Store:
    """Return the store that a module's arguments (``arguments.STORE``) describe; raises ImagingError. ``say`` is as of Store."""
    kind = kind_of(arguments["store"])
    if kind is None:
        raise ImagingError(f"{without_secrets(arguments['store'])!r} is not an image store: expected {FORMS}.")
    store = kind(arguments["store"], StoreAccess.of(arguments))
    store.say = say or store.say
    return store


def report_folder(location: str, staging: str) -> str:
    """Return the folder on this machine for the reports of a store; raises ValueError for a location that is no store."""
    kind = kind_of(location)
    if kind is None:
        raise ValueError(f"{without_secrets(location)!r} is not an image store")
    return kind(location, StoreAccess(staging=staging)).folder
