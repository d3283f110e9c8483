# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What blkid finds in a partition or on a disk, and what it has to be asked more closely for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from ..errors import ImagingError
from ..printable import printable
from .command import RunCommand
from .gpt import MIN_SECTOR_SIZE, names_partitions

NOTHING_FOUND = 2
AMBIVALENT = 8
"""Exit statuses of blkid(8) with --probe."""


LOOKED_AT = 1 << 20
"""Bytes at the start and at the end of something, in which blkid looks for signatures."""


@dataclass(frozen=True)
class Content:
    """What lies in a partition or on a disk, as blkid says; everything is empty when it is not known.

    ``usage`` is "filesystem", "raid", "crypto" or "other". ``partition_table`` is the type of one that lies there. ``ambivalent`` says that
    blkid finds several things; ``stray`` names a signature that was found and is not what the place holds, such as a part of a file.
    """

    type: str = ""
    usage: str = ""
    label: str = ""
    partition_table: str = ""
    ambivalent: bool = False
    stray: str = ""
    uuid: str = ""


LUKS = "crypto_LUKS"
LUKS_MAGIC = b"LUKS\xba\xbe"
"""blkid's name, and what a LUKS begins with. blkid also knows the second header of a LUKS2, up to 4 MiB behind that, by itself (LUKS2 On-Disk
Format Specification, section 2.1): in a file of a file system it says nothing of the partition."""


HIDING_AN_MBR = ("vfat", "ntfs", "exfat")
"""File systems in whose boot sector blkid, by version, looks for no MBR (libblkid, partitions/dos.c). A kernel does, and one may have come later."""

SLICES = {
    "bsd": (512, bytes.fromhex("57455682")),
    "solaris": (512 + 12, bytes.fromhex("eeed0d60")),
}
"""Tables that divide a partition, and that blkid looks for only when it is asked for their entries: where their mark is, and what it is (Linux,
block/partitions/msdos.h: BSD_DISKMAGIC, SOLARIS_X86_VTOC_SANE)."""


def detect(run: RunCommand, path: str, offset: int = 0, size: int = 0) -> Content:
    """What lies in ``size`` bytes at ``offset`` of a block device or regular file; size 0 means all of it. Raises ImagingError."""
    content = _probe(run, path, offset, size)
    if content.type and not content.partition_table:
        content = replace(content, partition_table=_hidden_table(path, offset, content.type))
    if content.type != LUKS or _read(path, offset, len(LUKS_MAGIC)) == LUKS_MAGIC:
        return content
    beside = _probe(run, path, offset, size, "--match-types", f"no{LUKS}")
    return replace(beside, stray=LUKS) if beside.type else content


def _hidden_table(path: str, offset: int, kind: str) -> str:
    """The type of a partition table that blkid did not look for beside a content of this kind, or nothing."""
    head = _read(path, offset, 2 * MIN_SECTOR_SIZE)
    if kind in HIDING_AN_MBR and names_partitions(head[:MIN_SECTOR_SIZE]):
        return "dos"
    return next((name for name, (place, mark) in SLICES.items() if head.startswith(mark, place)), "")


def _read(path: str, offset: int, length: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as device:
            return os.pread(device.fileno(), length, offset)
    except OSError as error:
        raise ImagingError(f"{path} can't be read at byte {offset}: {error.strerror}.") from error


def _probe(run: RunCommand, path: str, offset: int, size: int, *options: str) -> Content:
    part = ["-O", str(offset), "-S", str(size)] if size else []
    result = run(["blkid", "-p", *options, *part, "-o", "export", path])
    if result.rc == NOTHING_FOUND and not result.err.strip():
        _check_readable(path, offset, size)
        return Content()
    if result.rc == AMBIVALENT:
        return Content(ambivalent=True)
    if result.rc:
        raise ImagingError(f"blkid can't say what lies at byte {offset} of {path}: {result.complaint()}.")
    lines = (printable(re.sub(r"\\(.)", r"\1", line)) for line in result.out.splitlines())
    values = dict(line.partition("=")[::2] for line in lines)
    return Content(
        type=values.get("TYPE", ""),
        usage=values.get("USAGE", ""),
        label=values.get("LABEL", ""),
        partition_table=values.get("PTTYPE", ""),
        uuid=values.get("UUID", ""),
    )


def _check_readable(path: str, offset: int, size: int) -> None:
    """Raise ImagingError when what blkid looks at can't be read: it says then that there is nothing, as it does of what is empty."""
    try:
        with open(path, "rb", buffering=0) as disk:
            end = offset + size if size else disk.seek(0, os.SEEK_END)
            for place in (offset, max(offset, end - LOOKED_AT)):
                stop, found = min(end, place + LOOKED_AT), 1
                while place < stop and found:
                    found = len(os.pread(disk.fileno(), stop - place, place))
                    place += found
    except OSError as error:
        raise ImagingError(
            f"{path} can't be read at byte {offset}, so blkid can't tell what lies there: {error.strerror}."
        ) from error
