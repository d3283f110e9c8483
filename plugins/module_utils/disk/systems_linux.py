# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds a Linux by its files, and the identities that all copies of it would share.

Source: os-release(5), file-hierarchy(7), fstab(5), machine-id(5), sshd(8), random-seed(8) and the manuals of the programs that are named below.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from typing import Iterator

from ..printable import printable
from .file_tree import MAX_FILE_SIZE, FileTree
from .systems import LINUX, UNKNOWN, Shared, System

USR, VAR = "/usr", "/var"
"""Kinds of systems: parts of a Linux that are separate file systems."""

SUSPENDED = (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
"""The signatures, in the last ten bytes of its first page, of a swap area in which a Linux is hibernated."""

TUX_ON_ICE = bytes.fromhex("edc302e99856e50c")
"""The first bytes of such a swap area of TuxOnIce (util-linux: libblkid/src/superblocks/swap.c)."""

PAGES = (4096, 8192, 16384, 32768, 65536)
"""Sizes of a page in bytes."""

SWAP_FILES = ("/swapfile", "/swap.img", "/swap/swapfile", "/swapfile0", "/var/swap")


@dataclass(frozen=True)
class _Identity:
    """Something that must be unique to each machine, in files of a folder whose names match the pattern ``names``."""

    what: str
    folder: str
    names: str
    clear: str = ""
    """The command that clears it; by default, it removes the one file that ``names`` matches."""
    content: str = ""
    """A pattern; a file counts only if its content matches. An empty pattern matches every file."""
    linked: bool = True
    """Whether a symbolic link counts as the file."""

    @property
    def command(self) -> str:
        """The command that clears it."""
        return self.clear or f"rm -f {self.folder}/" + self.names.replace("\\", "")


IDENTITIES = (
    _Identity(
        "machine-id", "/etc", "machine-id", "truncate -s 0 /etc/machine-id", content=r"\A\s*(?!uninitialized\s*\Z)\S"
    ),
    _Identity("machine-id of D-Bus", "/var/lib/dbus", "machine-id", content=r"\S", linked=False),
    _Identity("SSH host keys", "/etc/ssh", r"ssh_host_\w+_key", "rm -f /etc/ssh/ssh_host_*"),
    _Identity("key of NetworkManager", "/var/lib/NetworkManager", "secret_key"),
    _Identity("DHCP leases", "/var/lib/NetworkManager", r".*\.leases?", "rm -f /var/lib/NetworkManager/*.lease"),
    _Identity("DHCP leases", "/var/lib/dhcp", r".*\.leases?", "rm -f /var/lib/dhcp/*.leases"),
    _Identity("DHCP leases", "/var/lib/dhclient", r".*\.leases?", "rm -f /var/lib/dhclient/*.lease*"),
    _Identity("DHCP leases and ids", "/var/lib/dhcpcd", r"duid|secret|.*\.lease6?", "rm -rf /var/lib/dhcpcd/*"),
    _Identity("DHCP id", "/etc", r"dhcpcd\.(duid|secret)", "rm -f /etc/dhcpcd.duid /etc/dhcpcd.secret"),
    _Identity("DHCP leases and ids", "/var/lib/wicked", r"(duid|iaid|lease-.*)\.xml", "rm -f /var/lib/wicked/*.xml"),
    _Identity("random seed", "/var/lib/systemd", "random-seed"),
    _Identity("random seed", "/var/lib/urandom", "random-seed"),
    _Identity("key of credentials", "/var/lib/systemd", r"credential\.secret"),
    _Identity("iSCSI name", "/etc/iscsi", r"initiatorname\.iscsi", content=r"(?m)^\s*InitiatorName\s*=\s*\S"),
    _Identity(
        "NVMe host ids", "/etc/nvme", "hostnqn|hostid", "rm -f /etc/nvme/hostnqn /etc/nvme/hostid", content=r"\S"
    ),
    _Identity("Kerberos keys", "/etc", r"krb5\.keytab"),
    _Identity("names of network interfaces", "/etc/udev/rules.d", r"70-persistent-net\.rules"),
    _Identity("state of cloud-init", "/var/lib/cloud", "instance", "cloud-init clean"),
)

DEPLOYMENTS = "/ostree/deploy"
"""The folder of ostree's systems: OS/deploy/CHECKSUM.SERIAL, with OS/var for their /var (ostree: "Deployments")."""


class _Deployment(FileTree):
    """A system that ostree keeps in folders of a file system, whose own tree reads the files."""

    def __init__(self, tree: FileTree, root: str, var: str) -> None:
        self._tree = tree
        self._root = root
        self._var = var

    def _there(self, path: str) -> str:
        folder, below = (self._var, path[len(VAR) :]) if f"{path}/".startswith(f"{VAR}/") else (self._root, path)
        return folder + below.rstrip("/")

    def names(self, folder: str) -> list[str]:
        return self._tree.names(self._there(folder))

    def content(self, path: str, length: int = MAX_FILE_SIZE) -> bytes | None:
        return self._tree.content(self._there(path), length)

    def save(self, path: str, target: str) -> None:
        self._tree.save(self._there(path), target)

    def head(self, path: str, length: int) -> bytes:
        return self._tree.head(self._there(path), length)

    def link(self, path: str) -> str | None:
        return self._tree.link(self._there(path))


def _roots(tree: FileTree) -> Iterator[FileTree]:
    """Yield the possible roots of a Linux in a file system. Any deployment of ostree will do, because the identities are merged into each new one."""
    for root in tree.roots():
        yield root
        for name in sorted(root.names(DEPLOYMENTS)):
            folder = f"{DEPLOYMENTS}/{name}/deploy"
            states = sorted(state for state in root.names(folder) if not state.endswith(".origin"))
            yield from (_Deployment(root, f"{folder}/{state}", f"{DEPLOYMENTS}/{name}{VAR}") for state in states[:1])


def find_linux(tree: FileTree) -> list[System]:
    """Return the systems in a file system, and the parts of kind ``USR`` and ``VAR``.

    The name is empty when it is unknown. Raises ImagingError, MissingTool.
    """
    return [system for root in _roots(tree) for system in [_look(root)] if system]


def _look(tree: FileTree) -> System | None:
    release = tree.read("/usr/lib/os-release") or tree.read("/etc/os-release")
    if release or {"os-release", "passwd"} & set(tree.names("/etc")):
        return _system(tree, release or b"")
    release = tree.read("/lib/os-release")
    if release:
        return System(kind=USR, name=_name(release), architecture=_architecture(tree, USR))
    if {"lib", "cache", "log"} <= set(tree.names("/")):
        return System(kind=VAR, name="", shared=list(_shared(tree, VAR)))
    return None


def _system(tree: FileTree, release: bytes) -> System:
    host = printable((tree.read("/etc/hostname") or b"").decode("utf-8", "replace").split("\n")[0])
    evidence = [] if release else ["its os-release can't be read"]
    mounts = [words[1].rstrip("/") for words in _rows(tree)]
    return System(
        kind=LINUX,
        name=_name(release),
        generalization=UNKNOWN,
        problem="",
        evidence=evidence,
        architecture=_architecture(tree),
        computer_name=host,
        shared=list(_shared(tree)),
        apart=[each for each in mounts if each in (USR, VAR) and not tree.names(f"{each}/lib")],
    )


def join(systems: list[System]) -> list[System]:
    """Return the systems of a disk, with separate /usr and /var joined to their Linux, if there is one Linux and one part of the kind. Other parts
    stay in the list."""
    whole = [system for system in systems if system.kind == LINUX]
    if len(whole) != 1:
        return systems
    (joined,) = whole
    for kind in (USR, VAR):
        parts = [system for system in systems if system.kind == kind]
        if len(parts) == 1 and kind in joined.apart:
            part = parts[0]
            systems = [system for system in systems if system is not part]
            joined = replace(
                joined,
                name=joined.name or part.name,
                architecture=joined.architecture or part.architecture,
                shared=joined.shared + part.shared,
                apart=[each for each in joined.apart if each != kind],
            )
    return [joined if system is whole[0] else system for system in systems]


def _name(release: bytes) -> str:
    found = re.search(r'^PRETTY_NAME=["\']?([^"\'\n]*)', release.decode("utf-8", "replace"), re.MULTILINE)
    return printable(found[1]) if found else "Linux" if release else ""


def _shared(tree: FileTree, top: str = "") -> Iterator[Shared]:
    """Yield the identities that copies would share, below ``top`` of a system, which is the root of the tree."""
    for identity in IDENTITIES:
        if not identity.folder.startswith(top):
            continue
        folder = tree.find(identity.folder[len(top) :] or "/")
        names = tree.names(folder) if folder else []
        if any(_identifies(tree, identity, f"{folder}/{name}") for name in names if re.fullmatch(identity.names, name)):
            yield Shared(identity.what, identity.command)


def _identifies(tree: FileTree, identity: _Identity, path: str) -> bool:
    if not identity.linked and tree.link(path) is not None:
        return False
    if not identity.content:
        return True
    return re.search(identity.content, (tree.read(path) or b"").decode("utf-8", "replace")) is not None


def _rows(tree: FileTree) -> Iterator[list[str]]:
    """Yield the rows of /etc/fstab."""
    for line in (tree.read("/etc/fstab") or b"").decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) > 2 and not words[0].startswith("#"):
            yield words


