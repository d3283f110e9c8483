# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs programs through a callable that is passed in, so that this package does not depend on Ansible modules."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, Callable, NamedTuple, Sequence

from ..errors import ImagingError
from ..printable import printable
from ..reasons import MISSING_PROGRAM

SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
"""Folders with disk tools, which are not on the PATH of every user."""

PACKAGES = {
    "blkid": "util-linux",
    "btrfs": "btrfs-progs",
    "debugfs": "e2fsprogs",
    "dmsetup": "dmsetup on Debian and Ubuntu, device-mapper elsewhere",
    "e2fsck": "e2fsprogs",
    "losetup": "util-linux (mount on Debian and Ubuntu)",
    "lsblk": "util-linux",
    "lvchange": "lvm2",
    "ntfs-3g.probe": "ntfs-3g",
    "ntfscat": "ntfs-3g",
    "ntfsls": "ntfs-3g",
    "ntfsresize": "ntfs-3g",
    "resize2fs": "e2fsprogs",
    "sfdisk": "fdisk on Debian and Ubuntu, util-linux elsewhere",
    "swapoff": "util-linux (mount on Debian and Ubuntu)",
    "udevadm": "udev",
    "umount": "util-linux (mount on Debian and Ubuntu)",
    "unshare": "util-linux",
    "xfs_growfs": "xfsprogs",
    "xfs_logprint": "xfsprogs",
    "xfs_repair": "xfsprogs",
}
"""The packages of programs that are not in a package of the same name. All programs of partclone are in its package."""


class CommandResult(NamedTuple):
    """The exit status of a program, its standard output and its standard error."""

    rc: int
    out: str
    err: str

    def complaint(self) -> str:
        """Return the exit status and the error message in one line."""
        said = printable(" ".join((self.err.strip() or self.out.strip()).split())[:400])
        return f"exit status {self.rc}, {said}" if said else f"exit status {self.rc}, no message"


RunCommand = Callable[[Sequence[str]], CommandResult]
"""Runs a program to its end. Must be called from one thread only; raises MissingTool."""


class MissingTool(ImagingError):
    """A necessary program is not installed."""

    code = MISSING_PROGRAM

    def __init__(self, program: str) -> None:
        self.program = program
        self.package = "partclone" if program.startswith("partclone.") else PACKAGES.get(program, program)
        super().__init__(f"The program {program} is not installed on this machine (package {self.package}).")


def find_program(name: str) -> str | None:
    """Return the path of a program on the PATH or in the system folders; None when it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]))


def english() -> dict[str, str]:
    """Return the environment for a program whose messages must be in English."""
    return {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}


END_WITH_PARENT = """
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""A program that becomes the one in its arguments, which the kernel ends by SIGKILL (9) when the thread that started it ends: prctl(2),
PR_SET_PDEATHSIG (1). Without ctypes, this has no effect. It can't be done between fork and exec, because threads may hold locks."""


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that ends with the thread that runs it, even if that is killed; on Linux only. The program is given by its path."""
    if sys.platform != "linux" or not sys.executable:
        return list(command)
    return [sys.executable, "-I", "-S", "-c", END_WITH_PARENT, str(os.getpid()), *command]


def module_runner(module: Any) -> RunCommand:
    """Return a RunCommand on top of ``run_command`` of an AnsibleModule. Messages are in English, and system folders are searched, too.

    The programs continue when the module is killed: most end soon, and an interrupted growth would damage the file system.
    """

    def run(command: Sequence[str]) -> CommandResult:
        program = module.get_bin_path(command[0], opt_dirs=SYSTEM_FOLDERS)
        if program is None:
            raise MissingTool(command[0])
        return CommandResult(
            *module.run_command(
                [program, *command[1:]], handle_exceptions=False, environ_update={"LC_ALL": "C", "LANGUAGE": "C"}
            )
        )

    return run
