# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the uses of a disk: mounted file systems, swap, and devices that are built on it. Other disks are not changed."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Iterator

from ..errors import ImagingError
from ..reasons import CANNOT_RELEASE
from ..timeouts import DEFAULTS
from .command import RunCommand
from .holders import BlockDevices, Holder, Mount, node
from .processes import processes, said_of, summarize, users_of
from .raw_io import RawDisk
from .udev import settle

MAX_STEPS = 1000
MAX_TIMES = 32
"""Maximum number of times that one step is repeated, for mounts over mounts, for example. More means that something undoes it."""

UDEV_CONTROL = "/run/udev/control"
UDISKS = "/run/udisks2"
RULES = "/run/udev/rules.d"

RULE = """\
# Written by fleet.imaging: this disk is captured or restored, and nobody is to mount it meanwhile. It goes with the next boot.
SUBSYSTEM=="block", KERNEL=="{pattern}", ENV{{UDISKS_IGNORE}}="1", ENV{{UDISKS_AUTO}}="0"
"""
"""Source: udisks(8), DEVICE INFORMATION."""


class CannotRelease(ImagingError):
    """A use of a disk must not be ended, or does not end."""

    code = CANNOT_RELEASE


@dataclass(frozen=True)
class Step:
    """A step: its description, its command, and the mount that it ends, if any."""

    words: str
    command: tuple[str, ...]
    mount: Mount | None = None


def release_steps(devices: BlockDevices, path: str) -> list[Step]:
    """Return the steps that release the disk or regular file at ``path``, in order; raises CannotRelease."""
    names = devices.names_of(path)
    if any(devices.of_device(name).live_medium for name in names):
        raise CannotRelease(f"This machine runs from {path}: it can't be released. Boot it from another medium.")
    return list(_Plan(devices, path, names).steps())


class _Plan:
    def __init__(self, devices: BlockDevices, path: str, names: list[str]) -> None:
        self._devices = devices
        self._path = path
        self._names = names
        self._stack = list(devices.stack(names))
        self._down: set[str] = set()

    def steps(self) -> Iterator[Step]:
        """Yield the steps: mounts first, the latest first, each after the uses of its files; then what is built on the disk, from the top."""
        ours = [mount for mount in self._devices.mounts if self._is_ours(mount)]
        for mount in reversed(ours):
            for loop in self._devices.loops_in(mount):
                yield from self._take_down(loop)
            for swap in self._devices.swap_files_in(mount):
                yield _swap_off(swap)
            yield from self._within(mount)
            yield Step(f"unmount {mount.path} ({mount.source})", ("umount", "--", mount.path), mount)
        for name in self._names:
            yield from self._take_down(name)
        if self._path in self._devices.swaps and not self._names:
            yield _swap_off(self._path)

    def _is_ours(self, mount: Mount) -> bool:
        return any(self._devices.is_from(mount, each) for each in self._stack)

    def _within(self, outer: Mount) -> Iterator[Step]:
        """Yield the steps for foreign mounts inside of a mount of this disk. Only those that are mounted elsewhere, too, are ended, such as /proc in
        a chroot."""
        # By the kernel's ids: a mount with a path below the outer one may be hidden by it.
        numbers = {outer.id}
        inside = []
        for mount in self._devices.mounts:
            if mount.parent in numbers:
                numbers.add(mount.id)
                inside.append(mount)
        for mount in reversed(inside):
            if self._is_ours(mount):
                continue
            if not any(other.device == mount.device and other.id not in numbers for other in self._devices.mounts):
                raise CannotRelease(
                    f"{mount.source} is mounted at {mount.path}, inside of {outer.path}, and is not of this disk: unmount it first "
                    f"(umount {mount.path})."
                )
            yield Step(f"unmount {mount.path} ({mount.source})", ("umount", "--", mount.path), mount)

    def _take_down(self, name: str) -> Iterator[Step]:
        """Yield the steps for a device and everything that is built on it, from the top."""
        for each in reversed(list(self._devices.stack([name]))):
            if each in self._down:
                continue
            self._down.add(each)
            if node(each) in self._devices.swaps:
                yield _swap_off(node(each))
            holder = self._devices.holder(each)
            if holder is not None:
                yield Step(f"take down {holder.node} ({holder.kind} {holder.name})", _taken_down_by(holder))
            elif node(each) != self._path and self._devices.is_loop(each):
                yield Step(f"detach {node(each)}", ("losetup", "--detach", node(each)))


