# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: a reference and some laptops on this machine, for everything that a real lab is too far away for.

A lab is its folder: all names of what lies outside of it are made from the folder's, so "down" needs no record.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import disks
from .inventory import Inventory
from .laptop import Laptop, free_ports
from .network import MAX_LAPTOPS, Network
from .ntfs import load_library
from .processes import end_processes
from .reference_disk import make_reference_disk
from .tools import LabError, find, require, run, run_bounded

RECORD = "lab.json"
# Root's sshd wants this folder, which only an sshd of the system makes.
SSHD_FOLDER = Path("/run/sshd")
SSHD_FOLDER_MADE = "made-run-sshd"
# A socket's path has at most 107 bytes, and to it ssh adds a name and, while it makes it, a suffix.
MAX_FOLDER = 70
PROGRAMS = ["setsid", "ssh", "ssh-keygen", "sshd"]
PROGRAMS_ISOLATED = ["ip", "losetup", "mount", "nsenter", "partx", "umount", "unshare"]
PROGRAMS_REFERENCE = ["debugfs", "mcopy", "mkfs.ext4", "mkfs.fat", "mkntfs", "mkswap", "sfdisk"]
# For how long udev holds a disk that was written to: between a fast machine, and a slow one with more than a second.
UDEV_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    """What a lab is to be. Sizes are in bytes.

    ``udev_seconds`` is for how long a disk is locked after it was written to, as by udev; isolated laptops only.
    """

    laptops: int
    disk_size: int
    reference_size: int
    isolated: bool
    inventory: Path | None = None
    link_mbit: int | None = None
    used_share: float = 1 / 3
    aged: bool = False
    blank: bool = False
    direct_io: bool = False
    reference_image: Path | None = None
    python: str = "/usr/bin/python3"
    udev_seconds: float = 0


def default_folder() -> Path:
    """Return where a user's lab lies when no folder is named: on a disk, as /tmp may be memory."""
    return Path(f"/var/tmp/fleet-lab-{os.geteuid()}")


def can_isolate() -> bool:
    """Return whether laptops can have namespaces and loop devices here; not even root can in most containers."""
    if os.geteuid() != 0 or not os.access("/dev/loop-control", os.R_OK | os.W_OK) or not find("unshare"):
        return False
    trial = ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "true"]
    return subprocess.run(trial, stderr=subprocess.DEVNULL, check=False).returncode == 0


