# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listing of the image store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action.image_info import ActionModule, describe_image
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd

from ..module_utils.samples import CHUNK, STREAM, Used, geometry, make_image, noise
from .running import run_action


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two images."""
    for seed, name in enumerate(("first", "second")):
        make_image(str(tmp_path / f"{name}.img.zst"), noise(8 * CHUNK, seed), Used((0, 4 * CHUNK)))
    return tmp_path


def run(store: Path, **arguments: Any) -> dict[str, Any]:
    """Run the action plugin."""
    return run_action(ActionModule, "image_info", {"store": str(store), **arguments})


def flip_last_frame_byte(path: Path) -> None:
    """Damage the frame of the first chunk, which only a look at every record finds."""
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)


def test_lists_all_images_with_what_their_headers_and_indexes_say(store: Path) -> None:
    result = run(store)
    first, second = result["images"]
    assert [first["name"], second["name"]] == ["first", "second"]
    assert first["path"] == str(store / "first.img.zst")
    assert (first["disk_size"], first["used_bytes"], first["used_chunks"]) == (8 * CHUNK, 4 * CHUNK, 4)
    assert first["stored_bytes"] == (store / "first.img.zst").stat().st_size
    assert first["source_serial"] == "S1"
    assert first["created"] == "2026-01-02T03:04:05Z"
    assert first["generalization"] == "unknown"
    assert (first["intact"], first["error"]) == (None, None)
    assert not result["changed"]
    assert first["root_digest"] != second["root_digest"]


@pytest.mark.parametrize("noted", [True, False])
def test_what_the_reference_started_is_listed_when_it_is_well_formed(store: Path, noted: bool) -> None:
    good = {"partition": "c0ffee00-1111-2222-3333-444455556666", "loader": "/EFI/debian/shimx64.efi"}
    image = ImageReader(FileSource(str(store / "first.img.zst")))
    image.header = replace(image.header, source={"boot_order": [{"partition": 1}, good] if noted else "\x1b[2J"})
    assert describe_image(image)["boot_order"] == ([good] if noted else [])


def test_an_image_that_was_cut_short_is_listed_with_its_error(store: Path) -> None:
    path = store / "first.img.zst"
    path.write_bytes(path.read_bytes()[:-5])
    result = run(store)
    first, second = result["images"]
    assert not result.get("failed")
    assert first["intact"] is False
    assert "cut short" in first["error"]
    assert second["error"] is None


def test_verify_says_that_undamaged_images_are_intact(store: Path) -> None:
    result = run(store, verify=True)
    assert [image["intact"] for image in result["images"]] == [True, True]
    assert not result.get("failed")


def test_verify_fails_and_names_the_damaged_image(store: Path) -> None:
    flip_last_frame_byte(store / "second.img.zst")
    result = run(store, verify=True)
    assert result["failed"]
    assert "second" in result["msg"]
    assert "first" not in result["msg"]
    assert [image["intact"] for image in result["images"]] == [True, False]


def test_a_store_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere")["images"] == []


def test_an_unknown_name_is_refused_with_what_there_is(store: Path) -> None:
    result = run(store, names=["first", "third"])
    assert result["failed"]
    assert "third" in result["msg"]
    assert "first, second" in result["msg"]


@pytest.mark.parametrize("name", ["../first", "a/b", "", "first.img.zst"])
def test_a_name_that_can_not_be_one_is_refused(store: Path, name: str) -> None:
    result = run(store, names=[name])
    assert result["failed"]
    assert "not a valid image name" in result["msg"]


def test_only_the_images_asked_for_are_listed_once(store: Path) -> None:
    assert [image["name"] for image in run(store, names=["second", "second"])["images"]] == ["second"]


def odd_image(path: Path, change: dict[str, Any]) -> None:
    """An image whose header has odd values, and which is sound otherwise."""
    header = json.loads(ImageHeader(geometry(CHUNK), STREAM, "2026-01-02T03:04:05Z").pack())
    for name, value in change.items():
        parent, _dot, field = name.rpartition(".")
        if parent:
            header[parent] = {**(header[parent] or {}), field: value}
        else:
            header[field] = value
    packed = json.dumps(header).encode()

    class Odd(ImageHeader):
        """Packs what it is told."""

        def pack(self, room: int = 0) -> bytes:
            return packed

    staged = StagedFile(str(path))
    writer = ImageWriter(staged, Odd(geometry(CHUNK), STREAM, "now"), find_zstd().codec())
    writer.finish({"used_bytes": 0})
    staged.commit(None)


PARTITION = {"number": 1, "start": 0, "size": CHUNK}
ODD: list[dict[str, Any]] = [
    {"created": 5},
    {"created": {"a": []}},
    {"collection_version": [1]},
    {"source.systems": 5},
    {"source.systems": ["Windows"]},
    {"source.systems": [{"name": {"a": 1}}]},
    {"source.systems": [{"edition": [[]]}]},
    {"source.host": ["a"]},
    {"source.model": {"b": 1}},
    {"source.serial": True},
    {"source.generalization": 1.5},
    {"source.partitions": {"a": 1}},
    {"source.partitions": [PARTITION, "b"]},
    {"source.partitions": [dict(PARTITION, size=int("9" * 4200))], "partition_table.label": "gpt"},
    {"source.partitions": [dict(PARTITION, number="1")]},
    {"source.partitions": [dict(PARTITION, start=-5)]},
    {"source.partitions": [dict(PARTITION, content=["ntfs"], label={})]},
    {"partition_table.label": ["gpt"]},
    {"partition_table.partitions": "none"},
    {"partition_table.partitions": [5]},
    {"bad_ranges": [{"start": 0, "end": 512, "partition": [1]}]},
    {"bad_ranges": [{"start": 512, "end": 0}]},
    {"bad_ranges": [{"start": 0, "end": 1 << 60}]},
    {"bad_ranges": None},
    {"source": []},
    {"disk": 5},
]


@pytest.mark.parametrize("change", ODD, ids=str)
def test_an_odd_header_is_one_bad_row(store: Path, change: dict[str, Any]) -> None:
    odd_image(store / "odd.img.zst", change)
    rows = {row["name"]: row for row in run(store)["images"]}
    assert "header" in rows["odd"]["error"] or "geometry" in rows["odd"]["error"]
    assert rows["first"]["error"] is None and rows["second"]["error"] is None


def test_what_a_header_says_is_fit_to_be_shown(store: Path) -> None:
    odd_image(store / "odd.img.zst", {"source.host": "\x1b[2J\u202e", "source.systems": [{"name": "W\u200b"}]})
    odd = next(row for row in run(store)["images"] if row["name"] == "odd")
    assert (odd["source_host"], odd["systems"]) == ("\\x1b[2J\\u202e", ["W\\u200b"])
