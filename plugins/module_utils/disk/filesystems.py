# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a partition holds, and whether its file system is proven clean, so that its own account of free space can be believed.

partclone is no judge of that: it exits 0 on a hibernated NTFS and on an ext4 whose journal was not replayed. Of other file systems than
those with a check here nothing is believed.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, replace
from typing import Callable

from ..errors import ImagingError
from ..printable import printable
from .command import RunCommand
from .fat import CERTAIN_FAT16
from .gpt import SMALLEST_SECTOR, Read, names_partitions

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
    version: str = ""
    partition_table: str = ""
    ambivalent: bool = False
    stray: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class Probe:
    """What a check looks at. ``read`` reads at an offset of the partition; ``node`` is a block device of the partition alone."""

    run: RunCommand
    read: Read
    node: str
    size: int


DIRTY = "dirty"
HIBERNATED = "hibernated"
UNMAPPABLE = "unmappable"
"""Kinds of distrust: not clean; an NTFS that a Windows has left open, as one that is hibernated does; merely one whose map can't be used."""


@dataclass(frozen=True)
class Distrust:
    """Why the account that a file system gives of its free space can't be believed: the kind, and a reason for people."""

    kind: str
    reason: str


Check = Callable[[Probe], "Distrust | None"]
"""Says why the file system can't be trusted, or None when it is proven clean."""


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
    head = _read(path, offset, 2 * SMALLEST_SECTOR)
    if kind in HIDING_AN_MBR and names_partitions(head[:SMALLEST_SECTOR]):
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
        _see_that_it_can_be_read(path, offset, size)
        return Content()
    if result.rc == AMBIVALENT:
        return Content(ambivalent=True)
    if result.rc:
        raise ImagingError(f"blkid can't say what lies at byte {offset} of {path}: {result.complaint()}.")
    lines = (printable(re.sub(r"\\(.)", r"\1", line)) for line in result.out.splitlines())
    values = dict(line.partition("=")[::2] for line in lines)
    return Content(
        values.get("TYPE", ""),
        values.get("USAGE", ""),
        values.get("LABEL", ""),
        values.get("VERSION", ""),
        values.get("PTTYPE", ""),
        uuid=values.get("UUID", ""),
    )


def _see_that_it_can_be_read(path: str, offset: int, size: int) -> None:
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


def distrust(content: Content, probe: Probe) -> Distrust | None:
    """Why the account that a file system gives of its free space can't be believed, or None when it can.

    Raises MissingTool when the check needs a program that is not installed.
    """
    check = CHECKS.get(content.type)
    if check is None:
        return Distrust(UNMAPPABLE, f"a map of {content.type} is not trusted")
    try:
        return check(probe)
    except (struct.error, IndexError):
        return Distrust(DIRTY, f"its {content.type} is damaged: a structure that must be there is not")


def distrust_node(run: RunCommand, content: Content, node: str, size: int) -> Distrust | None:
    """The same of the file system on a block device of its own, of so many bytes."""
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return distrust(content, Probe(run, lambda offset, length: os.pread(descriptor, length, offset), node, size))
    finally:
        os.close(descriptor)


def _bits(value: int, meanings: dict[int, str]) -> Distrust | None:
    """That a file system is not clean, with the meanings of the bits that are set as one reason; None when none is set."""
    reason = " and ".join(meaning for bit, meaning in meanings.items() if value & bit)
    return Distrust(DIRTY, reason) if reason else None


def _distrust_ext(probe: Probe) -> Distrust | None:
    """ext2, ext3 and ext4. Source: the kernel's documentation, filesystems/ext4/super.rst."""
    superblock = probe.read(1024, 1024)
    magic, state = struct.unpack_from("<HH", superblock, 0x38)
    _compatible, incompatible, read_only = struct.unpack_from("<III", superblock, 0x5C)
    (orphan,) = struct.unpack_from("<I", superblock, 0xE8)
    (journal_inode, journal_device) = struct.unpack_from("<II", superblock, 0xE0)
    (errors,) = struct.unpack_from("<I", superblock, 0x194)
    if magic != 0xEF53:
        return Distrust(DIRTY, "its superblock is not where ext4 has it")
    if not state & 0x0001:
        return Distrust(DIRTY, "it was not unmounted cleanly")
    return (
        _bits(state, {0x0002: "it has errors", 0x0004: "orphans are being recovered"})
        or _bits(incompatible, {0x0004: "its journal needs recovery", 0x0008: "it is a journal of another file system"})
        or _bits(read_only, {0x10000: "it has orphaned files to be removed"})
        or (Distrust(DIRTY, "it has orphaned files to be removed") if orphan else None)
        or (Distrust(DIRTY, "its journal is on another device") if journal_device and not journal_inode else None)
        or (Distrust(DIRTY, "it has recorded errors that no check has cleared") if errors else None)
    )


