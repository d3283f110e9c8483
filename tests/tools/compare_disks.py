# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare disks with plain tools alone: sfdisk, sgdisk, fsck, mount, find, sha256sum; as an ordinary user cmp.

Usage: compare_disks.py NAME=DISK NAME=DISK...
All are compared with the first. A DISK is a block device or a file. File systems are checked and mounted read-only, and
every file in them is compared: what lies in free space is no difference. Who can mount nothing (an ordinary user, or root
in most containers) compares every byte of every file system. Prints a line for each thing that was compared; the status
is 1 when anything differs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Every name with its kind, mode, size and link target, and every file's content; one line says it all.
DIGEST_OF_FILES = r"""
set -e
find . ! -type d -printf '%y %m %s %p %l\n' -o -printf '%y %m %p\n' | LC_ALL=C sort >"$1"
find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum >>"$1"
echo "$(find . -type f | wc -l) files, $(sha256sum <"$1" | cut -c1-16)"
"""
# How a file system is checked, and opened, without a change to it. Not every kernel can mount FAT: mtools copies it.
CHECK = {"ext4": ["e2fsck", "-fn"], "ntfs": ["ntfsfix", "--no-action"], "vfat": ["fsck.fat", "-n"]}
OPEN = {
    "ext4": ["mount", "-o", "ro,noload", "{device}", "{folder}"],
    "ntfs": ["mount", "-t", "ntfs-3g", "-o", "ro", "{device}", "{folder}"],
    "vfat": ["mcopy", "-s", "-i", "{device}", "::", "{folder}"],
}
# blkid's status is 2 where it finds nothing that it knows.
KIND = 'blkid -p -s TYPE -o value "$@" || [ $? = 2 ]'
# Of swap, or what is not known, the start is compared: it has the UUID.
HEADER = 65536
DIGEST_OF_HEADER = f'echo "first 64 KiB $(head -c {HEADER} "$1" | sha256sum | cut -c1-16)"'


class Difference(Exception):
    """Two disks differ, or one can't be read."""


def main(arguments: list[str]) -> int:
    """Compare; return the exit status."""
    disks = {name: Path(path) for name, _, path in (argument.partition("=") for argument in arguments)}
    if len(disks) < 2:
        sys.exit(__doc__)
    try:
        compare(disks)
    except Difference as difference:
        print(f"DIFFERENT: {difference}")
        return 1
    return 0


def compare(disks: dict[str, Path]) -> None:
    """Print what all disks share; raise Difference at the first thing that they do not."""
    reference = next(iter(disks.values()))
    same("partition table", {name: partition_table(disk) for name, disk in disks.items()})
    partitions = json.loads(output("sfdisk", "--json", reference))["partitiontable"]
    sector = partitions.get("sectorsize", 512)
    print(f"same partition table, {len(partitions['partitions'])} partitions: {', '.join(disks)}")
    for number, partition in enumerate(partitions["partitions"], 1):
        start, size = partition["start"] * sector, partition["size"] * sector
        if os.getuid() == 0 and os.access("/dev/loop-control", os.R_OK | os.W_OK):
            shown = same(f"partition {number}", {name: content(disk, start, size) for name, disk in disks.items()})
        else:
            shown = equal_bytes(list(disks.values()), start, size)
        print(f"same partition {number}, {shown}")


def same(what: str, found: dict[str, str]) -> str:
    """Return what all have; raise Difference when one has something else."""
    reference, *others = found
    for name in others:
        if found[name] != found[reference]:
            raise Difference(f"{what}\n{reference}: {found[reference]}\n{name}: {found[name]}")
    return found[reference]


def equal_bytes(disks: list[Path], start: int, size: int) -> str:
    """Return what a partition holds and how many of its bytes were compared; raise Difference when one is not equal."""
    reference, *others = disks
    kind = output("sh", "-c", KIND, "sh", "-O", str(start), "-S", str(size), reference).strip()
    compared = size if kind in OPEN else min(size, HEADER)
    for disk in others:
        output("cmp", f"--ignore-initial={start}", f"--bytes={compared}", reference, disk)
    return f"{kind or 'unknown'}, {compared} bytes"


def partition_table(disk: Path) -> str:
    """Return the table as sfdisk dumps it, without the names of the devices, and what sgdisk says of both its copies."""
    dump = output("sfdisk", "--dump", disk) + output("sgdisk", "--verify", disk)
    return re.sub(r"^(device: .*|/\S+ )", "", dump, flags=re.MULTILINE)


def content(disk: Path, start: int, size: int) -> str:
    """Return what a partition holds, in one line: its file system and a digest of all its files."""
    with loop_device(disk, start, size) as device:
        kind = output("sh", "-c", KIND, "sh", device).strip()
        if kind not in OPEN:
            return f"{kind or 'unknown'}, {output('sh', '-c', DIGEST_OF_HEADER, 'sh', device).strip()}"
        output(*CHECK[kind], device)
        uuid = output("blkid", "-p", "-s", "UUID", "-o", "value", device).strip()
        with opened(kind, device) as folder, tempfile.NamedTemporaryFile() as listing:
            return f"{kind} {uuid}, {output('sh', '-c', DIGEST_OF_FILES, 'sh', listing.name, cwd=folder).strip()}"


@contextmanager
def loop_device(disk: Path, start: int, size: int) -> Iterator[str]:
    """Have a read-only loop device for a part of a disk."""
    device = output("losetup", "-r", "-f", "--show", "-o", str(start), "--sizelimit", str(size), disk).strip()
    try:
        yield device
    finally:
        output("losetup", "-d", device)


@contextmanager
def opened(kind: str, device: str) -> Iterator[Path]:
    """Have the files of a file system in a folder."""
    with tempfile.TemporaryDirectory(prefix="compare-disks-") as folder:
        output(*(word.format(device=device, folder=folder) for word in OPEN[kind]))
        try:
            yield Path(folder)
        finally:
            if os.path.ismount(folder):
                output("umount", folder)


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what a command prints; raise Difference with its complaint when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Difference(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stdout}{done.stderr}".strip())
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
