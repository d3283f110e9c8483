# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the image store takes an image: what a failure to write there means, and whether there is room."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from ..module_utils.errors import ImagingError
from ..module_utils.quantities import size
from ..module_utils.reasons import STORE_FULL, STORE_NOT_WRITABLE

MIN_FREE_SPACE = 16 << 20
"""Bytes that must be free before a laptop is bothered: no image of a disk with a system on it is smaller."""

USUAL_RATIO = 2.0
"""How much the used content of a disk with a system usually shrinks; the disk in the README came to 2.5."""

MAX_RATIO = 6.0
"""No disk with a system is known whose used content shrinks more; those of the tests, with much text, come to 3.2."""

ELSEWHERE = "set imaging_store to a folder elsewhere"

WAYS_OUT = {
    errno.EROFS: f"Its file system is read-only: mount it writable, or {ELSEWHERE}.",
    errno.EACCES: f"This user may not write there: make the user who runs ansible-playbook its owner, or {ELSEWHERE}.",
    errno.EPERM: f"This user may not write there: make the user who runs ansible-playbook its owner, or {ELSEWHERE}.",
    errno.ENOSPC: f"Make room there, or {ELSEWHERE}.",
    errno.EDQUOT: f"This user's quota there is used up: have it raised, remove files of this user's, or {ELSEWHERE}.",
    errno.ENOTDIR: f"A part of that path is a file, where a folder was expected: {ELSEWHERE}.",
    errno.EIO: f"Its disk is failing, or was unplugged: look at the kernel's log (dmesg), and {ELSEWHERE}.",
}


def store_error(path: str, error: OSError) -> ImagingError:
    """What a failure to write to the store means for the person."""
    way_out = WAYS_OUT.get(error.errno or 0, f"See that the folder can be written, or {ELSEWHERE}.")
    return ImagingError(
        f"Writing to the image store {path} failed: {error.strerror or error}. {way_out} Then run again.",
        [STORE_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else STORE_NOT_WRITABLE],
    )


@contextlib.contextmanager
def writing_to(path: str) -> Iterator[None]:
    """Work on the store; raises ImagingError, with what a failure to do so means, instead of OSError."""
    try:
        yield
    except OSError as error:
        raise store_error(path, error) from error


def nearest_folder(path: str) -> str:
    """The folder, or the nearest existing one above it, in which the store will be made."""
    path = os.path.abspath(path)
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def free_bytes(path: str) -> int:
    """Bytes that this user may still write to the file system of a store, which need not exist yet; raises OSError."""
    found = os.statvfs(nearest_folder(path))
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def check_writable(path: str) -> None:
    """Raise ImagingError when the store can't take anything; nothing is left of the attempt."""
    folder = nearest_folder(path)
    with writing_to(path):
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(4096))
        free = free_bytes(path)
    if free < MIN_FREE_SPACE:
        raise ImagingError(
            f"The image store {path} has {size(free)} free, which is too little for any image. "
            f"{WAYS_OUT[errno.ENOSPC]} Then run again.",
            [STORE_FULL],
        )


def mapped_bytes(source: Mapping[str, Any]) -> tuple[int, int]:
    """Of the partitions that an image's header describes, how many used bytes a file system knows of, and how many all have."""
    mapped = whole = 0
    partitions = source.get("partitions")
    for partition in partitions if isinstance(partitions, list) else ():
        used = partition.get("used") if isinstance(partition, Mapping) else None
        if isinstance(used, int) and not isinstance(used, bool) and used > 0:
            whole += used
            mapped += used if partition.get("method") == "partclone" else 0
    return mapped, whole


def check_free_space(path: str, source: Mapping[str, Any], ratio: float | None, there: int) -> str:
    """Compare what is free with what a disk has that is about to be captured; returns a warning, or nothing.

    ``source`` is what the image's header says of the disk, ``ratio`` how much the image shrank that is brought up to date, ``there`` how many
    bytes the store has already that may be shared with the new image. Raises ImagingError when it can't fit.
    """
    mapped, whole = mapped_bytes(source)
    with writing_to(path):
        free = free_bytes(path)
    if free + there < mapped / max(MAX_RATIO, 2 * (ratio or 0)):
        raise ImagingError(
            f"The image store {path} has {size(free)} free, and {size(mapped)} of the disk's file systems are used: "
            f"compressed, that takes about {size(int(mapped / (ratio or USUAL_RATIO)))}. {WAYS_OUT[errno.ENOSPC]} Then run again.",
            [STORE_FULL],
        )
    likely = int(whole / (ratio or USUAL_RATIO))
    if free < likely:
        return (
            f"The image store {path} has {size(free)} free, and this image will take about {size(likely)}: the capture "
            "may run out of room. What is stored by then is kept."
        )
    return ""
