# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image as a whole: written, read with plain tools, and damaged in every way."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import tracemalloc
from typing import Callable

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils import zstd
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Index, max_index_size
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import (
    BadImage,
    FileSource,
    ImageReader,
    check_record,
)
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import (
    HEADER_MAGIC,
    INDEX_MAGIC,
    SEEK_TABLE_MAGIC,
    SKIPPABLE,
)
from ansible_collections.fleet.imaging.plugins.module_utils.image.seek_table import FOOTER, FOOTER_MAGIC, SeekTable
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter

from ..samples import CHUNK, STREAM, Used, geometry, make_image, noise

SIZE = 9 * CHUNK + 512
DISK = bytearray(noise(SIZE))
DISK[2 * CHUNK : 3 * CHUNK] = bytes(CHUNK)
USED = Used(
    (0, CHUNK), (CHUNK + 512, CHUNK + 4096), (CHUNK + 8192, 3 * CHUNK), (6 * CHUNK, 6 * CHUNK + 512), (SIZE - 512, SIZE)
)


@pytest.fixture(name="image")
def fixture_image(tmp_path: object) -> str:
    path = os.path.join(str(tmp_path), "a.img.zst")
    make_image(path, bytes(DISK), USED)
    return path


def read_everything(path: str) -> None:
    """What restoring and verifying an image together look at."""
    source = FileSource(path)
    try:
        reader = ImageReader(source)
        codec = zstd.find_zstd().codec()
        room = memoryview(bytearray(CHUNK))
        for record in reader.all_records():
            check_record(reader, record, codec, room)
        for row in reader.index:
            check_record(reader, reader.record(row), codec, room)
    finally:
        source.close()


def test_plain_zstd_gives_the_whole_disk(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "a.img.zst")
    _root, masked = make_image(path, bytes(DISK), USED)
    subprocess.run(["zstd", "-q", "-t", path], check=True)
    assert subprocess.run(["zstd", "-dc", path], stdout=subprocess.PIPE, check=True).stdout == masked


@pytest.mark.parametrize(("start", "size"), [(0, SIZE + 512), (SIZE, 512), (3 * SIZE, (1 << 66) - 1)])
def test_a_table_may_name_partitions_beyond_the_disk(start: int, size: int) -> None:
    partitions = [{"number": 1, "start": start, "size": size, "content": "", "label": ""}]
    header = ImageHeader(geometry(SIZE), STREAM, "", None, {"partitions": partitions})
    assert ImageHeader.unpack(header.pack()).source["partitions"] == partitions


@pytest.mark.parametrize("size", [-1, 1 << 66, True, 1.5, "512"])
def test_a_size_that_no_table_can_name_is_refused(size: object) -> None:
    header = ImageHeader(geometry(SIZE), STREAM, "", None, {"partitions": [{"number": 1, "start": 0, "size": size}]})
    with pytest.raises(
        ImagingError, match=r"header gives .* as size: expected a whole number from 0 to 73786976294838206463"
    ):
        ImageHeader.unpack(header.pack())


def test_reader_finds_what_was_written(image: str) -> None:
    read_everything(image)
    reader = ImageReader(FileSource(image))
    assert [row.chunk for row in reader.index] == [0, 1, 2, 6, 9]
    assert [row.flags for row in reader.index] == [1, 1, 3, 1, 1]
    assert reader.index.used_bytes() == sum(end - start for start, end in USED.ranges)
    assert reader.index.find(3) is None
    assert [row.chunk for row in reader.index.rows_between(1, 7)] == [1, 2, 6]


def test_root_digest_says_what_is_on_the_disk_and_not_how_it_is_stored(tmp_path: object) -> None:
    changed = bytearray(DISK)
    changed[CHUNK] ^= 1  # unused
    roots = [
        make_image(os.path.join(str(tmp_path), f"{n}.img.zst"), bytes(disk), USED)[0]
        for n, disk in enumerate((DISK, changed))
    ]
    assert roots[0] == roots[1]
    changed[CHUNK + 512] ^= 1
    assert make_image(os.path.join(str(tmp_path), "c.img.zst"), bytes(changed), USED)[0] != roots[0]
    assert make_image(os.path.join(str(tmp_path), "d.img.zst"), bytes(DISK), Used((0, SIZE)))[0] != roots[0]


