# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressing an image anew."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import BadImage, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils import recompress as module
from ansible_collections.fleet.imaging.plugins.plugin_utils.recompress import recompress
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image

from ..module_utils.samples import CHUNK, Used, make_image, noise

DISK = b"a text that repeats itself. " * CHUNK + noise(5 * CHUNK)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A store with one image, of used, partly used and unused chunks and of zeros."""
    disk = bytearray(DISK[: 33 * CHUNK])
    disk[8 * CHUNK : 10 * CHUNK] = bytes(2 * CHUNK)
    make_image(str(tmp_path / "lab.img.zst"), bytes(disk), Used((0, 20 * CHUNK), (27 * CHUNK + 512, 33 * CHUNK)))
    return FolderStore(str(tmp_path))


def contents(image: ImageReader) -> dict[int, bytes]:
    """What each used chunk decompresses to."""
    codec, found = find_zstd().codec(), {}
    for row in image.index:
        room = memoryview(bytearray(image.header.geometry.length(row.chunk)))
        codec.decompress_into(image.record(row).frame, room)
        found[row.chunk] = bytes(room)
    return found


def files(store: FolderStore) -> dict[str, bytes]:
    """All files of the store."""
    return {path.name: path.read_bytes() for path in Path(store.path).iterdir()}


def test_the_file_is_another_one_and_the_content_the_same(store: FolderStore) -> None:
    before = store.open("lab")
    after = recompress(store, "lab", 12)
    assert after.stored_bytes < before.stored_bytes
    assert (after.root_digest, after.index.totals) == (before.root_digest, before.index.totals)
    assert contents(after) == contents(before)  # which is read from the file that was open before
    assert (after.header.compression_level, after.header.source) == (12, before.header.source)
    assert after.header.image_id != before.header.image_id
    verify_image(after)
    assert list(files(store)) == ["lab.img.zst"]


def test_an_image_that_has_the_level_is_left_alone(store: FolderStore) -> None:
    recompress(store, "lab", 5)
    before = os.stat(store.image_path("lab"))
    recompress(store, "lab", 5)
    assert os.stat(store.image_path("lab")) == before
    assert recompress(store, "lab", 6).header.compression_level == 6


def test_a_kill_leaves_the_old_image_and_nothing_that_is_in_the_way(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(store)
    child = os.fork()
    if not child:
        monkeypatch.setattr(module, "verify_image", lambda _made: os.kill(os.getpid(), signal.SIGKILL))
        try:
            recompress(store, "lab", 12)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = files(store)
    assert left.keys() == {"lab.img.zst", "lab.img.zst.partial"} and left.items() >= before.items()
    assert recompress(store, "lab", 12).header.compression_level == 12
    assert list(files(store)) == ["lab.img.zst"]


def test_a_damaged_image_is_named_and_left_as_it_is(store: FolderStore) -> None:
    row = store.open("lab").index.row_at(3)
    with open(store.image_path("lab"), "r+b") as file:
        file.seek(row.frame_offset + row.frame_size - 1)
        file.write(b"?")
    before = files(store)
    with pytest.raises(BadImage, match="chunk 3 is damaged"):
        recompress(store, "lab", 12)
    assert files(store) == before


def test_what_an_interrupted_capture_has_left_survives_a_failure(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(store.image_path("lab") + ".partial", "wb") as file:
        file.write(b"left")
    before = files(store)

    def full(_made: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "verify_image", full)
    with pytest.raises(ImagingError, match="No space left"):
        recompress(store, "lab", 12)
    assert files(store) == before


def test_a_file_that_does_not_hold_the_same_is_not_kept(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(ImageWriter):
        def append(self, header: Any, frame: Any, stored: Any = None) -> None:
            if header.chunk != 2:
                super().append(header, frame, stored)

    monkeypatch.setattr(module, "ImageWriter", Forgetful)
    before = files(store)
    with pytest.raises(ImagingError, match="not what was read"):
        recompress(store, "lab", 12)
    assert files(store) == before


def test_an_image_that_was_replaced_meanwhile_is_not_overwritten(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(store.image_path("lab"))

    def replace_it(_made: Any) -> None:
        newer = path.with_name("newer")
        newer.write_bytes(b"newer")
        newer.replace(path)

    monkeypatch.setattr(module, "verify_image", replace_it)
    with pytest.raises(ImagingError, match="created or changed"):
        recompress(store, "lab", 12)
    assert files(store) == {"lab.img.zst": b"newer"}


def test_a_capture_of_the_same_name_is_not_disturbed(store: FolderStore) -> None:
    staged = store.stage("lab")
    with pytest.raises(ImagingError, match="is being written"):
        recompress(store, "lab", 12)
    staged.remove()
