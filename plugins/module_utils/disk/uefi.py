# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes sure that UEFI firmware can start a disk: by the fallback loader, and by an entry in the firmware's list."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..errors import ImagingError
from ..private_files import scratch_folder
from ..reasons import refuse_for
from .blkid import detect
from .command import MissingTool, RunCommand
from .devices import Disk
from .filesystems.fat import FatTree
from .firmware import FIRMWARE, Change, ensure_entry, obstacle
from .identity import selected_disk
from .loaders import FALLBACK_FOLDER, BootChoice, Loader, Loaders, fallback_name, read_loaders
from .partition_node import NoNode, flush, partition_node
from .partition_table import Partition, PartitionTable, is_esp, read_partition_table
from .udev import settle


@dataclass
class Boot(Change):
    """What was found and done. ``fallback`` is the loader that firmware starts without an entry."""

    esp: int | None = None
    fallback: str = ""
    made_from: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was or would be changed."""
        return bool(self.made_from or self.entry_made or self.entry_put_first or self.removed)


@dataclass(frozen=True)
class Esp:
    """An EFI system partition, its id, and its loaders."""

    partition: Partition
    id: str
    loaders: Loaders

    def has(self, path: str) -> bool:
        """Return whether it has a loader that a machine is known to have chosen."""
        return any(loader.path.lower() == path.lower() for loader in self.loaders.chosen)


def make_bootable(
    run: RunCommand,
    device: str,
    write: bool,
    choices: Sequence[BootChoice] = (),
    expect: Mapping[str, Any] | None = None,
    firmware: str = FIRMWARE,
) -> Boot:
    """Make a disk with an EFI system partition bootable; raises ImagingError when the changes can't be read back.

    ``choices`` are the loaders that the firmware of the reference starts, in order; ``expect`` identifies the disk (``identity.selected_disk``). A
    disk without an EFI system partition is not changed. Where something can't be examined, nothing is made, and there is a warning.
    """
    settle(run)
    with selected_disk(run, device, expect) as disk:
        return _make_bootable(run, disk, write, choices, firmware)


def _make_bootable(run: RunCommand, disk: Disk, write: bool, choices: Sequence[BootChoice], firmware: str) -> Boot:
    boot = Boot()
    table = read_partition_table(run, disk.path)
    esps = _read_esps(run, disk.path, table, choices, boot) if table else []
    if not esps:
        return boot
    esp = choose_esp(esps, choices)
    boot.esp = esp.partition.number
    loader = esp.loaders.first()
    if loader is None:
        boot.warnings.append(
            f"Partition {boot.esp} has no loader that UEFI firmware would start: the disk does not boot by UEFI. "
            "Install the boot loader on the reference and capture again."
        )
        return boot
    _ensure_fallback_loader(esp, loader, boot)
    if write and boot.made_from:
        refuse_for(
            disk.target_refusals, f"{disk.path} needs the fallback loader {boot.fallback}, but can't be changed:"
        )
        with partition_node(run, disk.path, esp.partition, writable=True) as node:
            _make_fallback(FatTree(run, node), boot)
            flush(node)
    if os.path.isdir(firmware):
        _ensure_entry(run, disk.path, esp, loader, write, boot, firmware)
    return boot


def _read_esps(
    run: RunCommand, path: str, table: PartitionTable, choices: Sequence[BootChoice], boot: Boot
) -> list[Esp]:
    """Return all readable EFI system partitions, in the table's order."""
    found = []
    for partition in table.partitions:
        if not is_esp(partition.type):
            continue
        boot.esp = boot.esp or partition.number
        number, identity = partition.number, table.id_of(partition)
        content = detect(run, path, partition.start, partition.size)
        if content.type != "vfat":
            boot.warnings.append(
                f"Partition {number} is an EFI system partition and holds {content.type or 'nothing known'}, not a FAT: firmware starts "
                "nothing from it."
            )
            continue
        ours = [choice.loader for choice in choices if identity and choice.partition == identity]
        try:
            with partition_node(run, path, partition) as node:
                found.append(Esp(partition, identity, read_loaders(FatTree(run, node), ours)))
        except (MissingTool, NoNode):
            raise
        except ImagingError as error:
            boot.warnings.append(
                f"The files in partition {number}, an EFI system partition, can't be read: {str(error).rstrip('.')}. Whether firmware can "
                "start from it is unknown, and nothing was made in it. Check it on the reference (fsck.fat) and capture again."
            )
    return found


def choose_esp(esps: Sequence[Esp], choices: Sequence[BootChoice] = ()) -> Esp:
    """Return the EFI system partition that the disk starts from.

    It is the one with the first existing loader of ``choices``, otherwise the first with a fallback loader, otherwise the first with any loader,
    otherwise the first.
    """
    chosen = [esp for choice in choices for esp in esps if esp.id == choice.partition and esp.has(choice.loader)]
    fallback = [esp for esp in esps if esp.loaders.fallbacks]
    installed = [esp for esp in esps if esp.loaders.installed]
    return [*chosen, *fallback, *installed, *esps][0]


def _ensure_fallback_loader(esp: Esp, loader: Loader, boot: Boot) -> None:
    """Note the existing fallback loader, or the loader from which it will be made."""
    there = esp.loaders.fallback_for(loader)
    if there:
        boot.fallback = there.path
    elif loader.machine:
        boot.fallback, boot.made_from = f"{FALLBACK_FOLDER}/{fallback_name(loader.machine)}", loader.path
    else:
        boot.warnings.append(
            f"{loader.path} on partition {boot.esp} is not a UEFI program for a known kind of machine, so no fallback loader was made from it: "
            "without a boot entry, firmware starts nothing from this disk."
        )


def _make_fallback(tree: FatTree, boot: Boot) -> None:
    folder, _slash, file = boot.made_from.rpartition("/")
    copies = {}
    if file.lower().startswith("shim"):  # shim starts the files beside it
        copies = {f"{folder}/{each}": each for each in tree.names(folder) if each.lower().endswith(".efi")}
    copies[boot.made_from] = os.path.basename(boot.fallback)
    with scratch_folder() as scratch:
        for source, target in copies.items():
            local = os.path.join(scratch, "loader")
            tree.save(source, local)
            tree.put(local, f"{FALLBACK_FOLDER}/{target}")


def _ensure_entry(run: RunCommand, disk: str, esp: Esp, loader: Loader, write: bool, boot: Boot, firmware: str) -> None:
    """Make the loader the first entry of the firmware's list; warn when the list can't be read or changed."""
    reason = obstacle(firmware, write) if esp.id else "the partition table has no id that an entry could name"
    try:
        if not reason:
            ensure_entry(run, disk, esp.partition.number, BootChoice(esp.id, loader.path), write, boot)
    except MissingTool as error:
        reason = str(error).rstrip(".")
    if reason:
        start = f"it starts {boot.fallback}" if boot.fallback else "it starts nothing from this disk"
        boot.warnings.append(
            f"The firmware's boot entries were not checked: {reason}. If it has no entry for this disk, {start}."
        )
