# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The zstd seekable format, against two implementations that are not ours: one reads, one reads and writes."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import indexed_zstd
import pytest
import pyzstd

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import BadImage, FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.seek_table import FOOTER, SeekTable
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.importing import ImportRequest, import_file
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore

from ..module_utils.samples import CHUNK, Used, make_image, noise

DISK = noise(11 * CHUNK + 4096, 3)
USED = Used((0, 3 * CHUNK + 512), (5 * CHUNK, 5 * CHUNK + 4096), (9 * CHUNK + 100, 11 * CHUNK + 4096))
READERS: dict[str, Callable[[str], Any]] = {
    "indexed-zstd": indexed_zstd.IndexedZstdFile,
    "pyzstd": pyzstd.SeekableZstdFile,
}


@pytest.fixture(name="ours")
def fixture_ours(tmp_path: Path) -> tuple[Path, bytes]:
    """An image, and the disk that it stands for."""
    path = tmp_path / "ours.img.zst"
    return path, make_image(str(path), DISK, USED)[1]


@pytest.fixture(name="theirs")
def fixture_theirs(tmp_path: Path) -> Path:
    """A seekable file that pyzstd wrote, in frames that have nothing to do with our chunks."""
    path = tmp_path / "theirs.img.zst"
    with pyzstd.SeekableZstdFile(str(path), "w", max_frame_content_size=100_000) as file:
        file.write(DISK)
    return path


@pytest.mark.parametrize("library", list(READERS))
def test_they_read_what_we_write(ours: tuple[Path, bytes], library: str) -> None:
    path, content = ours
    file = READERS[library](str(path))
    assert file.read(len(content) + 1) == content
    choose = random.Random(7)
    for _time in range(100):
        start = choose.randrange(len(content))
        size = choose.randrange(1, 3 * CHUNK)
        file.seek(start)
        assert file.read(size) == content[start : start + size]


def table_of(path: Path) -> bytes:
    data = path.read_bytes()
    return data[len(data) - SeekTable.packed_size(data[len(data) - FOOTER.size :], len(data)) :]


def test_a_seek_table_of_theirs_is_what_ours_would_be(theirs: Path) -> None:
    theirs_packed = table_of(theirs)
    table = SeekTable.unpack(theirs_packed)
    assert sum(table.content) == len(DISK)
    assert sum(table.stored) + len(theirs_packed) == theirs.stat().st_size
    again = SeekTable()
    for stored, content in zip(table.stored, table.content, strict=True):
        again.add(stored, content)
    assert again.pack() == theirs_packed


def test_a_seekable_file_that_is_no_image_is_said_to_be_none(theirs: Path) -> None:
    with pytest.raises(BadImage, match=r"theirs\.img\.zst"):
        ImageReader(FileSource(str(theirs)))


def test_we_import_what_they_write(theirs: Path, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path / "store"))
    imported = import_file(run_command, store, ImportRequest(str(theirs)))
    assert imported is not None and imported.format == "zstd"
    plain = subprocess.run(["zstd", "-q", "-dc", imported.path], capture_output=True, check=True).stdout
    assert plain == DISK


def test_a_seekable_file_that_is_cut_is_not_imported(theirs: Path, tmp_path: Path) -> None:
    """Also where the cut leaves all of the content, and takes only of the table behind it."""
    store = FolderStore(str(tmp_path / "store"))
    whole = theirs.read_bytes()
    for less in (1, len(table_of(theirs)) - 3, len(table_of(theirs)) + 10):
        theirs.write_bytes(whole[:-less])
        with pytest.raises(ImagingError, match=r"cut short|damaged"):
            import_file(run_command, store, ImportRequest(str(theirs)))
