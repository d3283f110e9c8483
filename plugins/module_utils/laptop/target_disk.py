# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk of a restore or a comparison, and the request for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

from ..disk.command import RunCommand
from ..disk.image_fit import reasons_against
from ..engine.goal import DISCARD
from ..engine.resize import image_facts
from ..image.header import ImageHeader
from ..image.index import Index
from ..reasons import refuse_for
from ..sources.http_file import HttpLocation
from .held_disk import HeldDisk


@dataclass(frozen=True)
class RestoreRequest:
    """The request for a restore. With ``write`` false the disk is only compared; ``host`` is this laptop's name.

    ``unused`` is one of ``engine.goal.UNUSED``; with ``rewrite``, everything is written, even equal chunks.
    ``servers`` are the HTTP servers that have the image, by their names (``sources.http_image``), in the order in which they are asked.
    With ``relay``, laptops pass the image on to one another. With ``shared``, it is the disk of another laptop: hashes come later, and the root
    digest may be empty.
    """

    device: str
    root_digest: bytes
    expect: Mapping[str, Any] | None
    write: bool
    read_back: bool
    host: str = ""
    unused: str = DISCARD
    rewrite: bool = False
    servers: Mapping[str, HttpLocation] = field(default_factory=dict)
    relay: bool = False
    shared: bool = False


class TargetDisk(HeldDisk):
    """A disk held for writing or comparing, which was not changed yet."""

    def __init__(self, run: RunCommand, request: RestoreRequest) -> None:
        super().__init__(run, request.device, request.expect, writable=request.write)
        self.run = run
        self._request = request

    def check_fits(self, header: ImageHeader, index: Index) -> None:
        """Raise ImagingError when the image does not fit this disk, or was captured from it."""
        reasons = reasons_against(
            image_facts(header, index),
            self.raw.path,
            self.raw.size,
            self.raw.logical_sector_size,
            self.disk.serial,
            self.disk.wwn,
            host=self._request.host,
            erase=self._request.write,
        )
        refuse_for(reasons, "Nothing was written.")

    def __enter__(self) -> TargetDisk:
        return self
