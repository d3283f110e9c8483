# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that takes its chunks from a mirror, with the controller behind it: both over real sockets, and the mirror is not to be trusted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.engine.restore import Restore
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import SKIPPABLE
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import MIRROR
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.range_server import Cut, RangeServer, serving
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK, Used, make_image, noise

from .halves import DISK, HANDSHAKE_SIZE, SIZE, TIMEOUT, USED, cut_at, disk_is_restored, first_only, restore

NAME = "image.img.zst"
MIDDLE = range(4 * CHUNK, 8 * CHUNK)
"""Offsets in the middle of the image's file, where frames lie."""


@pytest.fixture(name="mirror")
def fixture_mirror(laptop: SimpleNamespace) -> Iterator[RangeServer]:
    with serving(laptop.store.path) as server:
        yield server


def at(mirror: RangeServer) -> dict[str, HttpLocation]:
    return {MIRROR: HttpLocation(url=f"{mirror.url}/{NAME}")}


def all_frames(laptop: SimpleNamespace) -> int:
    """How many bytes of frames a blank disk needs."""
    return sum(row.frame_size for row in laptop.store.open("image").index)


def restored(laptop: SimpleNamespace, mirror: RangeServer, **options: Any) -> Any:
    """Restore with the mirror; returns the bytes that came from the mirror and the controller, and the result."""
    result, ends = restore(laptop, servers=at(mirror), **options)
    assert not result.get("failed"), result
    assert result["verified"] and disk_is_restored(laptop)
    came = result["frame_bytes"]
    return came["mirror"], came["controller"], SimpleNamespace(ends=ends, **result)


def separate(laptop: SimpleNamespace, mirror: RangeServer) -> str:
    """Have the mirror serve a copy of its own; returns its path."""
    mirror.folder = os.path.join(laptop.store.path, "mirrored")
    os.mkdir(mirror.folder)
    path = os.path.join(mirror.folder, NAME)
    with open(laptop.store.image_path("image"), "rb") as image, open(path, "wb") as copy:
        copy.write(image.read())
    return path


@pytest.mark.parametrize("rotating", [False, True])
def test_everything_comes_from_the_mirror_in_few_requests_over_one_connection(
    laptop: SimpleNamespace, mirror: RangeServer, rotating: bool
) -> None:
    from_mirror, from_controller, found = restored(laptop, mirror, rotating=rotating)
    assert (from_mirror, from_controller) == (all_frames(laptop), 0)
    assert found.warnings == []
    assert found.sent < 0.01 * from_mirror + 20_000
    assert mirror.connections == 1
    data = [(start, end) for start, end in mirror.ranges if end - start > CHUNK]
    # The samples of the delta scan may be requested before it knows that it wants all chunks.
    assert len(data) in (1, 2), data


