# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk's content, and an image's, is a state: what is there already is neither sent nor written."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk, ReadError
from ansible_collections.fleet.imaging.plugins.module_utils.engine import delta_scan
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import check_record
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import UNREADABLE_SECTORS
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK, Used, make_image, noise

from .halves import (
    SIZE,
    USED,
    capture,
    cut_at,
    disk_is_restored,
    restore,
)

USED_CHUNKS = 27
GUARD_CHUNKS = 2

Spy = Callable[..., Any]


def forbid_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: object) -> None:
        raise AssertionError("the disk is changed")

    for name in ("write_from", "zero", "discard"):
        monkeypatch.setattr(RawDisk, name, never)


def spoil(laptop: SimpleNamespace, *chunks: int) -> None:
    with open(laptop.disk, "r+b") as disk:
        for chunk in chunks:
            disk.seek(chunk * CHUNK + 1024)
            disk.write(b"changed since")


@pytest.mark.parametrize("rotating", [False, True])
def test_an_equal_disk_is_not_touched(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, rotating: bool) -> None:
    first, _ends = restore(laptop, rotating=rotating)
    assert (first["changed"], first["equal_chunks"], first["written_chunks"]) == (True, 0, USED_CHUNKS)
    before = laptop.disk.read_bytes()
    forbid_changes(monkeypatch)
    second, _ends = restore(laptop, rotating=rotating)
    assert (second["changed"], second["bytes_written"], second["verified"]) == (False, 0, True)
    assert (second["equal_chunks"], second["written_chunks"]) == (USED_CHUNKS, 0)
    assert second["sent"] < 5000 < first["sent"]
    assert laptop.disk.read_bytes() == before


@pytest.mark.parametrize("rotating", [False, True])
@pytest.mark.parametrize("chunks", [[7], [0], [39], [3, 20, 24]])
def test_only_what_differs_is_sent(laptop: SimpleNamespace, rotating: bool, chunks: list[int]) -> None:
    restore(laptop)
    before = laptop.disk.read_bytes()
    spoil(laptop, *chunks)
    result, _ends = restore(laptop, rotating=rotating)
    assert (result["changed"], result["verified"]) == (True, True)
    assert result["written_chunks"] <= len(chunks) + GUARD_CHUNKS
    assert result["sent"] < (len(chunks) + 0.5) * CHUNK
    # The guards were down meanwhile and are up again, also in chunks that did not differ.
    assert laptop.disk.read_bytes() == before


