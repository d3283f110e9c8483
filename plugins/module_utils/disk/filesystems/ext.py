# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ext2, ext3 and ext4. Source: the kernel's documentation, filesystems/ext4/super.rst."""

from __future__ import annotations

import contextlib
import os
import re
import struct

from ...printable import printable
from ..command import CommandResult, RunCommand
from ..file_tree import MAX_FILE_SIZE, FileTree, NoFile, Unreadable, as_bytes
from ..systems import LINUX
from .base import DIRTY, Checker, Distrust, Files, FileSystem, FreeSpace, Grower, Probe, dirty_bits


def _distrust(probe: Probe) -> Distrust | None:
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
        dirty_bits(state, {0x0002: "it has errors", 0x0004: "orphans are being recovered"})
        or dirty_bits(
            incompatible, {0x0004: "its journal needs recovery", 0x0008: "it is a journal of another file system"}
        )
        or dirty_bits(read_only, {0x10000: "it has orphaned files to be removed"})
        or (Distrust(DIRTY, "it has orphaned files to be removed") if orphan else None)
        or (Distrust(DIRTY, "its journal is on another device") if journal_device and not journal_inode else None)
        or (Distrust(DIRTY, "it has recorded errors that no check has cleared") if errors else None)
    )


def _size(head: bytes) -> int:
    # s_blocks_count at 4 and 0x150, s_log_block_size at 24 of the superblock at 1024 (kernel.org: ext4/super).
    low, exponent = struct.unpack_from("<I16xI", head, 1024 + 4)
    (high,) = struct.unpack_from("<I", head, 1024 + 0x150)
    (features,) = struct.unpack_from("<I", head, 1024 + 0x60)
    return int((low + ((high << 32) if features & 0x80 else 0)) * (1024 << min(exponent, 6)))


DEBUGFS = re.compile(r"debugfs \d")
EXT_NOTHING_THERE = re.compile(r": (File not found by ext2_lookup|Ext2 inode is not a directory)\s*$")
"""debugfs's messages for a path that does not exist."""

LINK_MODE = "12"
"""The first octal digits of a symbolic link's mode (inode(7): S_IFLNK)."""


class ExtTree(FileTree):
    """An ext2, ext3 or ext4 on a block device or in a regular file, read by debugfs."""

    def __init__(self, run: RunCommand, node: str) -> None:
        self._run = run
        self._node = node
        self._modes: dict[str, dict[str, str]] = {}

    def _ask(self, request: str, path: str, target: str = "") -> str | None:
        """Return the output of debugfs; None when the path does not exist, or is not a folder where one was expected."""
        # debugfs supports quotes, but no escape for a quote in them.
        if re.search(r'["\n]', path + target):
            raise Unreadable(f"its {printable(path)} can't be read: debugfs can't handle such a name")
        copy = f' "{target}"' if target else ""
        return self._checked(self._run(["debugfs", "-c", "-R", f'{request} "{path}"{copy}', self._node]), path)

    @staticmethod
    def _checked(result: CommandResult, path: str) -> str | None:
        """Return the output of debugfs. Its exit status is meaningless; the first line on standard error is its version."""
        complaint = " ".join(line for line in result.err.splitlines() if line.strip() and not DEBUGFS.match(line))
        if EXT_NOTHING_THERE.search(complaint):
            return None
        if result.rc or complaint:
            raise Unreadable(f"its {path} can't be read: {complaint or result.complaint()}")
        return result.out

    def _list(self, folder: str) -> dict[str, str]:
        """Return the modes, in octal digits, of the names in a folder. debugfs prints lines of /inode/mode/user/group/name/size/."""
        if folder not in self._modes:
            rows = (line.split("/") for line in (self._ask("ls -p", folder) or "").splitlines())
            there = (row for row in rows if len(row) > 6 and row[5] not in ("", ".", "..") and row[1] != "0")
            self._modes[folder] = {row[5]: row[2] for row in there}
        return self._modes[folder]

    def names(self, folder: str) -> list[str]:
        return list(self._list(folder))

    def link(self, path: str) -> str | None:
        # debugfs shows the target of a short link with its inode, and that of a longer one as the content of a file.
        folder, _slash, name = path.rpartition("/")
        if not self._list(folder or "/").get(name, "").startswith(LINK_MODE):
            return None
        short = re.search(r'^Fast link dest: "(.*)"$', self._ask("stat", path) or "", re.MULTILINE)
        return short[1] if short else self._ask("cat", path)

    def head(self, path: str, length: int) -> bytes:
        # A pipe ends debugfs when it has printed enough.
        if re.search(r'["\n]', path):
            raise Unreadable(f"its {printable(path)} can't be read: debugfs can't handle such a name")
        script = 'debugfs -c -R "$1" "$2" | head -c "$3"'
        result = self._run(["sh", "-c", script, "sh", f'cat "{path}"', self._node, str(length)])
        found = as_bytes(result.out)
        return found if len(found) == length else as_bytes(self._checked(result, path) or "")

    def content(self, path: str, length: int = MAX_FILE_SIZE) -> bytes | None:
        said = self._ask("cat", path)
        return None if said is None else as_bytes(said)[:length]

    def save(self, path: str, target: str) -> None:
        if self._ask("dump", path, target) is None:
            raise NoFile(f"there is no file {path}")
        if not os.path.exists(target):
            raise Unreadable(f"{path} can't be copied to {target}")


EXT = FileSystem(
    names=("ext2", "ext3", "ext4"),
    size=_size,
    check=_distrust,
    # e2fsck(8): 4 are uncorrected errors, as all are when nothing is written; 8 more is an operational error.
    free_space=FreeSpace("partclone.extfs", Checker("e2fsck", ["e2fsck", "-f", "-n"], [4, 12])),
    grower=Grower(("e2fsck", "resize2fs"), ((("e2fsck", "-f", "-p"), (0, 1)), (("resize2fs",), (0,)))),
    files=Files(LINUX, lambda run, node: contextlib.nullcontext(ExtTree(run, node))),
)