def test_a_comparison_asks_the_mirror_for_nothing(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    restored(laptop, mirror)
    mirror.ranges.clear()
    result, _ends = restore(laptop, servers=at(mirror), write=False)
    assert result["verified"] and not mirror.ranges


def hang_up(handler: Any) -> bool:
    handler.close_connection = True
    return True


def test_a_mirror_that_dies_is_left_for_the_controller(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    def spoil(offset: int, data: bytes) -> bytes:
        if offset in MIDDLE:
            mirror.answer = hang_up
            raise Cut
        return data

    mirror.spoil = spoil
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert from_mirror > 0 and from_controller > 0
    assert from_mirror + from_controller == all_frames(laptop)
    assert found.ends.links == 1
    assert len(found.warnings) == 1 and "The controller sent what was still missing" in found.warnings[0]


def test_a_connection_that_breaks_once_is_made_again(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    pending = [True]

    def spoil(offset: int, data: bytes) -> bytes:
        if pending and offset in MIDDLE:
            pending.clear()
            raise Cut
        return data

    mirror.spoil = spoil
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert (from_mirror, from_controller, found.warnings) == (all_frames(laptop), 0, [])


@pytest.mark.parametrize("most", [3, 20], ids=["often", "sometimes"])
def test_a_mirror_that_cuts_at_random_places_makes_no_disk_wrong(
    laptop: SimpleNamespace, mirror: RangeServer, most: int
) -> None:
    chance, cuts = random.Random(most), []
    left = [chance.randint(1, most)]

    def spoil(offset: int, data: bytes) -> bytes:
        left[0] -= 1
        if not left[0]:
            left[0] = chance.randint(1, most)
            cuts.append(offset)
            raise Cut
        return data

    mirror.spoil = spoil
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert len(cuts) > 1 and from_mirror + from_controller == all_frames(laptop)
    # It is left when it cuts the same record twice.
    assert len(found.warnings) == bool(from_controller)


def no_ranges(handler: Any) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "5")
    handler.end_headers()
    handler.wfile.write(b"image")
    return True


def redirect(target: str) -> Callable[[Any], bool]:
    def answer(handler: Any) -> bool:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return answer


def other_range(handler: Any) -> bool:
    handler.send_response(206)
    handler.send_header("Content-Range", "bytes 5-6/1000")
    handler.send_header("Content-Length", "1")
    handler.end_headers()
    handler.wfile.write(b"i")
    return True


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (no_ranges, "does not serve ranges"),
        (lambda handler: handler.send_error(404) or True, "404"),
        (lambda handler: handler.send_error(503) or True, "503"),
        (redirect(f"/{NAME}"), "redirects more than"),
        (redirect("file:///etc/passwd"), "file:///etc/passwd"),
        (redirect("http://[::1/"), "can't be read"),
        (redirect("/a b?X-Amz-Signature=hidden"), "redirects to '/a b': expected an address"),
        (other_range, "something else"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n" * 9) > 0, "connection broke"),
    ],
    ids=[
        "no ranges",
        "missing",
        "busy",
        "redirected for ever",
        "a file",
        "no address",
        "no URL",
        "another range",
        "no HTTP",
    ],
)
def test_a_mirror_of_no_use_is_left_for_the_controller(
    laptop: SimpleNamespace, mirror: RangeServer, answer: Callable[[Any], bool], why: str
) -> None:
    mirror.answer = answer
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert (from_mirror, from_controller) == (0, all_frames(laptop))
    assert len(found.warnings) == 1 and why in found.warnings[0] and "hidden" not in found.warnings[0]


def test_a_mirror_that_nobody_runs_is_left_for_the_controller(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    mirror.shutdown()
    mirror.server_close()
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert (from_mirror, from_controller) == (0, all_frames(laptop))
    assert "Connection refused" in found.warnings[0]


def test_a_redirect_is_followed_once_and_remembered(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    with serving(laptop.store.path) as other:
        other.answer = redirect(f"{mirror.url}/{NAME}")
        from_mirror, from_controller, _found = restored(laptop, other)
    assert (from_mirror, from_controller) == (all_frames(laptop), 0)
    assert other.connections == 1


def test_of_an_older_image_what_did_not_change_is_taken(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    path = separate(laptop, mirror)
    older = bytearray(DISK)
    older[3 * CHUNK : 6 * CHUNK] = noise(3 * CHUNK, 77)
    os.unlink(path)
    make_image(path, bytes(older), USED)
    from_mirror, from_controller, found = restored(laptop, mirror)
    index = laptop.store.open("image").index
    changed = sum(index.find(chunk).frame_size for chunk in (3, 4, 5))
    assert from_controller == changed and from_mirror > 10 * changed / 3
    assert "is not the image that is restored" in found.warnings[0]


def test_an_image_of_another_disk_is_not_read(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    path = separate(laptop, mirror)
    os.unlink(path)
    make_image(path, DISK + bytes(CHUNK), Used((0, SIZE)))
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert (from_mirror, from_controller) == (0, all_frames(laptop))
    assert str(SIZE + CHUNK) in found.warnings[0]


def damage(path: str, *chunks: int) -> None:
    """Change a byte of these chunks' frames."""
    index = ImageReader(FileSource(path)).index
    with open(path, "r+b") as file:
        for chunk in chunks:
            row = index.find(chunk)
            assert row is not None
            file.seek(row.frame_offset + 40)
            file.write(b"damage")


@pytest.mark.parametrize(("chunks", "given_up"), [((7,), False), ((0, 39), False), ((2, 5, 8, 11), True)])
def test_damaged_frames_come_from_the_controller_and_too_many_end_the_mirrors_part(
    laptop: SimpleNamespace, mirror: RangeServer, chunks: tuple[int, ...], given_up: bool
) -> None:
    damage(separate(laptop, mirror), *chunks)
    _from_mirror, from_controller, found = restored(laptop, mirror)
    damaged = sum(laptop.store.open("image").index.find(chunk).frame_size for chunk in chunks)
    assert found.ends.links == 1
    if given_up:
        assert from_controller > damaged and "3 records that can't be used" in found.warnings[0]
    else:
        assert from_controller == damaged and found.warnings == []


def test_a_frame_that_lies_about_its_content_is_not_written(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    """Its header and its frame agree, and it decodes to something else than the index of the controller says."""
    path = separate(laptop, mirror)
    reader = ImageReader(FileSource(path))
    row = reader.index.find(9)
    assert row is not None
    record = reader.record(row)
    for seed in range(200):
        frame = find_zstd().codec().compress(memoryview(noise(CHUNK, 1000 + seed)), 3)
        if len(frame) <= row.frame_size - SKIPPABLE.size:
            break
    padding = row.frame_size - len(frame)
    frame = bytes(frame) + SKIPPABLE.pack(0x184D2A50, padding - SKIPPABLE.size) + bytes(padding - SKIPPABLE.size)
    lie = replace(record.header, frame_hash=hashlib.sha256(frame).digest())
    with open(path, "r+b") as file:
        file.seek(row.record_offset + SKIPPABLE.size)
        file.write(lie.pack() + frame)
    _from_mirror, from_controller, found = restored(laptop, mirror)
    assert from_controller == row.frame_size and found.warnings == []


def test_a_file_that_is_replaced_in_mid_transfer_is_left_for_the_controller(
    laptop: SimpleNamespace, mirror: RangeServer
) -> None:
    path = separate(laptop, mirror)

    def spoil(offset: int, data: bytes) -> bytes:
        if offset in MIDDLE:
            with open(path, "ab") as file:
                file.write(b"more")
            raise Cut
        return data

    mirror.spoil = spoil
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert from_mirror > 0 and from_controller > 0 and "changed while it was read" in found.warnings[0]


def test_a_link_that_breaks_meanwhile_costs_nothing(
    laptop: SimpleNamespace, mirror: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(offset: int, data: bytes) -> bytes:
        time.sleep(0.02)
        return data

    mirror.spoil = slowly
    # The link is cut by the first report of progress, which comes when writing has begun.
    from_mirror, from_controller, found = restored(
        laptop, mirror, to_controller=first_only(cut_at(HANDSHAKE_SIZE + 400))
    )
    assert found.ends.links == 2
    assert (from_mirror, from_controller) == (all_frames(laptop), 0)
    assert sum(end - start for start, end in mirror.ranges) < 1.5 * os.path.getsize(laptop.store.image_path("image"))


def test_the_controllers_end_is_heard_while_the_mirror_sends(laptop: SimpleNamespace, mirror: RangeServer) -> None:
    def slowly(offset: int, data: bytes) -> bytes:
        if offset > 4 * CHUNK:
            time.sleep(0.1)
        return data

    class Stop(BaseException):
        pass

    def conversation(link: Link) -> None:
        def heard(_report: bytes) -> None:
            link.end("the run was interrupted on the controller")

        with contextlib.suppress(Exception):
            serve(link, StoredSource(laptop.store.open("image")), heard)
        raise Stop

    mirror.spoil = slowly
    began = time.monotonic()
    with pytest.raises(Stop):
        restore(laptop, servers=at(mirror), conversation=conversation)
    assert time.monotonic() - began < 2 * TIMEOUT


def test_a_disk_error_is_not_held_up_by_a_mirror_that_stalls(
    laptop: SimpleNamespace, mirror: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stall(offset: int, data: bytes) -> bytes:
        if offset in MIDDLE:
            time.sleep(3 * TIMEOUT)
        return data

    def fail(*_arguments: object) -> None:
        raise ImagingError("the disk is gone")

    mirror.spoil = stall
    monkeypatch.setattr(Restore, "_write_chunk", fail)
    began = time.monotonic()
    result, ends = restore(laptop, servers=at(mirror))
    assert (result["msg"], ends.links) == ("the disk is gone", 1)
    assert time.monotonic() - began < TIMEOUT


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_partition_table_that_is_moved_comes_from_the_mirror_too(
    laptop: SimpleNamespace, mirror: RangeServer, spoiled: bool
) -> None:
    if spoiled:
        damage(separate(laptop, mirror), 0, 39)
    with laptop.disk.open("ab") as file:
        file.write(bytes(CHUNK))
    from_mirror, from_controller, found = restored(laptop, mirror)
    assert from_mirror > 0 and (from_controller > 0) == spoiled and found.warnings == []
