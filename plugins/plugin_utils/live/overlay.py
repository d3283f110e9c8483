# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that are laid over the packages of the live system, as an archive that is equal whenever they are."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("usr/lib/fleet-live/", "etc/initramfs-tools/hooks/")
"""What lies here is executable. Not every way to install a collection keeps the modes of files."""

PRIVATE = ("root/.ssh/", "etc/ssh/ssh_host_ed25519_key")


def pack_overlay(root: Path, more: Mapping[str, bytes], mtime: int) -> bytes:
    """Return a tar archive of the files below a folder, and of more files by their paths, all owned by root."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    files.update(more)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mtime = tarfile.DIRTYPE, mtime
            entry.mode = 0o700 if f"{folder}/" in PRIVATE or folder == "root" else 0o755
            archive.addfile(entry)
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), mtime, _mode(name)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _mode(name: str) -> int:
    if name.startswith(PRIVATE) and not name.endswith(".pub"):
        return 0o600
    return 0o755 if name.startswith(PROGRAMS) else 0o644