def test_the_guards_are_down_while_a_chunk_in_the_middle_is_written(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(laptop)
    spoil(laptop, 12)
    write, seen = RawDisk.write_from, []

    def look(self: RawDisk, offset: int, view: memoryview) -> None:
        if offset == 12 * CHUNK:
            found = laptop.disk.read_bytes()
            seen.append(any(found[:1024]) or any(found[-512:]))
        write(self, offset, view)

    monkeypatch.setattr(RawDisk, "write_from", look)
    result, _ends = restore(laptop)
    assert seen == [False]
    assert result["verified"] is True
    assert disk_is_restored(laptop)


def test_with_rewrite_everything_is_written(laptop: SimpleNamespace) -> None:
    restore(laptop)
    result, _ends = restore(laptop, rewrite=True)
    assert (result["equal_chunks"], result["written_chunks"], result["verified"]) == (0, USED_CHUNKS, True)


@pytest.mark.parametrize("rotating", [False, True])
def test_what_is_equal_far_behind_what_is_not_is_compared_too(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, rotating: bool
) -> None:
    # So that what lies between the first chunks and the first equal sample is not compared.
    for name, value in (("MIN_EQUAL_SHARE", 0.9), ("MIN_EQUAL_SHARE_ROTATING", 0.9), ("WINDOW", 4)):
        monkeypatch.setattr(delta_scan, name, value)
    restore(laptop)
    spoil(laptop, *range(15))
    result, _ends = restore(laptop, rotating=rotating)
    assert disk_is_restored(laptop) and 10 <= result["equal_chunks"] <= 12


@pytest.mark.parametrize("rotating", [False, True])
def test_a_restore_that_was_cut_is_finished_by_what_was_missing(laptop: SimpleNamespace, rotating: bool) -> None:
    whole, _ends = restore(laptop)
    laptop.disk.write_bytes(noise(SIZE, 6))
    cuts = iter([whole["sent"] // 2])
    # Both ends give up after the same time; which of them says so first is chance.
    try:
        broken, _ends = restore(laptop, rotating=rotating, to_laptop=lambda: cut_at(next(cuts, 0)))
        assert broken["failed"]
    except ImagingError as error:
        assert "could not be kept" in str(error)
    assert not any(laptop.disk.read_bytes()[:1024])
    result, _ends = restore(laptop, rotating=rotating)
    assert result["verified"] is True
    assert result["equal_chunks"] > USED_CHUNKS // 5
    assert result["sent"] < 0.85 * whole["sent"]
    assert disk_is_restored(laptop)


def test_a_rotating_disk_is_read_and_written_in_turns(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    restore(laptop)
    spoil(laptop, 2, 4, 6, 8, 10, 12)
    done: list[str] = []

    def spied(name: str, original: Spy) -> Spy:
        def spy(self: RawDisk, offset: int, view: memoryview) -> None:
            if len(view) > 512 and done[-1:] != [name]:
                done.append(name)
            original(self, offset, view)

        return spy

    for name in ("read_into", "write_from"):
        monkeypatch.setattr(RawDisk, name, spied(name, getattr(RawDisk, name)))
    result, _ends = restore(laptop, rotating=True)
    assert result["verified"] is True
    assert done == ["read_into", "write_from", "read_into"]


def test_old_data_in_unused_space(laptop: SimpleNamespace) -> None:
    """What becomes of it: "leave" leaves it, "zero" makes it zeros, which is then part of what is equal."""
    old = laptop.disk.read_bytes()[26 * CHUNK : 29 * CHUNK]
    restore(laptop, unused="leave")
    assert laptop.disk.read_bytes()[26 * CHUNK : 29 * CHUNK] == old
    compared, _ends = restore(laptop, unused="zero", write=False)
    assert (compared["changed"], compared["verified"]) == (True, False)
    zeroed, _ends = restore(laptop, unused="zero")
    assert (zeroed["changed"], zeroed["verified"]) == (True, True)
    found = laptop.disk.read_bytes()
    unused = bytearray(found)
    for start, end in USED.ranges:
        unused[start:end] = bytes(end - start)
    assert not any(unused)
    assert disk_is_restored(laptop)
    again, _ends = restore(laptop, unused="zero")
    assert (again["changed"], again["bytes_written"]) == (False, 0)


def test_what_is_discarded_is_only_what_is_unused(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.fleet.imaging.plugins.module_utils.engine import goal

    monkeypatch.setattr(goal, "WORTH_DISCARDING", CHUNK)
    result, _ends = restore(laptop, unused="discard")
    assert result["verified"] is True
    assert disk_is_restored(laptop)
    if result["bytes_discarded"]:  # not every file system punches holes
        assert not any(laptop.disk.read_bytes()[26 * CHUNK : 29 * CHUNK])


def test_signatures_at_the_end_of_a_larger_disk_are_cleared(laptop: SimpleNamespace) -> None:
    with open(laptop.disk, "ab") as disk:
        disk.write(b"\xfc\x4e\x2b\xa9" * (3 << 18))
    first, _ends = restore(laptop)
    assert (first["changed"], first["verified"]) == (True, True)
    found = laptop.disk.read_bytes()
    assert not any(found[-(1 << 20) :])
    assert any(found[SIZE : -(1 << 20)]) or first["bytes_discarded"]
    again, _ends = restore(laptop)
    assert (again["changed"], again["verified"]) == (False, True)
    with open(laptop.disk, "r+b") as disk:
        disk.seek(-4096, os.SEEK_END)
        disk.write(b"signature")
    compared, _ends = restore(laptop, write=False)
    assert (compared["changed"], compared["differing_chunks"]) == (True, 1)
    mended, _ends = restore(laptop)
    assert (mended["changed"], mended["verified"], mended["written_chunks"]) == (True, True, GUARD_CHUNKS)


def test_a_comparison_says_where_the_differences_lie(laptop: SimpleNamespace) -> None:
    restore(laptop)
    spoil(laptop, 5, 6, 20)
    image = laptop.store.open("image")
    assert image.header.source.get("partitions") is None
    result, _ends = restore(laptop, write=False)
    assert (result["changed"], result["verified"], result["differing_chunks"]) == (True, False, 3)
    assert [(place["start"], place["end"]) for place in result["changes"]] == [
        (5 * CHUNK, 7 * CHUNK),
        (20 * CHUNK, 21 * CHUNK),
    ]
    assert f"3 of {USED_CHUNKS} chunks ({3 * CHUNK} used bytes) differ" in result["diff"]["before"]
    assert f"bytes {20 * CHUNK} to {21 * CHUNK} (in no partition)" in result["diff"]["before"]


def test_what_can_not_be_read_of_a_target_is_written_anew(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(laptop)
    read, written = RawDisk.read_into, RawDisk.write_from
    bad = {9 * CHUNK}

    def failing(self: RawDisk, offset: int, view: memoryview) -> None:
        if offset in bad:
            raise ReadError("a pending sector")
        read(self, offset, view)

    def mending(self: RawDisk, offset: int, view: memoryview) -> None:
        bad.discard(offset)
        written(self, offset, view)

    monkeypatch.setattr(RawDisk, "read_into", failing)
    monkeypatch.setattr(RawDisk, "write_from", mending)
    result, _ends = restore(laptop)
    assert (result["changed"], result["verified"], result["written_chunks"]) == (True, True, 1 + GUARD_CHUNKS)


def test_an_image_of_an_unchanged_disk_is_not_touched(laptop: SimpleNamespace) -> None:
    first, _ends = capture(laptop)
    path = laptop.store.image_path("captured")
    before = os.stat(path)
    second, _ends = capture(laptop)
    assert (second["changed"], second["kept"]) == (False, USED_CHUNKS)
    assert second["sent"] < 0.01 * first["sent"]
    after = os.stat(path)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert sorted(os.listdir(laptop.store.path)) == ["captured.img.zst", "image.img.zst"]


@pytest.mark.parametrize("copying", [True, False])
def test_an_update_takes_over_what_did_not_change(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, copying: bool
) -> None:
    """Also without copy_file_range, as on macOS."""
    if not copying:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    first, _ends = capture(laptop)
    old = open(laptop.store.image_path("captured"), "rb").read()
    spoil(laptop, 11, 22)
    commit = StagedFile.commit

    def watched(self: StagedFile, replaced: os.stat_result | None) -> None:
        with open(self.path, "rb") as file:
            assert file.read() == old  # whole until the new one is
        commit(self, replaced)

    monkeypatch.setattr(StagedFile, "commit", watched)
    result, _ends = capture(laptop)
    assert (result["changed"], result["kept"]) == (True, USED_CHUNKS - 2)
    assert result["sent"] < 0.15 * first["sent"]
    monkeypatch.undo()
    updated = laptop.store.open("captured")
    verify_image(updated)
    other = laptop.store.image_path("other")
    assert make_image(other, laptop.disk.read_bytes(), USED)[0] == updated.root_digest
    assert sorted(os.listdir(laptop.store.path)) == ["captured.img.zst", "image.img.zst", "other.img.zst"]


def test_an_update_notices_used_ranges_that_changed_alone(laptop: SimpleNamespace) -> None:
    capture(laptop)
    with open(laptop.disk, "r+b") as disk:
        disk.seek(30 * CHUNK + 4096)
        disk.write(bytes(4096))
    more = Used((0, 25 * CHUNK), (30 * CHUNK, 30 * CHUNK + 8192), (39 * CHUNK, SIZE))
    result, _ends = capture(laptop, used=more)
    assert (result["changed"], result["kept"]) == (True, USED_CHUNKS)
    fewer = Used((0, 25 * CHUNK), (39 * CHUNK, SIZE))
    result, _ends = capture(laptop, used=fewer)
    assert (result["changed"], result["kept"]) == (True, USED_CHUNKS - 1)
    image = laptop.store.open("captured")
    verify_image(image)
    assert image.root_digest.hex() == result["root_digest"]


def test_what_is_damaged_in_the_old_image_is_sent_again(laptop: SimpleNamespace) -> None:
    capture(laptop)
    path = laptop.store.image_path("captured")
    row = laptop.store.open("captured").index.find(14)
    with open(path, "r+b") as file:
        file.seek(row.frame_offset + 50)
        file.write(b"damage")
    spoil(laptop, 20)
    result, ends = capture(laptop)
    assert ends.links == 2
    assert result["changed"] is True
    image = laptop.store.open("captured")
    verify_image(image)
    assert image.root_digest.hex() == result["root_digest"]


def test_an_image_of_another_disk_is_no_help(laptop: SimpleNamespace) -> None:
    capture(laptop)
    with open(laptop.disk, "ab") as disk:
        disk.write(bytes(CHUNK))
    result, _ends = capture(laptop)
    assert (result["changed"], result["kept"]) == (True, 0)
    verify_image(laptop.store.open("captured"))


def test_a_capture_that_broke_off_is_taken_up_again(laptop: SimpleNamespace) -> None:
    whole, _ends = capture(laptop)
    os.unlink(laptop.store.image_path("captured"))
    partial = laptop.store.image_path("captured") + ".partial"
    capture_once_and_die(laptop, whole["sent"] // 2)
    size = os.path.getsize(partial)
    assert size > 0.3 * whole["sent"]
    # One that breaks off even earlier loses nothing of it.
    capture_once_and_die(laptop, 20_000)
    assert os.path.getsize(partial) >= size
    # What is damaged in it is not believed, nor what follows.
    with open(partial, "r+b") as file:
        file.seek(size - 100_000)
        file.write(b"damage")
    result, _ends = capture(laptop)
    assert 0 < result["kept"] < USED_CHUNKS
    # How much was in it when it broke off is a matter of time; all of it but for the damage and the record around it counts.
    assert result["sent"] < whole["sent"] - (size - 100_000) + 3 * CHUNK // 2
    image = laptop.store.open("captured")
    verify_image(image)
    assert image.root_digest.hex() == whole["root_digest"]
    assert sorted(os.listdir(laptop.store.path)) == ["captured.img.zst", "image.img.zst"]


def capture_once_and_die(laptop: SimpleNamespace, where: int) -> None:
    """Have a capture end after so many bytes of frames, because the controller gives up then."""
    from ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink import CaptureSink

    original = CaptureSink._unpack

    def unpack(self: CaptureSink, payload: bytes) -> Any:
        if self._received >= where:
            raise ImagingError("enough")
        return original(self, payload)

    CaptureSink._unpack = unpack  # type: ignore[method-assign]
    try:
        with pytest.raises(ImagingError, match="enough"):
            capture(laptop)
    finally:
        CaptureSink._unpack = original  # type: ignore[method-assign]


def failing_sectors(monkeypatch: pytest.MonkeyPatch, *bad: tuple[int, int]) -> None:
    read = RawDisk.read_into

    def failing(self: RawDisk, offset: int, view: memoryview) -> None:
        if any(start < offset + len(view) and offset < end for start, end in bad):
            raise ReadError("Input/output error")
        read(self, offset, view)

    monkeypatch.setattr(RawDisk, "read_into", failing)


def test_bad_sectors_end_a_capture_and_are_named(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_sectors(monkeypatch, (3 * CHUNK + 8192, 3 * CHUNK + 8704))
    result, _ends = capture(laptop)
    assert result["codes"] == [UNREADABLE_SECTORS]
    where = f"bytes {3 * CHUNK + 8192} to {3 * CHUNK + 12288} (partition 1 ntfs Windows)"
    assert where in result["msg"] and "imaging_bad_sectors: zero" in result["msg"]


def test_bad_sectors_can_count_as_zeros_and_are_in_the_header(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last one lies in a gap between used ranges, and does not matter.
    failing_sectors(
        monkeypatch,
        (3 * CHUNK + 8192, 3 * CHUNK + 8704),
        (3 * CHUNK + 12288, 3 * CHUNK + 12800),
        (20 * CHUNK, 20 * CHUNK + 512),
        (30 * CHUNK + 40960, 30 * CHUNK + 41000),
    )
    result, _ends = capture(laptop, zero_bad=True)
    expected = [
        {"start": 3 * CHUNK + 8192, "end": 3 * CHUNK + 16384, "partition": "partition 1 ntfs Windows"},
        {"start": 20 * CHUNK, "end": 20 * CHUNK + 4096, "partition": "in no partition"},
    ]
    assert result["bad_ranges"] == expected
    image = laptop.store.open("captured")
    assert image.header.bad_ranges == expected
    verify_image(image)
    room = memoryview(bytearray(CHUNK))
    row = image.index.find(3)
    check_record(image, image.record(row), find_zstd().codec(), room)
    content = bytearray(laptop.disk.read_bytes()[3 * CHUNK : 4 * CHUNK])
    content[8192:16384] = bytes(8192)
    find_zstd().codec().decompress_into(image.record(row).frame, room)
    assert room == content


def test_a_disk_of_which_more_is_used_than_was_said_is_captured_anew_and_little_is_sent_twice(
    laptop: SimpleNamespace,
) -> None:
    asked = 0

    def doubt(disk: SimpleNamespace) -> bool:
        """In the middle of the transfer, and again once all was sent."""
        nonlocal asked
        asked += 1
        if asked not in (10, 40):
            return False
        more = (26 * CHUNK, 27 * CHUNK) if asked == 10 else (28 * CHUNK, 29 * CHUNK)
        disk.used.ranges = Used(*sorted([*disk.used.ranges.ranges, more]))
        return True

    result, ends = capture(laptop, doubt=doubt)
    assert not result.get("failed"), result
    assert ends.links == 1
    image = laptop.store.open("captured")
    assert [row.chunk for row in image.index] == [*range(25), 26, 28, 30, 39]
    verify_image(image)
    assert result["kept"] > 20
    assert sorted(os.listdir(laptop.store.path)) == ["captured.img.zst", "image.img.zst"]


def test_a_laptop_that_keeps_taking_back_what_it_said_is_given_up(laptop: SimpleNamespace) -> None:
    with pytest.raises(ImagingError, match="changed the description of its disk more than 256 times"):
        capture(laptop, doubt=lambda disk: True)
    assert "captured.img.zst" not in os.listdir(laptop.store.path)
