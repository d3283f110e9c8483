# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference's disk: one that Windows and a Linux share, and that was in use for a while."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import file_systems, registry
from .disks import MIB, copy_data, make_empty_disk
from .hives import make_hive
from .machine_files import MachineFiles, copies
from .tools import LabError, run

SECTOR = 512
MIN_SIZE = 128 * MIB
LIGHTLY_AGED = 1 / 8
AGED = 1 / 3
# A sysprepped Windows says so here, in UTF-16 with a byte order mark.
WINDOWS_STATE = "[State]\r\nImageState=IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE\r\n".encode("utf-16")

Maker = Callable[[Path, Mapping[str, Path], Sequence[str], int], None]


@dataclass(frozen=True)
class Partition:
    """A partition to be: its place in bytes, GPT type (an alias or GUID of sfdisk), and what makes and fills its file system."""

    name: str
    kind: str
    start: int
    size: int
    make: Maker
    places: Mapping[str, str]
    fixed: Mapping[str, Path]


def make_reference_disk(path: Path, size: int, used_share: float, aged: bool) -> None:
    """Make the disk: so many bytes, such a share of them (0 to about 0.5) used; aged: a third of its files were removed."""
    if size < MIN_SIZE:
        raise LabError(f"a reference's disk has at least {MIN_SIZE // MIB} MiB, {size // MIB} MiB were asked for")
    removed_share = AGED if aged else LIGHTLY_AGED
    if not 0 <= used_share / (1 - removed_share) <= 0.75:
        raise LabError(
            f"the used share of the disk must be from 0 to {0.75 * (1 - removed_share):.2f}, not {used_share}"
        )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partitions = _layout(size, Path(folder))
        make_empty_disk(path, size)
        _write_table(path, partitions)
        machine_files = MachineFiles()
        # As much more goes in as is removed, and as swap, which is not filled, leaves to the others.
        fill = used_share / (1 - removed_share) * size / sum(part.size for part in partitions if part.places)

        def build(partition: Partition) -> None:
            image = Path(folder, partition.name)
            make_empty_disk(image, partition.size)
            chosen = machine_files.choose(int(partition.size * fill), partition.places)
            # Of its own, because whoever installs a package meanwhile takes files away.
            with tempfile.TemporaryDirectory(dir=folder) as own:
                copied = copies(chosen, Path(own))
                removed = list(copied)[:: round(1 / removed_share)]
                partition.make(image, {**partition.fixed, **copied}, removed, partition.start // SECTOR)
            copy_data(image, path, partition.start)
            image.unlink()

        with ThreadPoolExecutor(2) as pool:
            # The largest first.
            list(pool.map(build, sorted(partitions, key=lambda partition: -partition.size)))


def _layout(size: int, folder: Path) -> list[Partition]:
    """Return the partitions, in disk order; MiB-aligned, the last ends a MiB before the disk."""
    state = folder / "State.ini"
    state.write_bytes(WINDOWS_STATE)
    tag = folder / "Sysprep_succeeded.tag"
    tag.touch()
    hives = {name: folder / name for name in ("SOFTWARE", "SYSTEM")}
    hives["SOFTWARE"].write_bytes(make_hive(registry.SOFTWARE))
    hives["SYSTEM"].write_bytes(make_hive(registry.SYSTEM))
    kernel, manager, release = Path("/bin/sh"), Path("/bin/ls"), Path("/etc/os-release")
    esp = 100 * MIB if size >= 1024 * MIB else 40 * MIB
    swap = size // 16 // MIB * MIB
    windows = (size - esp - swap) * 3 // 5 // MIB * MIB
    linux = (size - esp - swap - windows) // MIB * MIB - 2 * MIB
    starts = [MIB, MIB + esp, MIB + esp + windows, MIB + esp + windows + linux]
    return [
        Partition(
            "esp",
            "uefi",
            starts[0],
            esp,
            file_systems.make_fat32,
            {"/usr/bin": "EFI/tools"},
            {"EFI/Microsoft/Boot/bootmgfw.efi": manager, "EFI/Boot/bootx64.efi": manager},
        ),
        Partition(
            "windows",
            "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
            starts[1],
            windows,
            file_systems.make_ntfs,
            {"/usr/lib": "Windows/System32", "/usr/share": "Users/Public/Documents", "/usr/bin": "Program Files"},
            {
                "Windows/System32/ntoskrnl.exe": kernel,
                "Windows/System32/config/SOFTWARE": hives["SOFTWARE"],
                "Windows/System32/config/SYSTEM": hives["SYSTEM"],
                "Windows/System32/Sysprep/Sysprep_succeeded.tag": tag,
                "Windows/Setup/State/State.ini": state,
            },
        ),
        Partition(
            "linux",
            "linux",
            starts[2],
            linux,
            file_systems.make_ext4,
            {"/usr/lib": "usr/lib", "/usr/share": "usr/share", "/usr/bin": "usr/bin"},
            {"etc/os-release": release},
        ),
        Partition("swap", "swap", starts[3], swap, file_systems.make_swap, {}, {}),
    ]


def _write_table(path: Path, partitions: list[Partition]) -> None:
    lines = [
        f'start={part.start // SECTOR}, size={part.size // SECTOR}, type={part.kind}, name="{part.name}"'
        for part in partitions
    ]
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path, stdin="\n".join(["label: gpt", *lines, ""]))