class Lab:
    """The lab in a folder, be it up or not."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()).absolute()
        if len(str(self.folder)) > MAX_FOLDER or not re.fullmatch(r"/[A-Za-z0-9._/+-]+", str(self.folder)):
            raise LabError(
                f"{self.folder}: the lab's folder must be of plain letters, and at most {MAX_FOLDER} of them"
            )

    @property
    def laptops(self) -> list[Laptop]:
        """All laptops, the reference first; none when the lab is not up."""
        return [
            Laptop(**{**laptop, "lab": self.folder, "backing_file": Path(laptop["backing_file"])})
            for laptop in self._record().get("laptops", [])
        ]

    @property
    def reference(self) -> Laptop:
        """The reference."""
        return self.laptops[0]

    @property
    def targets(self) -> list[Laptop]:
        """All laptops but the reference."""
        return self.laptops[1:]

    @property
    def inventory(self) -> Path:
        """The inventory file."""
        return Path(self._record()["inventory"])

    def up(self, plan: Plan) -> None:
        """Bring the lab up, or raise LabError and leave nothing behind."""
        _check(plan, self.folder)
        inventory = Inventory((plan.inventory or self.folder / "hosts.yml").absolute(), self.folder)
        inventory.check()
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            raise LabError(
                f"{self.folder} exists: a lab is up there, or was left half-made; take it down first"
            ) from None
        try:
            self._write_record(inventory.path, [])
            self._make_keys()
            laptops = self._make_laptops(plan)
            self._write_record(inventory.path, laptops)
            self._write_known_hosts(laptops)
            if os.geteuid() == 0 and not plan.isolated and not SSHD_FOLDER.exists():
                (self.folder / SSHD_FOLDER_MADE).touch()
                SSHD_FOLDER.mkdir(mode=0o755)
            for laptop in laptops:
                laptop.power_on()
            for laptop in laptops:
                laptop.wait_until_up()
            inventory.write(laptops, plan.python)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Leave nothing of the lab, whatever there is of it; raise LabError when something can't be removed."""
        self._check_folder()
        for socket in (self.folder / "cp").glob("*"):
            stop = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "lab"]
            with contextlib.suppress(LabError):  # it is killed below
                run_bounded(stop, os.environ)
        end_processes(self.folder)
        if os.geteuid() == 0 and find("ip") and find("losetup"):
            Network(self.folder).down()
            disks.detach_loop_devices(self.folder)
        if (self.folder / SSHD_FOLDER_MADE).exists() and SSHD_FOLDER.exists():
            SSHD_FOLDER.rmdir()
        if "inventory" in self._record():
            Inventory(self.inventory, self.folder).remove()
        self._remove_folder()

    def _check_folder(self) -> None:
        """Raise LabError when the folder is not a lab's: everything in it is about to be removed."""
        if not os.path.lexists(self.folder):
            return
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise LabError(f"{self.folder} is not a folder of this user; name the lab's folder")
        if os.listdir(self.folder) and not (self.folder / RECORD).exists():
            raise LabError(f"{self.folder} is not a lab's folder: it has no {RECORD}; name the lab's folder")

    def _remove_folder(self) -> None:
        """Remove the folder, the record last: with it, whatever interrupts this can be continued."""
        if not self.folder.exists():
            return
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != RECORD:
                path.unlink()
        (self.folder / RECORD).unlink(missing_ok=True)
        self.folder.rmdir()

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.folder / RECORD).read_text())
        except FileNotFoundError:
            return {}
        return record

    def _write_record(self, inventory: Path, laptops: list[Laptop]) -> None:
        record = {"inventory": str(inventory), "laptops": [asdict(laptop) for laptop in laptops]}
        new = self.folder / f"{RECORD}.new"
        new.write_text(json.dumps(record, default=str, indent=2))
        new.rename(self.folder / RECORD)

    def _make_keys(self) -> None:
        for name in ("host_key", "client_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fleet.imaging lab", "-f", self.folder / name)
        (self.folder / "cp").mkdir(mode=0o700)

    def _write_known_hosts(self, laptops: list[Laptop]) -> None:
        key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        lines = [
            f"{laptop.address if laptop.port == 22 else f'[{laptop.address}]:{laptop.port}'} {key}\n"
            for laptop in laptops
        ]
        (self.folder / "known_hosts").write_text("".join(lines))

    def _make_laptops(self, plan: Plan) -> list[Laptop]:
        """Make folders, disks and network of all laptops."""
        addresses = self._isolated_addresses(plan) if plan.isolated else _local_addresses(plan.laptops + 1)
        laptops = []
        for number, (address, port) in enumerate(addresses):
            name = f"lab-{number:02}" if number else "reference-01"
            size = plan.disk_size if number else plan.reference_size
            (self.folder / name).mkdir()
            backing_file = self.folder / name / "disk.img"
            self._make_disk(plan, backing_file, size, is_reference=number == 0)
            disk = str(backing_file)
            if plan.isolated:
                disk = disks.attach_loop_device(backing_file, plan.direct_io)
                if number == 0:
                    disks.read_partitions(disk)
            locked = plan.udev_seconds if plan.isolated else 0
            place = (plan.isolated, address, port, disk, backing_file, size)
            laptops.append(Laptop(name, number, self.folder, *place, locked))
        return laptops

    def _isolated_addresses(self, plan: Plan) -> Iterator[tuple[str, int]]:
        network = Network(self.folder)
        subnet = network.up()
        for number in range(plan.laptops + 1):
            yield network.attach(number, subnet, plan.link_mbit), 22

    def _make_disk(self, plan: Plan, path: Path, size: int, is_reference: bool) -> None:
        if not is_reference:
            (disks.make_empty_disk if plan.blank else disks.make_used_disk)(path, size)
        elif plan.reference_image is None:
            make_reference_disk(path, size, plan.used_share, plan.aged)
        else:
            if not plan.reference_image.exists():
                unfinished = plan.reference_image.with_name(f"{plan.reference_image.name}.{os.getpid()}")
                try:
                    make_reference_disk(unfinished, size, plan.used_share, plan.aged)
                    unfinished.rename(plan.reference_image)
                finally:
                    unfinished.unlink(missing_ok=True)
            run("cp", "--reflink=auto", "--sparse=auto", plan.reference_image, path)
            if path.stat().st_size != size:
                raise LabError(
                    f"{plan.reference_image} has {path.stat().st_size} bytes, not {size}; remove it or ask for its size"
                )


def _local_addresses(count: int) -> Iterator[tuple[str, int]]:
    return (("127.0.0.1", port) for port in free_ports(count))


def _check(plan: Plan, folder: Path) -> None:
    """Raise LabError when the plan can't be carried out here."""
    if not 1 <= plan.laptops <= MAX_LAPTOPS:
        raise LabError(f"a lab has from 1 to {MAX_LAPTOPS} laptops, not {plan.laptops}")
    if plan.disk_size % 512 or plan.reference_size % 512:
        raise LabError("a disk's size is a multiple of 512 bytes")
    if plan.isolated and not can_isolate():
        raise LabError("namespaces and loop devices are for root, and are not to be had here; use --no-root")
    if plan.link_mbit is not None and (plan.link_mbit < 1 or not plan.isolated):
        raise LabError("a link's limit is at least 1 Mbit/s, and is for laptops with a link of their own (root)")
    if plan.isolated and Path("/run") in folder.resolve().parents:
        raise LabError(f"{folder} lies in /run, which each laptop has for itself; name another folder")
    needs_reference = plan.reference_image is None or not plan.reference_image.exists()
    require(
        PROGRAMS
        + (PROGRAMS_ISOLATED if plan.isolated else [])
        + (PROGRAMS_REFERENCE if needs_reference else [])
        + (["tc"] if plan.link_mbit else [])
    )
    if needs_reference:
        load_library()
    used = int(plan.reference_size * plan.used_share)
    needed, free = used * (2 + plan.laptops), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise LabError(
            f"{folder.parent} has {free >> 20} MiB free, the lab needs about {needed >> 20} MiB; use --state elsewhere"
        )
