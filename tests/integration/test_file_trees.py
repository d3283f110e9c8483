# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of file systems that are not mounted: what is there, what is not, and what can't be read, which is another thing."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.file_tree import NoFile, Unreadable
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.ext import ExtTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.fat import FatTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.ntfs import NtfsTree
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.tests.integration.disk_files import MIB, RUN, needs
from ansible_collections.fleet.imaging.tests.integration.test_disks import NTFS
from ansible_collections.fleet.imaging.tests.lab.ntfs import NtfsVolume

FATS = {
    "FAT12": (4, ["-F", "12"]),
    "FAT16": (32, ["-F", "16", "-s", "4"]),
    "FAT32": (40, ["-F", "32", "-s", "1"]),
    "FAT32 with few clusters": (40, ["-F", "32", "-s", "8"]),
    "FAT32 with one table": (40, ["-F", "32", "-s", "1", "-f", "1"]),
    "FAT with large sectors": (32, ["-S", "4096"]),
}
NAMES = (
    "EFI/BOOT/BOOTX64.EFI",
    "EFI/fedora/shimx64.efi",
    "EFI/fedora/shimx64-fedora.efi",
    "EFI/fedora/a longer name.with.dots",
    "short",
)


def fat(tmp_path: Path, kind: str) -> Path:
    size, options = FATS[kind]
    volume = tmp_path / "volume"
    with open(volume, "wb") as file:
        file.truncate(size * MIB)
    subprocess.run(["mkfs.fat", *options, volume], check=True, capture_output=True)
    return volume


def put(volume: Path, path: str, content: bytes) -> None:
    source = volume.parent / "source"
    source.write_bytes(content)
    FatTree(RUN, str(volume)).put(str(source), f"/{path}")