def test_cut_short_anywhere_is_refused(image: str) -> None:
    size = os.path.getsize(image)
    with open(image, "rb") as file:
        content = file.read()
    for length in [0, 1, 8, 9, 100, size // 2, size - 9, size - 1]:
        with open(image, "wb") as file:
            file.write(content[:length])
        with pytest.raises(BadImage):
            read_everything(image)


def test_every_flipped_bit_is_found(image: str) -> None:
    with open(image, "rb") as file:
        content = bytearray(file.read())
    generator = random.Random(7)
    head = list(range(40)) + list(range(len(content) - 300, len(content)))
    for position in head + [generator.randrange(len(content)) for dummy in range(300)]:
        bit = 1 << generator.randrange(8)
        content[position] ^= bit
        with open(image, "wb") as file:
            file.write(content)
        with pytest.raises(ImagingError):
            read_everything(image)
        content[position] ^= bit


def test_appended_garbage_is_refused(image: str) -> None:
    with open(image, "ab") as file:
        file.write(b"\0" * 100)
    with pytest.raises(BadImage, match="seek table"):
        read_everything(image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(b'"version": 1', b'"version": 9'), "format version 9"),
        (lambda text: text.replace(b'"format": "fleet.imaging"', b'"format": "other.imaging"'), "not that of"),
        (lambda text: text.replace(b'"size": 590336', b'"size": 590337'), "590337"),
        (lambda text: text.replace(b'"size": 590336', b'"size": 990208'), "seek table"),
        (lambda text: text.replace(b'"chunk_size": 65536', b'"chunk_size": 65530'), "chunk size"),
        (lambda text: text.replace(b'"stream": "73', b'"stream": "74'), "belongs to the index"),
        (lambda text: text[:40] + b"}" + text[41:], "header"),
    ],
)
def test_a_header_that_says_something_else_is_refused(
    image: str, change: Callable[[bytes], bytes], message: str
) -> None:
    with open(image, "rb") as file:
        content = file.read()
    changed = change(content)
    assert changed != content
    with open(image, "wb") as file:
        file.write(changed)
    with pytest.raises(BadImage, match=message):
        read_everything(image)