def _fat_by_its_text(boot: bytes) -> int:
    """The bits of a FAT's entries by a letter of a text that means nothing, 0 when it says nothing known.

    By that went partclone before it counted clusters, as 0.3.23 does (get_fat_type in its fatclone.c).
    """
    if boot[38] == 0x29:
        return {"2": 12, "6": 16}.get(chr(boot[58]), 0)
    return 32 if boot[86] == ord("2") else 0


def _distrust_fat(probe: Probe) -> Distrust | None:
    """FAT12, FAT16, FAT32. Source: Microsoft, FAT32 File System Specification 1.03; Linux's linux/msdos_fs.h for the state byte."""
    boot = probe.read(0, 512)
    (sector_size,) = struct.unpack_from("<H", boot, 11)
    cluster_sectors, reserved, fats, root_entries, small_total, _media, small_fat = struct.unpack_from(
        "<BHBHHBH", boot, 13
    )
    large_total, large_fat, flags = struct.unpack_from("<IIH", boot, 32)
    fat_sectors = small_fat or large_fat
    if sector_size not in (512, 1024, 2048, 4096) or not cluster_sectors or not fats or not fat_sectors:
        return Distrust(DIRTY, "its boot sector is damaged")
    overhead = reserved + fats * fat_sectors + -(-root_entries * 32 // sector_size)
    clusters = ((small_total or large_total) - overhead) // cluster_sectors
    state = boot[37] if small_fat else boot[65]
    fat = probe.read(reserved * sector_size, 8)
    dirty = _bits(state, {0x01: "it was not unmounted cleanly", 0x02: "it has recorded disk errors"})
    if dirty:
        return dirty
    if small_fat and clusters < CERTAIN_FAT16:
        # Tried with partclone 0.3.23: some hundred KiB of the files on a floppy's image are lost.
        return Distrust(UNMAPPABLE, "it is a FAT12, of which partclone's map is wrong")
    if _fat_by_its_text(boot) not in (0, 16 if small_fat else 32):
        return Distrust(
            UNMAPPABLE,
            "its boot sector calls it another kind of FAT than it is, and some versions of partclone go by that",
        )
    if small_fat:
        clean, no_errors, mirrored = 1 << 15, 1 << 14, True
        (entry,) = struct.unpack_from("<H", fat, 2)
    else:
        clean, no_errors, mirrored = 1 << 27, 1 << 26, not flags & 0x80
        (entry,) = struct.unpack_from("<I", fat, 4)
    if not entry & clean:
        return Distrust(DIRTY, "it was not unmounted cleanly")
    if not entry & no_errors:
        return Distrust(DIRTY, "it has recorded disk errors")
    return None if mirrored else Distrust(UNMAPPABLE, "only one of its allocation tables is in use")


def _distrust_exfat(probe: Probe) -> Distrust | None:
    """exFAT. Source: Microsoft, exFAT file system specification 1.00, section 3.1.13 (VolumeFlags)."""
    boot = probe.read(0, 512)
    (flags,) = struct.unpack_from("<H", boot, 106)
    if boot[3:11] != b"EXFAT   ":
        return Distrust(DIRTY, "its boot sector is damaged")
    if boot[110] != 1:
        return Distrust(UNMAPPABLE, "it has more than one allocation table")
    return _bits(
        flags,
        {
            0x01: "its second allocation table is in use",
            0x02: "it was not unmounted cleanly",
            0x04: "it has recorded disk errors",
        },
    )


LEFT_OPEN = (
    "a Windows has left it open: it is hibernated, was shut down with fast startup, or was cut off (start it once more, and shut it down with: "
    "shutdown /s /t 0)"
)

NTFS_PROBE = {
    13: Distrust(DIRTY, "it is inconsistent"),
    14: Distrust(HIBERNATED, LEFT_OPEN),
    15: Distrust(DIRTY, "it was not unmounted cleanly"),
}
"""Exit statuses of ntfs-3g.probe. Source: ntfs-3g, include/ntfs-3g/volume.h, ntfs_volume_status. It says 14 of one that is hibernated, and of one
that was only not dismounted (volume.c).
"""


def _distrust_ntfs(probe: Probe) -> Distrust | None:
    """NTFS: its own dirty flag, and ntfs-3g for hibernation and the state of its log."""
    flags = _ntfs_volume_flags(probe.read)
    if flags is None:
        return Distrust(DIRTY, "its $Volume record is damaged")
    dirty = _bits(flags, {0x0001: "it is marked for a check (chkdsk)", 0x4000: "a check (chkdsk) was interrupted"})
    if dirty:
        return dirty
    result = probe.run(["ntfs-3g.probe", "--readwrite", probe.node])
    if result.rc:
        unclear = Distrust(DIRTY, f"ntfs-3g.probe does not call it clean: {result.complaint()}")
        return NTFS_PROBE.get(result.rc, unclear)
    return None


def _ntfs_volume_flags(read: Read) -> int | None:
    """The flags in the $VOLUME_INFORMATION attribute of MFT record 3; None when the record is damaged.

    Source: ntfs-3g, include/ntfs-3g/layout.h: NTFS_BOOT_SECTOR, MFT_RECORD, ATTR_RECORD, VOLUME_INFORMATION.
    """
    boot = read(0, 512)
    (sector_size,) = struct.unpack_from("<H", boot, 11)
    cluster_size = sector_size * (boot[13] if boot[13] <= 0x80 else 1 << (256 - boot[13]))
    mft, _mirror, per_record = struct.unpack_from("<QQb", boot, 48)
    record_size = per_record * cluster_size if per_record > 0 else 1 << -per_record
    if sector_size not in (512, 1024, 2048, 4096) or not 512 <= record_size <= 65536:
        return None
    record = bytearray(read(mft * cluster_size + 3 * record_size, record_size))
    update_offset, update_count, attribute = struct.unpack_from("<4xHH12xH", record)
    if record[:4] != b"FILE" or update_offset + 2 * update_count > record_size:
        return None
    # The last two bytes of every 512 were replaced by a check value.
    for position in range(1, update_count):
        if record[position * 512 - 2 : position * 512] != record[update_offset : update_offset + 2]:
            return None
        saved = update_offset + 2 * position
        record[position * 512 - 2 : position * 512] = record[saved : saved + 2]
    while True:
        kind, length = struct.unpack_from("<II", record, attribute)
        if kind == 0x70:
            (value,) = struct.unpack_from("<H", record, attribute + 20)
            flags: int = struct.unpack_from("<H", record, attribute + value + 10)[0]
            return flags
        if kind == 0xFFFFFFFF or length < 16:
            return None
        attribute += length


def _distrust_xfs(probe: Probe) -> Distrust | None:
    """XFS: its superblock, and what xfs_logprint says of its log. Source: xfsprogs, libxfs/xfs_format.h, struct xfs_dsb."""
    superblock = probe.read(0, 512)
    magic, realtime_blocks, log_start = struct.unpack_from(">I12xQ24xQ", superblock)
    in_progress = superblock[126]
    (incompatible,) = struct.unpack_from(">I", superblock, 216)
    if magic != 0x58465342:
        return Distrust(DIRTY, "its superblock is damaged")
    if in_progress:
        return Distrust(DIRTY, "its making was interrupted")
    if incompatible & 0x10:
        return Distrust(DIRTY, "it needs repair (xfs_repair)")
    if not log_start:
        return Distrust(DIRTY, "its log is on another device")
    if realtime_blocks:
        return Distrust(UNMAPPABLE, "it has a realtime section")
    result = probe.run(["xfs_logprint", "-t", probe.node])
    if result.rc == 0 and "state: <CLEAN>" in result.out:
        return None
    if "state: <DIRTY>" in result.out:
        return Distrust(DIRTY, "its log was not replayed")
    return Distrust(DIRTY, f"xfs_logprint does not call it clean: {result.complaint()}")


def _distrust_btrfs(probe: Probe) -> Distrust | None:
    """btrfs: the log of its superblock at 64 KiB (btrfs on-disk format: magic at 0x40, log_root at 0x60)."""
    superblock = probe.read(0x10000, 0x80)
    if superblock[0x40:0x48] != b"_BHRfS_M":
        return Distrust(DIRTY, "its superblock is damaged")
    return Distrust(DIRTY, "its log was not replayed") if any(superblock[0x60:0x68]) else None


CHECKS: dict[str, Check] = {
    "ext2": _distrust_ext,
    "ext3": _distrust_ext,
    "ext4": _distrust_ext,
    "vfat": _distrust_fat,
    "exfat": _distrust_exfat,
    "ntfs": _distrust_ntfs,
    "xfs": _distrust_xfs,
    "btrfs": _distrust_btrfs,
}
"""By blkid's names of file systems."""

MAPPED = frozenset(CHECKS) - {"btrfs"}
"""Those whose map by partclone is believed when they are clean; that of btrfs has missed blocks in several versions."""
