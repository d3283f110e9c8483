# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the system's programs through a callable that is handed in, so that this package needs no module."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, Callable, NamedTuple, Sequence

from ..errors import ImagingError
from ..printable import printable
from ..reasons import MISSING_PROGRAM

SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
"""Where disk tools lie; not on everybody's PATH."""

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
"""Which package usually has a program, where the package's name is another. All of partclone's programs are in the package of that name."""


class CommandResult(NamedTuple):
    """How a program ended: its exit status, and what it wrote to standard output and standard error."""

    rc: int
    out: str
    err: str

    def complaint(self) -> str:
        """What the program said against it, in one line."""
        said = printable(" ".join((self.err.strip() or self.out.strip()).split())[:400])
        return f"exit status {self.rc}, {said}" if said else f"exit status {self.rc}, no message"


RunCommand = Callable[[Sequence[str]], CommandResult]
"""Runs a program to its end, from one thread only; raises MissingTool."""


class MissingTool(ImagingError):
    """A program that is needed is not installed."""

    code = MISSING_PROGRAM

    def __init__(self, program: str) -> None:
        self.program = program
        self.package = "partclone" if program.startswith("partclone.") else PACKAGES.get(program, program)
        super().__init__(f"The program {program} is not installed on this machine (package {self.package}).")


def find_program(name: str) -> str | None:
    """Where a program lies: on the PATH, or in the system folders."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]))


def english() -> dict[str, str]:
    """This process's environment, for a program that is to speak English."""
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
"""Becomes the program that its arguments name, which the kernel then ends by SIGKILL (9) when the thread that started it ends; prctl(2),
PR_SET_PDEATHSIG (1). A Python without ctypes goes without. Between fork and exec, threads may hold locks, so this is not done there."""


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """A command, its program given by its path, that does not outlive the thread that runs it, even if that is killed; on Linux only."""
    if sys.platform != "linux" or not sys.executable:
        return list(command)
    return [sys.executable, "-I", "-S", "-c", END_WITH_PARENT, str(os.getpid()), *command]


def module_runner(module: Any) -> RunCommand:
    """A RunCommand on top of ``run_command`` of an AnsibleModule. Programs speak English and are found in the system folders, too.

    They do not end with the module when that is killed: most take moments, and a file system that is half enlarged is a broken one.
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
