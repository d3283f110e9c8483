# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import check_name
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import (
    Used,
    make_image,
    noise,
)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "/etc/passwd",
        "../x",
        "a..b",
        ".hidden",
        "-rf",
        "a b",
        "a\nb",
        "x" * 201,
        "a.img.zst",
        "a.partial",
        "ä",
        "a\0b",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ImagingError, match="not a valid image name"):
        check_name(name)


@pytest.mark.parametrize("name", ["win11-lab", "reference-2026-01-02", "a.b", "A_1+x@y:z", "0"])
def test_names_that_people_give(name: str) -> None:
    assert check_name(name) == name


def test_an_unknown_image_is_an_error_that_lists_what_there_is(tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    with pytest.raises(ImagingError, match="store is empty"):
        store.open("nothing")
    make_image(store.image_path("one"), noise(70144), Used((0, 512)))
    make_image(store.image_path("two"), noise(70144), Used((0, 512)))
    (tmp_path / "three.img.zst.partial").write_bytes(b"")
    with pytest.raises(ImagingError, match=r"no image 'nothing'.*There are: one, two\."):
        store.open("nothing")
    assert store.open("one").index.used_bytes() == 512


def test_a_store_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path / "new" / "store"))
    assert store.names() == []
    store.stage("a").remove()
    assert os.stat(store.path).st_mode & 0o777 == 0o700
    assert os.listdir(store.path) == []


def test_an_image_of_that_name_is_never_overwritten(tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    make_image(store.image_path("one"), noise(70144), Used((0, 512)))
    with pytest.raises(ImagingError, match=r"already.*imaging_remove_images: \[one\]"):
        store.existing("one", update=False)
    assert store.existing("one", update=True) is not None
    assert store.existing("two", update=False) is None


def test_a_store_that_can_not_be_written_names_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(str(tmp_path / "file" / "store"))
    with pytest.raises(ImagingError, match=r"file/store failed"):
        store.stage("a")


@pytest.mark.parametrize("name", ["a.img.zst.partial", "a.img.zst.partial.old"])
def test_nothing_is_written_through_a_link_in_the_store(tmp_path: Path, name: str) -> None:
    store, victim = FolderStore(str(tmp_path / "store")), tmp_path / "victim"
    os.mkdir(store.path)
    victim.write_text("precious")
    for target in (victim, tmp_path / "not there"):
        link = Path(store.path) / name
        link.symlink_to(target)
        with contextlib.suppress(ImagingError):
            store.stage("a").release(keep=True)
        link.unlink(missing_ok=True)
    assert victim.read_text() == "precious" and not (tmp_path / "not there").exists()


def test_what_is_no_file_is_no_image(tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    os.mkfifo(store.image_path("fifo"))
    os.mkdir(store.image_path("folder"))
    os.symlink("/dev/zero", store.image_path("device"))
    for name in ("fifo", "folder", "device"):
        with pytest.raises(ImagingError, match=r"not a regular file|can.t be read"):
            store.open(name)