def find_hibernation(tree: FileTree) -> str:
    """Return the swap file in which a Linux is hibernated; empty when there is none. Raises ImagingError, MissingTool.

    On btrfs, a swap file usually lies in a separate subvolume and has another path in /etc/fstab, so its last name is searched, too.
    """
    roots = list(_roots(tree))
    named = [row[0] for root in roots for row in _rows(root) if row[2] == "swap" and row[0].startswith("/")]
    files = [path for path in named if not path.startswith("/dev/")]
    paths = dict.fromkeys([*files, *(f"/{path.rpartition('/')[2]}" for path in files), *SWAP_FILES])
    for root in roots:
        for path in paths:
            found = root.find(path)
            if found is not None and _is_hibernated(root.head(found, PAGES[-1])):
                return path
    return ""


def _is_hibernated(head: bytes) -> bool:
    return head.startswith(TUX_ON_ICE) or any(head[page - 10 : page].rstrip(b"\0") in SUSPENDED for page in PAGES)


MACHINES = {3: "x86", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}
"""The machine types of ELF files (e_machine), by the names that Windows uses."""

PROGRAMS = ("/usr/bin/mount", "/bin/mount", "/usr/bin/env", "/bin/busybox")


def _architecture(tree: FileTree, top: str = "") -> str:
    """Return the machine type of a system's programs, from the first of them that exists (elf(5))."""
    for program in PROGRAMS:
        path = tree.find(program[len(top) :]) if program.startswith(top) else None
        head = tree.head(path, 20) if path else b""
        if len(head) == 20 and head[:4] == b"\x7fELF":
            (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:])
            return MACHINES.get(machine, f"machine {machine}")
    return ""
