# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems made in a file of their own and filled, by the same means for root and everybody else: nothing is mounted.

Each function takes an empty file of the right size, the files that go in (path there, file here), and which of them are
removed again, so that free space holds old data. What it makes is clean: nothing in it waits for a recovery or a check.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from .ntfs import NtfsVolume
from .tools import LabError, run

Files = Mapping[str, Path]


def make_fat32(image: Path, files: Files, removed: Sequence[str], start_sector: int) -> None:
    """Make a FAT32, as an EFI system partition has."""
    run("mkfs.fat", "-F", "32", "-n", "ESP", "-h", str(start_sector), image)
    with tempfile.TemporaryDirectory(dir=image.parent) as folder:
        for path, source in files.items():
            Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, Path(folder, path))
        run("mcopy", "-s", "-i", image, *sorted(Path(folder).iterdir()), "::/")
    if removed:
        run("mdel", "-i", image, *(f"::/{path}" for path in removed))


def make_ntfs(image: Path, files: Files, removed: Sequence[str], start_sector: int) -> None:
    """Make an NTFS, as the partition of Windows has."""
    geometry = ["--sector-size", "512", "--heads", "255", "--sectors-per-track", "63"]
    run("mkntfs", "--quick", "--force", "--label", "Windows", *geometry, "--partition-start", str(start_sector), image)
    with NtfsVolume(image) as volume:
        for path, source in files.items():
            volume.write(path, source.read_bytes())
        for path in removed:
            volume.remove(path)


def make_ext4(image: Path, files: Files, removed: Sequence[str], start_sector: int) -> None:
    """Make an ext4, as the partition of a Linux has."""
    del start_sector  # An ext4 does not know it.
    run("mkfs.ext4", "-q", "-F", "-L", "linux", image)
    folders = {folder for path in files for folder in PurePosixPath(path).parents if folder.name}
    commands = [f"mkdir {folder}" for folder in sorted(folders)]
    commands += [f"write {source} {path}" for path, source in files.items()]
    commands += [f"rm {path}" for path in removed]
    # It prints its version to start with, every command and what it did, and goes on after an error.
    complaints = run(
        "sh", "-c", 'debugfs -w -f - "$1" 2>&1 >/dev/null', "sh", image, stdin="\n".join(commands)
    ).splitlines()
    if complaints[1:]:
        raise LabError(f"{image}: debugfs: {complaints[1]}")


def make_swap(image: Path, files: Files, removed: Sequence[str], start_sector: int) -> None:
    """Make a swap area, that keeps what the last boot left there."""
    del files, removed, start_sector
    run("mkswap", "-L", "swap", image)
    with open(image, "r+b") as swap, open("/dev/urandom", "rb") as old:
        swap.seek(2**20)
        swap.write(old.read(2**20))
