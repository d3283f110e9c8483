# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT12, FAT16, FAT32. Source: Microsoft, FAT32 File System Specification 1.03; Linux's linux/msdos_fs.h for the state byte."""

from __future__ import annotations

import contextlib
import filecmp
import os
import struct
from typing import Iterator, TypeVar

from ...errors import ImagingError
from ...private_files import scratch_folder
from ..command import RunCommand
from ..file_tree import MAX_FILE_SIZE, FileTree, NoFile, Unreadable, steps
from . import fat_allocation
from .base import DIRTY, UNMAPPABLE, Distrust, FileSystem, FreeSpace, Probe, dirty_bits, own_checker
from .fat_volume import BOOT, CERTAIN_FAT16, SECTOR_SIZES, BadFat, Entry, Fat, WritableFat

AnyFat = TypeVar("AnyFat", bound=Fat)


def _fat_by_its_text(boot: bytes) -> int:
    """Return the bits of a FAT's entries according to a text that has no meaning, 0 when it is unknown.

    partclone used it before it counted clusters, as 0.3.23 does (get_fat_type in its fatclone.c).
    """
    if boot[38] == 0x29:
        return {"2": 12, "6": 16}.get(chr(boot[58]), 0)
    return 32 if boot[86] == ord("2") else 0


def _distrust(probe: Probe) -> Distrust | None:
    boot = probe.read(0, 512)
    sector, per_cluster, reserved, fats, roots, small, _medium, small_fat, large, large_fat = BOOT.unpack_from(boot)
    (flags,) = struct.unpack_from("<H", boot, 40)
    fat_sectors = small_fat or large_fat
    if sector not in SECTOR_SIZES or not per_cluster or not fats or not fat_sectors:
        return Distrust(DIRTY, "its boot sector is damaged")
    overhead = reserved + fats * fat_sectors + -(-roots * 32 // sector)
    clusters = ((small or large) - overhead) // per_cluster
    state = boot[37] if small_fat else boot[65]
    fat = probe.read(reserved * sector, 8)
    dirty = dirty_bits(state, {0x01: "it was not unmounted cleanly", 0x02: "it has recorded disk errors"})
    if dirty:
        return dirty
    if small_fat and clusters < CERTAIN_FAT16:
        # With partclone 0.3.23, some hundred KiB of the files on a floppy's image were lost.
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


def _size(head: bytes) -> int:
    # Bytes per sector at 11; count of sectors at 19 or, where that is 0, at 32 (Microsoft: FAT specification, section 3).
    sector, small, large = struct.unpack_from("<H6xH11xI", head, 11)
    return int(sector * (small or large))


class FatTree(FileTree):
    """A FAT on a block device or in a regular file, which ``fat_volume`` reads and writes. The case of letters does not matter in its names."""

    def __init__(self, _run: RunCommand, node: str) -> None:
        self._node = node

    @contextlib.contextmanager
    def _open(self, kind: type[AnyFat], mode: str = "rb") -> Iterator[AnyFat]:
        try:
            with open(self._node, mode, buffering=0) as device:
                yield kind(device.fileno())
        except (BadFat, OSError) as error:
            raise Unreadable(f"its files can't be read: {getattr(error, 'strerror', None) or error}") from error

    @staticmethod
    def _entry(fat: Fat, path: str) -> Entry | None:
        """Return the entry of a path; None for the root, and when it does not exist."""
        entry, folder = None, Fat.ROOT
        for name in steps(path):
            if entry is not None and not (entry.folder and entry.cluster):
                return None
            folder = entry.cluster if entry is not None else folder
            entry = next((each for each in fat.entries(folder) if each.name.lower() == name.lower()), None)
            if entry is None:
                return None
        return entry

    def names(self, folder: str) -> list[str]:
        with self._open(Fat) as fat:
            entry = self._entry(fat, folder)
            if entry is None:
                return [] if steps(folder) else [each.name for each in fat.entries()]
            return [each.name for each in fat.entries(entry.cluster)] if entry.folder and entry.cluster else []

    def _pieces(self, path: str) -> Iterator[bytes]:
        with self._open(Fat) as fat:
            entry = self._entry(fat, path)
            if entry is None or entry.folder:
                raise NoFile(f"there is no file {path}")
            yield from fat.content(entry)

    def content(self, path: str, length: int = MAX_FILE_SIZE) -> bytes | None:
        found = b""
        try:
            for piece in self._pieces(path):
                found += piece
                if len(found) >= length:
                    break
        except NoFile:
            return None
        return found[:length]

    def save(self, path: str, target: str) -> None:
        with open(target, "wb") as copy:
            for piece in self._pieces(path):
                copy.write(piece)

    def put(self, source: str, path: str) -> None:
        """Copy a file of this machine into this file system, make its folders, and check the copy."""
        with open(source, "rb") as file:
            content = file.read()
        *folders, name = steps(path)
        try:
            with self._open(WritableFat, "r+b") as fat:
                folder = Fat.ROOT
                for step in folders:
                    there = [entry for entry in fat.entries(folder) if entry.name.lower() == step.lower()]
                    if there and not (there[0].folder and there[0].cluster):
                        raise BadFat(f"{step} is a file, where a folder was expected")
                    folder = there[0].cluster if there else fat.make_folder(folder, step)
                fat.write(folder, name, content)
        except Unreadable as error:
            raise Unreadable(f"{path} can't be copied: {error.__cause__ or error}") from error.__cause__
        with scratch_folder() as scratch:
            copy = os.path.join(scratch, "copy")
            self.save(path, copy)
            if not filecmp.cmp(source, copy, shallow=False):
                raise ImagingError(f"{path} was written, and reads back differently")


MAKE_CLEAN = "start it once more and shut it down, or have it checked (Windows: chkdsk /f; Linux: fsck)"

FAT = FileSystem(
    names=("vfat",),
    size=_size,
    check=_distrust,
    free_space=FreeSpace("partclone.fat", own_checker("a check of its directories", fat_allocation)),
    ways_out={"dirty": MAKE_CLEAN},
)
