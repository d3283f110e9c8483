# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checking every record of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import BadImage, FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image

from ..module_utils.samples import CHUNK, Used, make_image, noise

CHUNKS = 40


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of used, unused and zero chunks."""
    disk = noise(10 * CHUNK) + bytes(5 * CHUNK) + noise(25 * CHUNK, 2)
    path = tmp_path / "lab.img.zst"
    make_image(str(path), disk, Used((0, 20 * CHUNK), (30 * CHUNK + 512, 31 * CHUNK)))
    return path


def open_image(path: Path) -> ImageReader:
    """Open an image file."""
    return ImageReader(FileSource(str(path)))


def test_an_undamaged_image_passes(image: Path) -> None:
    verify_image(open_image(image))


@pytest.mark.parametrize("chunk", [0, 12, 25, 30, CHUNKS - 1], ids=["first", "zero", "unused", "partly used", "last"])
def test_a_flipped_bit_in_a_frame_is_found_and_its_chunk_named(image: Path, chunk: int) -> None:
    frames = [record.frame for record in open_image(image).all_records()]
    content = bytearray(image.read_bytes())
    # Frames of unused chunks are all alike: look for this one behind those before it.
    position = 0
    for frame in frames[: chunk + 1]:
        position = content.index(frame, position) + len(frame)
    content[position - 1] ^= 1
    image.write_bytes(content)
    with pytest.raises(BadImage, match=rf"chunk {chunk}\b"):
        verify_image(open_image(image))


def test_a_record_header_that_contradicts_the_index_is_found(image: Path) -> None:
    content = bytearray(image.read_bytes())
    first = next(iter(open_image(image).index))
    content[first.record_offset + 8] ^= 1
    image.write_bytes(content)
    with pytest.raises(BadImage, match="chunk"):
        verify_image(open_image(image))
