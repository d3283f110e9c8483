# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the table of docs/fitness.md: file systems that should not be copied by their map, and what each tool says of them.

Usage: PYTHONPATH=.tree python tests/tools/what_others_say.py, as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import examine_disk
from ansible_collections.fleet.imaging.tests.integration.disk_files import MIB, RUN, START, attached, part, single
from ansible_collections.fleet.imaging.tests.integration.test_disks import NTFS, UNCLEAN, XFS_SIZE, mounted, patch
from ansible_collections.fleet.imaging.tests.lab.tools import SEARCH_PATH

SIZE = 32 * MIB
BTRFS_SIZE = 160 * MIB
# Who does not know that it is encrypted takes it for what Windows, or Linux, usually has there.
PARTCLONE = {
    "ntfs": "ntfs",
    "ext4": "extfs",
    "ext2": "extfs",
    "vfat": "fat",
    "exfat": "exfat",
    "xfs": "xfs",
    "btrfs": "btrfs",
    "BitLocker": "ntfs",
    "crypto_LUKS": "extfs",
}
CHECKS = {
    "ntfs": ["ntfsfix", "--no-action"],
    "ext4": ["fsck.ext4", "-n"],
    "ext2": ["fsck.ext2", "-n"],
    "vfat": ["fsck.fat", "-n"],
    "exfat": ["fsck.exfat", "-n"],
    "xfs": ["xfs_repair", "-n"],
    "btrfs": ["btrfs", "check", "--readonly"],
}


def states(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Make each state: its name, a disk with one partition in it, and the size of that."""
    for name, make in (("a clean NTFS", NTFS), ("a clean ext4", ["mkfs.ext4", "-q"])):
        yield name, made(folder, name, SIZE, make), SIZE
    for name, (make, damage, _reason) in UNCLEAN.items():
        disk = made(folder, name, SIZE, make)
        damage(disk)
        yield name, disk, SIZE
    name = "XFS whose log was not replayed"
    disk = made(folder, name, XFS_SIZE, ["mkfs.xfs", "-q", "-f", "-K"])
    with mounted(disk, XFS_SIZE, disk.parent / "mount") as mount:
        for number in range(20):
            (mount / str(number)).write_bytes(bytes(1000))
        subprocess.run(["xfs_io", "-x", "-c", "shutdown -f", mount], check=True)
    yield name, disk, XFS_SIZE
    name = "btrfs whose log was not replayed"
    disk = made(folder, name, BTRFS_SIZE, ["mkfs.btrfs", "-q", "-f"])
    crashed = disk.parent / "crashed"
    with mounted(disk, BTRFS_SIZE, disk.parent / "mount") as mount:
        subprocess.run(["sync", "-f", mount], check=True)
        with open(mount / "file", "wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        shutil.copy(disk, crashed)
    yield name, crashed, BTRFS_SIZE
    for name, offset, signature in (
        ("BitLocker", 0, b"\xeb\x58\x90-FVE-FS-"),
        ("BitLocker To Go", 424, bytes.fromhex("3bd67749292ed84a8399f6a339e3d001")),
        ("LUKS", 0, b"LUKS\xba\xbe\x00\x01aes".ljust(592, b"\0")),
    ):
        disk = made(folder, name, SIZE, ["true"])
        if name != "LUKS":
            patch(disk, 0, b"\xeb\x58\x90MSWIN4.1")
            for place in (176, 440):
                patch(disk, place, (0x2000).to_bytes(8, "little"))
            patch(disk, 510, b"\x55\xaa")
            patch(disk, 0x2000, b"-FVE-FS-" + (64).to_bytes(2, "little") + (2).to_bytes(2, "little"))
        patch(disk, offset, signature)
        yield name, disk, SIZE


def made(folder: Path, name: str, size: int, make: Sequence[str]) -> Path:
    place = folder / name.replace(" ", "-")
    place.mkdir()
    return single(place, size, list(make))


def status(command: Sequence[str | Path]) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=os.environ | {"PATH": SEARCH_PATH}
    )
    return "copies it (0)" if done.returncode == 0 else f"refuses ({done.returncode})"


def checked(command: Sequence[str | Path]) -> str:
    said = status(command)
    return "clean (0)" if "(0)" in said else said.replace("refuses", "not clean")


def row(name: str, disk: Path, size: int) -> list[str]:
    fitness = examine_disk(RUN, str(disk))
    kind = fitness.partitions[0].content
    ours = (
        ", ".join(f"`{finding.name}`: {finding.evidence.partition(' (')[0]}" for finding in fitness.findings) or "fit"
    )
    with attached(disk, *part(START, size)) as node:
        log = disk.parent / "log"
        partclone = status([f"partclone.{PARTCLONE[kind]}", "-c", "-s", node, "-o", disk.parent / "image", "-L", log])
        ntfs_image = disk.parent / "ntfs-image"
        ntfsclone = status(["ntfsclone", "--save-image", "-o", ntfs_image, node]) if PARTCLONE[kind] == "ntfs" else ""
        return [name, ours, partclone, ntfsclone, checked([*CHECKS[kind], node]) if kind in CHECKS else ""]


def main() -> None:
    """Print it."""

    def show(cells: Sequence[str]) -> None:
        print(f"| {' | '.join(cells)} |")

    show(["state", "fleet.imaging", "partclone", "ntfsclone", "the file system's own check, without writing"])
    show(["---"] * 5)
    with tempfile.TemporaryDirectory(prefix="fleet-states-", dir="/var/tmp") as folder:
        for name, disk, size in states(Path(folder)):
            show(row(name, disk, size))


if __name__ == "__main__":
    main()
