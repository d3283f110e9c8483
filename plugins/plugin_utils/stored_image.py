# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of the store, as what laptops are made equal to. A disk that a laptop shares (``shared_disk.SharedDisk``) is the other such thing."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ..module_utils.image.reader import ImageReader
from ..module_utils.serving.stored import StoredSource
from ..module_utils.sources.http_file import HttpLocation
from ..module_utils.timeouts import Timeouts
from .stores.base import Store


@dataclass(frozen=True)
class StoredImage:
    """An image in a store, opened."""

    store: Store
    name: str
    reader: ImageReader
    origin: None = None
    """No laptop has it from the beginning."""

    @property
    def root_digest(self) -> bytes:
        """The root digest of the image."""
        return self.reader.root_digest

    @property
    def image_id(self) -> bytes:
        """What tells its records from those of any other image."""
        return self.reader.header.image_id

    @property
    def max_sent(self) -> int:
        """The maximum bytes of frames that are sent to a laptop."""
        return self.reader.stored_bytes

    def location(self) -> HttpLocation | None:
        """Return where a laptop can read it itself; None when only this machine can."""
        return self.store.http_location(self.name)

    def source(self, _host: str, _timeouts: Timeouts, _reach: object) -> AbstractContextManager[StoredSource]:
        """Return what serves it to a laptop."""
        return nullcontext(StoredSource(self.reader))

    def facts(self, used_bytes: int) -> dict[str, Any]:
        """Return the part of a result about the image's file."""
        return {"stored_bytes": self.reader.stored_bytes, "ratio": round(used_bytes / self.reader.stored_bytes, 3)}
