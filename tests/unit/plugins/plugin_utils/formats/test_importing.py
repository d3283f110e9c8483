# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports and exports on a controller that has nothing: no Linux tools, no holes, no hard links."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats import exporting, importing
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.exporting import export_image
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.file_disk import FileDisk
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.importing import ImportRequest, import_file
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.lab.tools import SEARCH_PATH

from ...module_utils.samples import noise

MIB = 1 << 20
CONTENT = noise(3 * MIB, 5) + bytes(9 * MIB) + noise(MIB + 512, 6)


def no_tools(command: Sequence[str]) -> CommandResult:
    raise MissingTool(command[0])


@pytest.fixture(name="store")
def fixture_store(tmp_path: Path) -> FolderStore:
    return FolderStore(str(tmp_path / "store"))


@pytest.fixture(name="disk")
def fixture_disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    return path


def plain(path: str) -> bytes:
    return subprocess.run(["zstd", "-q", "-dc", path], capture_output=True, check=True).stdout


@pytest.mark.parametrize("holes", [True, False])
def test_without_tools_all_but_zeros_is_imported(
    store: FolderStore, disk: Path, monkeypatch: pytest.MonkeyPatch, holes: bool
) -> None:
    if not holes:
        monkeypatch.delattr(os, "SEEK_DATA")
        monkeypatch.delattr(os, "sched_getaffinity")
    done = import_file(no_tools, store, ImportRequest(str(disk)))
    assert done is not None and done.changed
    assert any("All of" in warning and "is not installed" in warning for warning in done.warnings)
    assert plain(done.path) == CONTENT
    assert done.image.header.source["imported_from"]["path"] == str(disk)


def test_sectors_of_4_kib_are_seen(store: FolderStore, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096) + b"EFI PART".ljust(4096, b"\1") + bytes(64 << 10))
    done = import_file(no_tools, store, ImportRequest(str(path)))
    assert done is not None
    assert done.image.header.geometry.logical_sector_size == 4096
    assert any("4096" in warning for warning in done.warnings)


@pytest.mark.parametrize("label", ["gpt", "dos"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_that_is_cut_short_is_not_imported(store: FolderStore, tmp_path: Path, label: str, packed: bool) -> None:
    """By what its partition table says; a GPT says so even where there is no sfdisk."""
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(64 * MIB)
    script = f"label: {label}\nstart=2048, size=60000\nstart=62048, size=60000\n"
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True, env={**os.environ, "PATH": SEARCH_PATH})
    whole = import_file(run_command, store, ImportRequest(str(path), name="whole"))
    assert whole is not None and whole.changed
    os.truncate(path, 40 * MIB)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    for run in (run_command, no_tools) if label == "gpt" else (run_command,):
        with pytest.raises(ImagingError, match=r"disk\.img is cut short"):
            import_file(run, store, ImportRequest(str(path)))
    assert os.listdir(store.path) == ["whole.img.zst"]


def test_a_full_store_is_said_and_left_clean(
    store: FolderStore, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "disk.gz"
    packed.write_bytes(gzip.compress(CONTENT))

    def full(*_arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing, "decompress_file", full)
    with pytest.raises(ImagingError, match="No space left"):
        import_file(no_tools, store, ImportRequest(str(packed)))
    assert os.listdir(store.path) == []


def test_a_file_that_changes_meanwhile_is_not_kept(
    store: FolderStore, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = importing._Import._map

    def changing(self: importing._Import, opened: FileDisk) -> object:
        with open(disk, "r+b") as file:
            file.write(b"changed")
        os.utime(disk, (1, 1))
        return original(self, opened)

    monkeypatch.setattr(importing._Import, "_map", changing)
    with pytest.raises(ImagingError, match="was changed while"):
        import_file(no_tools, store, ImportRequest(str(disk)))
    assert os.listdir(store.path) == []


@pytest.mark.parametrize(("kind", "links"), [("raw", True), ("raw", False), ("gz", True), ("xz", True)])
def test_exports(
    store: FolderStore, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, links: bool
) -> None:
    done = import_file(no_tools, store, ImportRequest(str(disk)))
    assert done is not None
    if not links:

        def fail_task(*_arguments: object) -> None:
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", fail_task)
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "target"
    size = export_image(done.image, str(target), kind)
    assert size == target.stat().st_size
    command = {"raw": ["cat"], "gz": ["gzip", "-dc"], "xz": ["xz", "-dc"]}[kind]
    assert (
        subprocess.run([*command, target], stdin=open(target, "rb"), capture_output=True, check=True).stdout == CONTENT
    )
    with pytest.raises(ImagingError, match="exists already"):
        export_image(done.image, str(target), kind)
    assert os.listdir(folder) == ["target"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("d.img", "raw"), ("d.RAW", "raw"), ("d.img.gz", "gz"), ("d.img.xz", "xz"), ("d.qcow2", "qcow2")],
)
def test_the_name_of_a_file_says_what_to_export(name: str, kind: str) -> None:
    assert exporting.format_of(name) == kind


def test_two_exports_to_one_file(store: FolderStore, disk: Path, tmp_path: Path) -> None:
    done = import_file(no_tools, store, ImportRequest(str(disk)))
    assert done is not None
    partial = tmp_path / "target.img.partial"
    partial.write_bytes(b"of another")
    with pytest.raises(ImagingError, match=r"partial exists"):
        export_image(done.image, str(tmp_path / "target.img"), "raw")
    assert partial.read_bytes() == b"of another"


def test_without_qemu_img_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "QEMU_IMG", "no-such-qemu-img")
    with pytest.raises(ImagingError, match=r"qemu-utils.*or export to \.img"):
        exporting.FORMATS["qcow2"].check()


def test_a_qemu_img_that_does_not_run_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "QEMU_IMG", "false")
    with pytest.raises(ImagingError, match=r"does not run here: exit status 1, .*or export to \.img"):
        exporting.FORMATS["qcow2"].check()