def test_absurd_lengths_take_no_memory(image: str) -> None:
    with open(image, "r+b") as file:
        file.write(SKIPPABLE.pack(0x184D2A5B, 0xFFFFFFF0))
    with pytest.raises(BadImage):
        read_everything(image)
    with open(image, "r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(struct.pack("<IBI", (1 << 27) - 1, 0, 0x8F92EAB1))
    with pytest.raises(BadImage, match="can't be"):
        read_everything(image)


def test_a_second_writer_of_the_same_name_is_refused_and_leaves_the_first_alone(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "a.img.zst")
    first = StagedFile(path)
    with pytest.raises(ImagingError, match="another capture of this name is running"):
        StagedFile(path)
    ImageWriter(first, ImageHeader(geometry(SIZE), STREAM, "now"), zstd.find_zstd().codec()).finish({})
    first.commit(None)
    assert os.listdir(str(tmp_path)) == ["a.img.zst"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    read_everything(path)


def test_what_a_killed_writer_left_is_taken_over(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "a.img.zst")
    with open(path + ".partial", "wb") as file:
        file.write(b"half an image" * 1000)
    make_image(path, bytes(DISK), USED)
    read_everything(path)
    assert os.listdir(str(tmp_path)) == ["a.img.zst"]


def test_nobody_takes_over_a_file_that_is_about_to_get_its_name(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.path.join(str(tmp_path), "a.img.zst")
    link = os.link
    refused: list[ImagingError] = []

    def meanwhile(source: str, target: str) -> None:
        with pytest.raises(ImagingError) as caught:
            StagedFile(path)
        refused.append(caught.value)
        link(source, target)

    monkeypatch.setattr(os, "link", meanwhile)
    make_image(path, bytes(DISK), USED)
    assert len(refused) == 1
    read_everything(path)


def test_an_image_never_replaces_another(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "a.img.zst")
    staged = StagedFile(path)
    writer = ImageWriter(staged, ImageHeader(geometry(SIZE), STREAM, "now"), zstd.find_zstd().codec())
    make_there = b"somebody else's"
    with open(path, "wb") as file:
        file.write(make_there)
    writer.finish({})
    with pytest.raises(ImagingError, match="was created or changed"):
        staged.commit(None)
    staged.remove()
    with open(path, "rb") as file:
        assert file.read() == make_there
    assert os.listdir(str(tmp_path)) == ["a.img.zst"]


def test_without_hard_links_the_image_still_gets_its_name(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(_source: str, _target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = os.path.join(str(tmp_path), "a.img.zst")
    make_image(path, bytes(DISK), USED)
    read_everything(path)
    assert os.listdir(str(tmp_path)) == ["a.img.zst"]


@pytest.mark.parametrize("rows", [2, 24, 1 << 24, (1 << 27) - 1])
def test_a_file_that_only_says_that_it_is_large_takes_no_memory(tmp_path: object, rows: int) -> None:
    path = os.path.join(str(tmp_path), "sparse.img.zst")
    with open(path, "wb") as file:
        header = ImageHeader(geometry(SIZE), STREAM, "now").pack()
        file.write(SKIPPABLE.pack(HEADER_MAGIC, len(header)) + header)
        file.truncate(6 << 30)
        file.seek((6 << 30) - SeekTable.size_of(rows))
        stored = [SKIPPABLE.size + len(header), *[1] * 21, *[(3 << 30) - 1, (3 << 30) - 1]]
        table = SKIPPABLE.pack(SEEK_TABLE_MAGIC, SeekTable.size_of(rows) - SKIPPABLE.size)
        file.write(table + (b"".join(struct.pack("<II", size, 0) for size in stored) if rows == 24 else b""))
        file.seek((6 << 30) - FOOTER.size)
        file.write(FOOTER.pack(rows, 0, FOOTER_MAGIC))
    tracemalloc.start()
    try:
        with pytest.raises(BadImage):
            ImageReader(FileSource(path))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_of_a_stranger_only_an_image_like_the_wanted_one_is_read(tmp_path: object, image: str) -> None:
    wanted = ImageReader(FileSource(image)).index
    assert ImageReader(FileSource(image), like=wanted).root_digest == wanted.root_digest()
    other = os.path.join(str(tmp_path), "other.img.zst")
    make_image(other, bytes(DISK) + bytes(CHUNK), USED)
    with pytest.raises(BadImage, match="another disk"):
        ImageReader(FileSource(other), like=wanted)


def test_of_a_stranger_no_index_is_read_that_is_much_larger_than_the_wanted_one(tmp_path: object) -> None:
    path, measures = os.path.join(str(tmp_path), "stranger.img.zst"), geometry(16384 * CHUNK)
    index_size = 5 << 20
    assert index_size < max_index_size(measures)
    header = ImageHeader(measures, STREAM, "now").pack()
    start = SKIPPABLE.pack(HEADER_MAGIC, len(header)) + header
    entries = [(len(start), 0), *[(1, 0), (1, CHUNK)] * measures.chunk_count, (index_size, 0)]
    table = b"".join(struct.pack("<II", *each) for each in entries)
    with open(path, "wb") as file:
        file.write(start)
        file.seek(2 * measures.chunk_count, os.SEEK_CUR)
        file.write(SKIPPABLE.pack(INDEX_MAGIC, index_size - SKIPPABLE.size))
        file.seek(index_size - SKIPPABLE.size, os.SEEK_CUR)
        file.write(SKIPPABLE.pack(SEEK_TABLE_MAGIC, len(table) + FOOTER.size) + table)
        file.write(FOOTER.pack(len(entries), 0, FOOTER_MAGIC))
    with pytest.raises(ImagingError, match="index"):
        ImageReader(FileSource(path))
    tracemalloc.start()
    try:
        with pytest.raises(BadImage, match=f"has the impossible size of {index_size} bytes"):
            ImageReader(FileSource(path), like=Index(measures))
        assert tracemalloc.get_traced_memory()[1] < index_size
    finally:
        tracemalloc.stop()


def test_an_image_that_changes_while_it_is_read_is_noticed(image: str) -> None:
    source = FileSource(image)
    reader = ImageReader(source)
    row = reader.index.row_at(0)
    with open(image, "r+b") as file:
        file.seek(row.frame_offset + 20)
        file.write(b"changed")
    with pytest.raises(BadImage, match="damaged"):
        reader.check_frame(reader.record(row))
    os.truncate(image, row.frame_offset + 10)
    with pytest.raises(BadImage, match="became shorter"):
        reader.record(row)
    source.close()


def test_an_image_that_is_replaced_while_it_is_read_stays_what_it_was(image: str) -> None:
    source = FileSource(image)
    reader = ImageReader(source)
    os.rename(image, image + ".old")
    make_image(image, noise(SIZE, 9), USED)
    for row in reader.index:
        reader.check_frame(reader.record(row))
    source.close()
