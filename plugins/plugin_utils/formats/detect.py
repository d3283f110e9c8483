# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file is that somebody calls an image of a disk: by its first bytes, never by its name.

The compressed formats are in ``compressions.py``.
"""

import os
import re
from dataclasses import dataclass

from ...module_utils.errors import ImagingError
from ...module_utils.image.record import HEADER_MAGIC
from .compressions import COMPRESSIONS

RAW = "raw"
FLEET = "fleet.imaging"

HEAD = 64
"""Bytes that are looked at."""

OTHERS = (
    (b"QFI\xfb", "a qcow2 image"),
    (b"KDMV", "a VMDK image"),
    (b"vhdxfile", "a VHDX image"),
    (b"conectix", "a VHD image"),
    (b"<<< ", "a VirtualBox image"),
    (b"partclone-image", "an image of partclone"),
    (b"EVF\x09", "an EWF image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"\x89LZO", "compressed with lzop"),
    (b"LZIP", "compressed with lzip"),
)

ENDINGS = (*(each.ending for each in COMPRESSIONS.values()), ".img", ".raw", ".dd", ".bin")
INVALID_CHARACTERS = re.compile(r"[^A-Za-z0-9_.+@:-]+")


@dataclass(frozen=True)
class DiskImageFile:
    """A file and what it holds."""

    path: str
    format: str
    size: int
    mtime_ns: int

    @property
    def identity(self) -> dict[str, int | str]:
        """What tells this file from another, or from itself once it is changed."""
        return {"path": self.path, "size": self.size, "mtime_ns": self.mtime_ns}


def detect_format(path: str) -> DiskImageFile:
    """Say what a file is; raises ImagingError when there is none, or it is nothing that can be imported."""
    real = os.path.realpath(os.path.expanduser(path))
    try:
        with open(real, "rb") as file:
            found = os.fstat(file.fileno())
            head = file.read(HEAD)
    except OSError as error:
        raise ImagingError(
            f"{path} can't be read: {error.strerror}. It lies on this machine, the controller."
        ) from error
    if not os.path.isfile(real):
        raise ImagingError(f"{path} is not a regular file. To make an image of a disk of a laptop, run capture.yml.")
    if not head:
        raise ImagingError(f"{path} is empty.")
    return DiskImageFile(real, _format(path, head), found.st_size, found.st_mtime_ns)


def _format(path: str, head: bytes) -> str:
    if head.startswith(HEADER_MAGIC.to_bytes(4, "little")):
        return FLEET
    for each in COMPRESSIONS.values():
        if each.start.match(head):
            return each.name
    for magic, what in OTHERS:
        if head.startswith(magic):
            raise ImagingError(
                f"{path} is {what}. What can be imported is a disk as dd reads it, plain or compressed with one of {', '.join(COMPRESSIONS)}: turn "
                "it into one first (virtual disks with qemu-img convert -O raw)."
            )
    return RAW


def name_for(path: str) -> str:
    """A name for the image that a file becomes: the file's own, without its endings."""
    name = os.path.basename(path)
    while True:
        stem = next(
            (name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending) and len(name) > len(ending)),
            name,
        )
        if stem == name:
            break
        name = stem
    name = INVALID_CHARACTERS.sub("-", name).strip("-.")
    while ".." in name:
        name = name.replace("..", ".")
    if not name:
        raise ImagingError(f"{path} has no name that an image could have: set imaging_image.")
    return name[:200]
