# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the content of a partition or a disk with blkid, and checks what blkid does not check by itself."""

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
"""Bytes at the start and at the end of a device in which blkid looks for signatures."""


@dataclass(frozen=True)
class Content:
    """The content of a partition or a disk according to blkid; unknown values are empty.

    ``usage`` is "filesystem", "raid", "crypto" or "other". ``partition_table`` is the type of a partition table in it. ``ambivalent`` means that
    blkid finds several things. ``stray`` is a signature that does not belong to the content, such as one in a file.
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
"""The name that blkid has for LUKS, and the first bytes of a LUKS header. blkid also finds the second header of a LUKS2, up to 4 MiB behind the first
(LUKS2 On-Disk Format Specification, section 2.1). If that header lies in a file, it says nothing about the partition."""

HIDING_AN_MBR = ("vfat", "ntfs", "exfat")
"""File systems in whose boot sector some versions of blkid look for no MBR (libblkid, partitions/dos.c), although the kernel does."""

SLICES = {
    "bsd": (512, bytes.fromhex("57455682")),
    "solaris": (512 + 12, bytes.fromhex("eeed0d60")),
}
"""Tables that divide a partition, with the offset of their magic and the magic. blkid looks for them only when it is asked for their entries. Source:
Linux, block/partitions/msdos.h: BSD_DISKMAGIC, SOLARIS_X86_VTOC_SANE."""


def detect(run: RunCommand, path: str, offset: int = 0, size: int = 0) -> Content:
    """Return the content of ``size`` bytes at ``offset`` of a block device or regular file; size 0 means all of it. Raises ImagingError."""
    content = _probe(run, path, offset, size)
    if content.type and not content.partition_table:
        content = replace(content, partition_table=_hidden_table(path, offset, content.type))
    if content.type != LUKS or _read(path, offset, len(LUKS_MAGIC)) == LUKS_MAGIC:
        return content
    beside = _probe(run, path, offset, size, "--match-types", f"no{LUKS}")
    return replace(beside, stray=LUKS) if beside.type else content


def _hidden_table(path: str, offset: int, kind: str) -> str:
    """Return the type of a partition table that blkid does not look for beside this kind of content; empty when there is none."""
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
    """Raise ImagingError when blkid can't read the range: blkid does not distinguish that from an empty one."""
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
