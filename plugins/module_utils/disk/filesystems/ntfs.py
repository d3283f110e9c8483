# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NTFS. Source: ntfs-3g, include/ntfs-3g/layout.h."""

from __future__ import annotations

import contextlib
import re
import struct

from ..command import CommandResult, RunCommand
from ..file_tree import MAX_FILE_SIZE, MAX_SAVED_SIZE, FileTree, NoFile, Unreadable, as_bytes
from ..gpt import Read
from ..systems import WINDOWS
from . import ntfs_allocation
from .base import DIRTY, HIBERNATED, Distrust, Files, FileSystem, FreeSpace, Grower, Probe, dirty_bits, own_checker

LEFT_OPEN = (
    "a Windows has left it open: it is hibernated, was shut down with fast startup, or was cut off (start it once more, and shut it down with: "
    "shutdown /s /t 0)"
)

PROBE = {
    13: Distrust(DIRTY, "it is inconsistent"),
    14: Distrust(HIBERNATED, LEFT_OPEN),
    15: Distrust(DIRTY, "it was not unmounted cleanly"),
}
"""Exit statuses of ntfs-3g.probe (ntfs-3g, include/ntfs-3g/volume.h, ntfs_volume_status). 14 means hibernated or only not dismounted (volume.c)."""


def _distrust(probe: Probe) -> Distrust | None:
    """Check the dirty flag and, with ntfs-3g, hibernation and the state of the log."""
    flags = _volume_flags(probe.read)
    if flags is None:
        return Distrust(DIRTY, "its $Volume record is damaged")
    dirty = dirty_bits(flags, {0x0001: "it is marked for a check (chkdsk)", 0x4000: "a check (chkdsk) was interrupted"})
    if dirty:
        return dirty
    result = probe.run(["ntfs-3g.probe", "--readwrite", probe.node])
    if result.rc:
        unclear = Distrust(DIRTY, f"ntfs-3g.probe does not call it clean: {result.complaint()}")
        return PROBE.get(result.rc, unclear)
    return None


def _volume_flags(read: Read) -> int | None:
    """Return the flags in the $VOLUME_INFORMATION attribute of MFT record 3; None when the record is damaged.

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


def _size(head: bytes) -> int:
    # Bytes per sector at 11, count of sectors at 40; the backup of the boot sector lies behind them (ntfs-3g: layout.h).
    return int(struct.unpack_from("<H", head, 11)[0] * (struct.unpack_from("<Q", head, 40)[0] + 1))


FORCED = ("WARNING: Dirty volume mount was forced", "Cannot represent filename")
"""Messages of ntfsls and ntfscat that are not failures: the file system is dirty; a name that is not valid text was left out."""

NOTHING_THERE = re.compile(r"Couldn't open inode: No such file|Cannot find attribute type 0x80")
"""ntfscat's messages for a path that does not exist, and for a folder."""


class NtfsTree(FileTree):
    """An NTFS on a block device or in a regular file, read by ntfsls and ntfscat."""

    def __init__(self, run: RunCommand, node: str) -> None:
        self._run = run
        self._node = node
        self._names: dict[str, list[str]] = {}

    def names(self, folder: str) -> list[str]:
        # ntfsls ends with 3 if there is no such folder and if it is damaged, and with 0 if a part of it is damaged.
        if folder not in self._names:
            result = self._run(["ntfsls", "--force", "--path", folder, self._node])
            names = [line for line in result.out.splitlines() if line not in ("", ".", "..")]
            parent, _slash, name = folder.rpartition("/")
            lost = result.rc and not result.out and name in self._names.get(parent or "/", ())
            if _failure(result) or lost or (result.rc and folder == "/" and not names):
                raise Unreadable(f"its files can't be read: {folder}: {result.complaint()}")
            self._names[folder] = names
        return self._names[folder]

    def content(self, path: str, length: int = MAX_FILE_SIZE) -> bytes | None:
        found = self._checked(self._run(["ntfscat", "--force", self._node, path]), path)
        return None if found is None else found[:length]

    @staticmethod
    def _checked(result: CommandResult, path: str) -> bytes | None:
        """Return the output of ntfscat; None when there is no such file."""
        if NOTHING_THERE.search(result.err):
            return None
        if result.rc or _failure(result):
            raise Unreadable(f"its {path} can't be read: {result.complaint()}")
        return as_bytes(result.out)

    def head(self, path: str, length: int) -> bytes:
        # A pipe ends ntfscat when it has printed enough.
        script = 'ntfscat --force "$1" "$2" | head -c "$3"'
        result = self._run(["sh", "-c", script, "sh", self._node, path, str(length)])
        found = as_bytes(result.out)
        return found if len(found) == length else self._checked(result, path) or b""

    def save(self, path: str, target: str) -> None:
        script = f'ntfscat --force "$1" "$2" | head -c {MAX_SAVED_SIZE} >"$3"'
        if self._checked(self._run(["sh", "-c", script, "sh", self._node, path, target]), path) is None:
            raise NoFile(f"there is no file {path}")


def _failure(result: CommandResult) -> bool:
    return any(line.strip() and not line.strip().startswith(FORCED) for line in result.err.splitlines())


IS_HIBERNATED = "Windows is hibernated or was shut down with fast startup"

NOT_DISMOUNTED = (
    "Windows did not dismount it, and is not hibernated in it: it was unplugged or lost power, or another Windows, which is hibernated or "
    "was shut down with fast startup, has it open"
)


def _tell_hibernation(doubt: Distrust, tree: FileTree) -> Distrust:
    """Distinguish a hibernated NTFS from one that was only not dismounted, by the hibernation file."""
    if doubt.kind != HIBERNATED:
        return doubt
    found = tree.find("/hiberfil.sys")
    if found is not None and tree.head(found, 4).lower() == b"hibr":
        return Distrust(HIBERNATED, IS_HIBERNATED)
    return Distrust(DIRTY, NOT_DISMOUNTED)


NTFS = FileSystem(
    names=("ntfs",),
    size=_size,
    check=_distrust,
    free_space=FreeSpace("partclone.ntfs", own_checker("a check of its MFT", ntfs_allocation)),
    # A single --force avoids questions; a file system that needs a check is still refused.
    grower=Grower(("ntfsresize",), ((("ntfsresize", "--no-progress-bar", "--force"), (0,)),)),
    files=Files(WINDOWS, lambda run, node: contextlib.nullcontext(NtfsTree(run, node)), second_look=_tell_hibernation),
    ways_out={
        "dirty": "start its Windows once more and shut it down completely (shutdown /s /t 0), or have it checked (chkdsk /f)",
        "hibernated": "start it once more, and shut it down completely (powercfg /h off, then shutdown /s /t 0)",
    },
)