def _swap_off(path: str) -> Step:
    return Step(f"switch swap off on {path}", ("swapoff", "--", path))


def _taken_down_by(holder: Holder) -> tuple[str, ...]:
    if holder.kind == "RAID":
        return "mdadm", "--stop", holder.node
    if holder.kind == "LVM":
        group, volume = re.split(r"(?<!-)-(?!-)", holder.name, maxsplit=1)
        return "lvchange", "--activate", "n", "/".join(part.replace("--", "-") for part in (group, volume))
    if holder.kind == "crypt":
        return "cryptsetup", "close", holder.name
    if holder.kind == "device mapper":
        return "dmsetup", "remove", "--retry", holder.name
    raise CannotRelease(f"{holder.node} ({holder.kind} {holder.name}) is built on it: {holder.release}.")


def release_disk(run: RunCommand, path: str) -> list[Step]:
    """Release a disk, and prove that nothing holds it; returns the steps that were done, each once. Raises CannotRelease, MissingTool.

    Steps before a failure are not undone.
    """
    done: list[Step] = []
    while True:
        steps = release_steps(BlockDevices(), path)
        if not steps:
            break
        if not done:
            inhibit_udisks(run, path)
        step = steps[0]
        if done.count(step) >= MAX_TIMES or len(done) >= MAX_STEPS:
            raise CannotRelease(
                f"{path}: to {step.words} does not last, because something undoes it. Stop the program that mounts disks (systemctl stop udisks2, "
                "or close the desktop's session), and run again."
            )
        if step in done:
            time.sleep(DEFAULTS.release_pause)
        result = run(list(step.command))
        # A device that was built on one that has just disappeared may have disappeared, too.
        if result.rc and step in release_steps(BlockDevices(), path):
            users = summarize(users_of(step.mount.device)) if step.mount else ""
            why = f" It is in use by {users}: end that, and run again." if users else ""
            raise CannotRelease(f"{path}: can't {step.words}: {result.complaint()}.{why}")
        done.append(step)
    prove_released(path)
    return list(dict.fromkeys(done))


def prove_released(path: str) -> None:
    """Open a disk exclusively, which fails while something holds it; raises CannotRelease that names the holder."""
    elsewhere = list(mounts_elsewhere(path))
    try:
        RawDisk(path, patience=0 if elsewhere else DEFAULTS.held_disk).close()
    except ImagingError as error:
        who = f" It is mounted for {', '.join(elsewhere)}, in namespaces of their own: end these." if elsewhere else ""
        raise CannotRelease(f"{error}{who}") from error


def mounts_elsewhere(path: str) -> Iterator[str]:
    """Yield a process of each other mount namespace in which the disk, or something on it, is mounted."""
    devices = BlockDevices()
    numbers = {devices.attribute(each, "dev") for each in devices.stack(devices.names_of(path))}
    seen = set()
    for pid, command in processes():
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
        except OSError:
            continue
        if any(line.split()[2] in numbers for line in said_of(pid, "mountinfo").decode(errors="replace").splitlines()):
            yield f"process {pid} ({command})"


def inhibit_udisks(run: RunCommand, path: str) -> None:
    """Make udisks, through which desktops mount disks, ignore a disk until the next boot; does nothing without udisks."""
    if not (os.path.exists(UDEV_CONTROL) and os.path.isdir(UDISKS)):
        return
    name = os.path.basename(path)
    pattern = f"{name}|{name}[0-9]*" if name[-1].isalpha() else f"{name}|{name}p[0-9]*"
    os.makedirs(RULES, exist_ok=True)
    with open(os.path.join(RULES, f"99-fleet-imaging-{name}.rules"), "w", encoding="utf-8") as file:
        file.write(RULE.format(pattern=pattern))
    run(["udevadm", "control", "--reload"])
    run(["udevadm", "trigger", "--action=change", "--subsystem-match=block", f"--sysname-match={name}*"])
    settle(run)
