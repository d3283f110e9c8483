# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides whether a disk can hold an image, and whether the image was captured from that disk."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Iterator, Mapping

from ..errors import ImagingError
from ..reasons import REFERENCE, SECTOR_SIZE, TOO_SMALL, Reason


@dataclass(frozen=True)
class ImageFacts:
    """The facts of an image that decide this. Sizes are in bytes; ``source_*`` describes the captured disk, empty where unknown.

    ``minimum_reason`` says what determines ``minimum_size``.
    """

    name: str
    minimum_size: int
    minimum_reason: str
    logical_sector_size: int
    source_serial: str
    source_wwn: str
    source_host: str
    source_device: str

    @classmethod
    def of(cls, image: Mapping[str, Any]) -> ImageFacts:
        """Read the result of M(fleet.imaging.image_info); raises ImagingError when a fact is missing."""
        values = {field.name: image.get(field.name) for field in fields(cls)}
        for name, value in values.items():
            kind = int if name.endswith("_size") else str
            if not isinstance(value, kind):
                raise ImagingError(
                    f"The option image has {value!r} as {name}: pass the image as fleet.imaging.image_info returns it."
                )
        return cls(**values)  # type: ignore[arg-type]


def reasons_against(
    image: ImageFacts,
    path: str,
    size: int,
    logical_sector_size: int,
    serial: str,
    wwn: str,
    host: str,
    erase: bool,
) -> Iterator[Reason]:
    """Yield the reasons against writing an image to a disk.

    ``host`` is the controller's name for this machine. With ``erase`` false, the disk is only compared, and may be the one that was captured.
    """
    called = f"the image {image.name}" if image.name else "the image"
    if size < image.minimum_size:
        yield Reason(
            TOO_SMALL,
            f"{path} has {size} bytes and {called} needs {image.minimum_size}: {image.minimum_size - size} bytes too few, because of "
            f"{image.minimum_reason}. Use a larger disk, or shrink that on the reference and capture again.",
        )
    if logical_sector_size != image.logical_sector_size:
        yield Reason(
            SECTOR_SIZE,
            f"{path} has sectors of {logical_sector_size} bytes and {called}'s disk has {image.logical_sector_size}: partition tables and file "
            "systems count in sectors, so it would not boot. Use a disk with the same sector size.",
        )
    same = _same_disk(image, path, serial, wwn, host) if erase else ""
    if same:
        yield Reason(
            REFERENCE,
            f"{path} is the disk that {called} was captured from (the same {same}): the reference is never restored. "
            "Check which laptop this is.",
        )


def _same_disk(image: ImageFacts, path: str, serial: str, wwn: str, host: str) -> str:
    """Return which property shows that the image was captured from this disk; empty for another disk.

    Cheap disks share serial numbers, so if both disks have a world wide name, only that decides. If neither has a serial number or a world wide name,
    the host's name and the disk's path decide.
    """
    if wwn and image.source_wwn:
        return f"WWN, {wwn}" if wwn == image.source_wwn else ""
    if serial and serial == image.source_serial:
        return f"serial number, {serial}"
    known = serial or wwn or image.source_serial or image.source_wwn
    if not known and host and (host, path) == (image.source_host, image.source_device):
        return f"host and device, {host} {path}"
    return ""
