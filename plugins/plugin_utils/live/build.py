# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the live system: an ISO image, and kernel, initrd and squashfs for a start over the network."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...module_utils.errors import ImagingError
from .medium import MENU, PARAMETERS, make_iso
from .overlay import pack_overlay
from .programs import Programs

EPOCH = 1767225600
"""The time of everything in a build that has none of its own or a later one: 2026-01-01 00:00 UTC. So builds of the same packages are equal."""

VERSION = 1
"""Grows when the same inputs give another live system."""

RECORD = "build.json"
"""Describes a build. It is there only while all files beside it are whole and belong together."""

ISO, KERNEL, INITRD, SQUASHFS = "live.iso", "vmlinuz", "initrd", "filesystem.squashfs"
RESULTS = (ISO, KERNEL, INITRD, SQUASHFS)

NEEDED_SPACE = 4 << 30
"""Bytes of free space that a build must find; it takes less, for a while."""

LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")
COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "15", "-b", "256K")
UNREACHABLE = ("Failed to fetch", "Could not connect", "Could not resolve", "Temporary failure")
"""What apt-get says when it can't get something from a mirror."""

CUSTOMIZE = "usr/lib/fleet-live/customize"
HANDED_OUT = "/fleet"
"""Where the overlay's script puts what is to leave the live system."""


@dataclass(frozen=True)
class Inputs:
    """All that a live system is made of, but for the versions of its packages."""

    suite: str
    sources: list[str]
    packages: list[str]
    overlay: bytes

    def fingerprint(self) -> str:
        """Return a text that differs when anything differs."""
        parts = {**asdict(self), "overlay": hashlib.sha256(self.overlay).hexdigest()}
        parts.update(version=VERSION, parameters=PARAMETERS, menu=MENU, left_out=LEFT_OUT)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def make_inputs(suite: str, sources: list[str], packages: list[str], files: Path, own: dict[str, bytes]) -> Inputs:
    """Return the inputs of a build: ``files`` is the folder that is laid over the packages, ``own`` this lab's files by their paths."""
    return Inputs(suite=suite, sources=sources, packages=packages, overlay=pack_overlay(files, own, EPOCH))


class BuildFolder:
    """The folder with a build's files and its record."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self) -> dict[str, Any]:
        """Return the record of the build that is there; empty when there is none, or a file of it is not as long as it was."""
        try:
            record = json.loads((self.path / RECORD).read_text())
            if isinstance(record, dict) and all(
                (self.path / name).stat().st_size == record["files"][name]["size"] for name in RESULTS
            ):
                return record
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[Path]:
        """Hold the folder for a build, and yield an empty folder in it, which is removed in the end; raises ImagingError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "wb")
        except OSError as error:
            raise ImagingError(
                f"{self.path} can't be written: {error.strerror}. Set imaging_live_folder to another folder."
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ImagingError(f"Another build works in {self.path}: wait until it is done.") from error
            for stale in self.path.glob(".build-*"):
                shutil.rmtree(stale)
            self._check_space()
            with tempfile.TemporaryDirectory(prefix=".build-", dir=self.path) as folder:
                yield Path(folder)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < NEEDED_SPACE:
            raise ImagingError(
                f"{self.path} has {free / (1 << 30):.1f} GiB of free space, expected at least {NEEDED_SPACE >> 30} GiB while a live system is built: "
                "make space, or set imaging_live_folder to another folder."
            )

    def keep(self, parts: Path, record: dict[str, Any]) -> None:
        """Replace the build that is there."""
        (self.path / RECORD).unlink(missing_ok=True)
        for name in RESULTS:
            os.replace(parts / name, self.path / name)
        (parts / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        os.replace(parts / RECORD, self.path / RECORD)


def check_root() -> None:
    """Raise ImagingError unless this user can build."""
    if os.geteuid():
        raise ImagingError(
            "Building a live system unpacks Debian packages, which only root can: expected the user root. Run live.yml as root."
        )


def build(inputs: Inputs, folder: BuildFolder, proxies: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Build, and return the record and whether anything is different now; raises ImagingError. Nothing is left of a build that fails."""
    with folder.locked() as parts:
        programs = Programs(parts / "log", {"SOURCE_DATE_EPOCH": str(EPOCH), "INITRD": "No", "TMPDIR": str(parts)})
        make_system(inputs, parts, proxies, programs)
        label = _label(parts)
        make_iso(parts, parts / ISO, label, EPOCH, programs)
        record = {
            "inputs": inputs.fingerprint(),
            "label": label,
            "suite": inputs.suite,
            "kernel_parameters": " ".join(PARAMETERS),
            "files": {
                name: {"size": (parts / name).stat().st_size, "sha256": _sha256(parts / name)} for name in RESULTS
            },
            "packages": (parts / "packages").read_text().splitlines(),
        }
        if record == folder.record():
            return record, False
        for name in RESULTS:
            # They hold the private host key of all media.
            (parts / name).chmod(0o600)
        folder.keep(parts, record)
    return record, True


def make_system(inputs: Inputs, parts: Path, proxies: Sequence[str], programs: Programs) -> None:
    """Make kernel, initrd, squashfs, and what the medium needs, of Debian packages."""
    overlay = parts / "overlay.tar"
    overlay.write_bytes(inputs.overlay)
    hooks = (
        f"tar-in {overlay} /",
        f'chroot "$1" sh /{CUSTOMIZE} {HANDED_OUT}',
        f"sync-out {HANDED_OUT} {parts}",
        f'rm -r "$1{HANDED_OUT}" "$1/{CUSTOMIZE}"',
    )
    command = [
        # What is mounted in the new system is seen by mmdebstrap alone, and goes with it, however it ends.
        *("unshare", "--mount"),
        *("mmdebstrap", "--mode=root", "--variant=apt", "--format=tar", "--architectures=amd64"),
        # With lines of sources, there is no key to be found out.
        *(["--skip=check/signed-by"] if inputs.sources else []),
        *(f"--aptopt={line}" for line in proxies),
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        *("--dpkgopt=path-include=/usr/share/doc/*/copyright", "--dpkgopt=force-confold"),
        f"--include={','.join(inputs.packages)}",
        *(f"--customize-hook={hook}" for hook in hooks),
        *(inputs.suite, "-", *inputs.sources),
    ]
    squashfs = ["mksquashfs", "-", str(parts / SQUASHFS), "-tar", *COMPRESSION, "-noappend", "-quiet", "-no-progress"]
    try:
        programs.run(command, into=squashfs)
    except ImagingError as error:
        if any(words in str(error) for words in UNREACHABLE):
            raise ImagingError(
                "The packages can't be fetched. Check the network and the proxy of this machine, or set imaging_live_mirror to another mirror. "
                f"{error}"
            ) from error
        raise


def _label(parts: Path) -> str:
    """Return the label of the medium, which is different when what is on it is: the initrd finds it by that alone."""
    digests = "".join(_sha256(parts / name) for name in (KERNEL, INITRD, SQUASHFS))
    return f"FLEET_{hashlib.sha256(digests.encode()).hexdigest()[:16].upper()}"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