def sound(volume: Path) -> None:
    done = subprocess.run(["fsck.fat", "-n", volume], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", FATS)
def test_what_is_written_into_a_fat_is_read_by_others(tmp_path: Path, kind: str) -> None:
    needs("mkfs.fat", "fsck.fat", "mtype")
    volume = fat(tmp_path, kind)
    contents = {name: os.urandom(size) for name, size in zip(NAMES, (300_000, 0, 1, 4096, 70_000), strict=False)}
    for name, content in contents.items():
        put(volume, name, b"something else")
        put(volume, name, content)
    sound(volume)
    tree = FatTree(RUN, str(volume))
    for name, content in contents.items():
        assert tree.read(f"/{name}") == content
        assert tree.read(f"/{name.upper()}") == content
        if "few" not in kind:  # mtools refuses that one
            assert (
                subprocess.run(["mtype", "-i", volume, f"::/{name}"], check=True, capture_output=True).stdout == content
            )
    assert sorted(tree.names("/EFI/fedora")) == ["a longer name.with.dots", "shimx64-fedora.efi", "shimx64.efi"]
    assert sorted(tree.names("/")) == ["EFI", "short"]


@pytest.mark.parametrize("kind", ["FAT12", "FAT16", "FAT32"])
def test_what_others_write_into_a_fat_is_read(tmp_path: Path, kind: str) -> None:
    needs("mkfs.fat", "mcopy")
    volume = fat(tmp_path, kind)
    folder = tmp_path / "Some Folder"
    folder.mkdir()
    numbers = random.Random(3)
    for number in range(60):
        name = f"{'Long Name ' * numbers.randint(0, 5)}{'é' * (number % 3)}{number}.Ext"
        (folder / name).write_bytes(os.urandom(numbers.randint(0, 20_000)))
    subprocess.run(["mcopy", "-s", "-i", volume, folder, "::/"], check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    tree = FatTree(RUN, str(volume))
    assert sorted(tree.names("/some folder")) == sorted(os.listdir(folder))
    for name in os.listdir(folder):
        assert tree.read(f"/Some Folder/{name}") == (folder / name).read_bytes()
        assert tree.head(f"/Some Folder/{name}", 5) == (folder / name).read_bytes()[:5]


def test_a_folder_of_a_fat_grows_and_a_full_one_says_so(tmp_path: Path) -> None:
    needs("mkfs.fat", "fsck.fat")
    volume = fat(tmp_path, "FAT12")
    for number in range(70):
        put(volume, f"folder/a rather long name {number}", b"x" * number)
    sound(volume)
    assert len(FatTree(RUN, str(volume)).names("/folder")) == 70
    with pytest.raises(ImagingError, match=r"no room: .* clusters"):
        put(volume, "large", bytes(5 * MIB))
    with pytest.raises(ImagingError, match="is a file"):
        put(volume, "folder/a rather long name 1/file", b"")
    sound(volume)
    with pytest.raises(ImagingError, match="no room for another name"):
        for number in range(600):
            put(volume, f"in the root {number}", b"")
    sound(volume)


def test_a_fat_that_can_not_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    needs("mkfs.fat")
    volume = fat(tmp_path, "FAT16")
    put(volume, "EFI/BOOT/BOOTX64.EFI", os.urandom(50_000))
    tree = FatTree(RUN, str(volume))
    assert tree.find("/EFI/nothing") is None and tree.names("/nothing") == [] and tree.content("/nothing") is None
    assert tree.content("/EFI") is None and tree.head("/nothing", 5) == b""
    with pytest.raises(NoFile):
        tree.save("/nothing", str(tmp_path / "copy"))
    whole = volume.read_bytes()
    for place, damage in ((11, b"\1\2"), (13, b"\0"), (16, b"\0"), (14, b"\0\0"), (32, b"\xff\xff\xff\x0f")):
        volume.write_bytes(whole[:place] + damage + whole[place + len(damage) :])
        with pytest.raises(Unreadable):
            tree.find("/EFI/BOOT/BOOTX64.EFI")
    volume.write_bytes(whole[: 4 * 512 + 6] + b"\x01\0" * 200 + whole[4 * 512 + 406 :])  # chains that lead nowhere
    with pytest.raises(Unreadable, match="allocation table"):
        tree.read("/EFI/BOOT/BOOTX64.EFI")
    volume.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unreadable, match="larger than what it lies in"):
        tree.find("/EFI")
    volume.unlink()
    with pytest.raises(Unreadable, match="No such file"):
        tree.find("/EFI")


@pytest.fixture(name="ntfs")
def fixture_ntfs(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    with open(volume, "wb") as file:
        file.truncate(32 * MIB)
    subprocess.run([*NTFS, volume], check=True, capture_output=True)
    with NtfsVolume(volume) as files:
        files.write("Windows/System32/config/SYSTEM", b"x" * 5000)
        files.write("Windows/Ünïcode", b"y")
        for number in range(200):
            files.write(f"many/file{number:04d}", b"")
    return volume


def damage(volume: Path, magic: bytes, word: str) -> int:
    """Take away the magic of each record of the MFT or of an index that has a word in it; returns of how many."""
    content = bytearray(volume.read_bytes())
    size = 1024 if magic == b"FILE" else 4096
    places = [
        place
        for place in range(0, len(content), 1024)
        if content[place : place + 4] == magic and word.encode("utf-16-le") in content[place : place + size]
    ]
    for place in places:
        content[place : place + 4] = b"\0\0\0\0"
    volume.write_bytes(content)
    return len(places)


def test_what_is_not_in_an_ntfs_is_not_there(ntfs: Path, tmp_path: Path) -> None:
    tree = NtfsTree(RUN, str(ntfs))
    assert tree.find("/windows/system32/CONFIG/system") == "/Windows/System32/config/SYSTEM"
    assert tree.find("/Windows/nothing/at/all") is None and tree.find("/Windows/System32/config/SYSTEM/below") is None
    assert (tree.names("/nothing"), tree.content("/nothing"), tree.content("/Windows")) == ([], None, None)
    assert tree.head("/nothing", 4) == b"" and tree.head("/Windows/System32/config/SYSTEM", 4) == b"xxxx"
    assert tree.read("/windows/ünïcode") == b"y"
    with pytest.raises(NoFile):
        tree.save("/nothing", str(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("magic", "word", "path"),
    [
        (b"FILE", "Windows", "/Windows/System32"),
        (b"FILE", "SYSTEM", "/Windows/System32/config/SYSTEM"),
        (b"INDX", "file0100", "/many/file0100"),
    ],
)
def test_what_is_damaged_in_an_ntfs_is_not_absent(
    ntfs: Path, tmp_path: Path, magic: bytes, word: str, path: str
) -> None:
    assert damage(ntfs, magic, word)
    tree = NtfsTree(RUN, str(ntfs))
    with pytest.raises(Unreadable):
        tree.read(path)
    if word == "SYSTEM":
        with pytest.raises(Unreadable):
            tree.save(path, str(tmp_path / "copy"))
        with pytest.raises(Unreadable):
            tree.head(path, 4)


def test_what_is_no_ntfs_is_said(tmp_path: Path) -> None:
    (tmp_path / "volume").write_bytes(bytes(MIB))
    with pytest.raises(Unreadable):
        NtfsTree(RUN, str(tmp_path / "volume")).find("/Windows")


def test_what_is_damaged_in_an_ext4_is_not_absent(tmp_path: Path) -> None:
    volume, root = tmp_path / "volume", tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_bytes(b"name\n")
    (root / "etc/empty").write_bytes(b"")
    (root / "etc/large").write_bytes(os.urandom(100_000))
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, volume, "16M"], check=True)
    tree = ExtTree(RUN, str(volume))
    assert (tree.read("/etc/hostname"), tree.read("/etc/empty"), tree.read("/etc/nothing")) == (b"name\n", b"", None)
    assert tree.names("/etc/hostname") == [] and tree.find("/etc/hostname/below") is None
    assert tree.head("/nothing", 4) == b"" and tree.head("/etc/large", 4) == (root / "etc/large").read_bytes()[:4]
    with pytest.raises(NoFile):
        tree.save("/nothing", str(tmp_path / "copy"))
    with pytest.raises(Unreadable, match="such a name"):
        tree.content('/a"name')
    whole = volume.read_bytes()
    block = whole.index(b"hostname") // 1024 * 1024
    volume.write_bytes(whole[:block] + b"\xee" * 1024 + whole[block + 1024 :])
    with pytest.raises(Unreadable):
        ExtTree(RUN, str(volume)).read("/etc/hostname")
    volume.write_bytes(whole[:1024] + bytes(1024) + whole[2048:])
    with pytest.raises(Unreadable):
        ExtTree(RUN, str(volume)).find("/etc")
