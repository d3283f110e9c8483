# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and file systems that fail during a transfer, and disks that were left half-written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.tests.integration.faults import (
    SHORT,
    assert_finished,
    assert_holds,
    assert_nothing_remains,
    boot_live_medium_again,
    looks_bootable,
    make_foreign,
    result_of,
    wait_for_share,
    where,
    written,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    RESTORE_ONE,
    playbook,
    start_playbook,
    stored,
)
from ansible_collections.fleet.imaging.tests.lab.disks import make_used_disk
from ansible_collections.fleet.imaging.tests.lab.faulty_disk import FaultyDisk, faulty_disk
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan

pytestmark = pytest.mark.skipif(not isolated(), reason="the faults need namespaces and loop devices, and so root")

CHUNK = 4 << 20


@pytest.fixture(scope="module", name="lab")
def fixture_lab(survival_plan: Plan) -> Iterator[Lab]:
    with running_lab(survival_plan) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("store") / "survivor.img.zst"
    outcome = playbook(lab, CAPTURE_ONE, "-l", "reference", *where(image))
    assert outcome.status == 0, outcome.stdout
    return image


@pytest.fixture(name="source")
def fixture_source(lab: Lab, tmp_path: Path) -> Iterator[FaultyDisk]:
    """A disk with the reference's content."""
    copy = tmp_path / "source.img"
    subprocess.run(["cp", "--sparse=always", lab.reference.backing_file, copy], check=True)
    with faulty_disk(copy, tmp_path / "source") as disk:
        yield disk


@pytest.fixture(name="target")
def fixture_target(lab: Lab, tmp_path: Path) -> Iterator[FaultyDisk]:
    """A disk with old data."""
    make_used_disk(tmp_path / "target.img", lab.reference.size)
    with faulty_disk(tmp_path / "target.img", tmp_path / "target") as disk:
        yield disk


def wholly_used_chunk(image: Path, which: float) -> int:
    """A chunk of which every byte is used, somewhere in an image."""
    rows = [row for row in ImageReader(FileSource(str(image))).index if row.flags == 1 and not row.ranges]
    return rows[int(len(rows) * which)].chunk


def test_the_stores_file_system_is_full_half_way(lab: Lab, image: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    # Less is refused before anything is stored.
    half = image.stat().st_size * 3 // 4
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={half}", "tmpfs", small], check=True)
    try:
        arguments = ("-l", "reference", *where(small / "new.img.zst"))
        outcome = playbook(lab, CAPTURE_ONE, *arguments)
        text = outcome.failures()[lab.reference.name]
        assert "No space left on device" in text and "new.img.zst.partial" in text and "imaging_store" in text
        assert stored(small) == ["new.img.zst.partial"]
        assert_nothing_remains(lab)
        subprocess.run(["mount", "-o", f"remount,size={5 * half}", small], check=True)
        outcome = playbook(lab, CAPTURE_ONE, *arguments)
        assert outcome.status == 0, outcome.stdout
        result = result_of(outcome, lab.reference.name, "image_capture")
        assert result["kept_chunks"] > 0.3 * result["used_chunks"]
        assert result["sent_bytes"] < 1.4 * half
        assert stored(small) == ["new.img.zst"]
        assert_holds(small / "new.img.zst", Path(lab.reference.disk))
    finally:
        subprocess.run(["umount", small], check=True)


def test_bad_sectors_of_the_reference(lab: Lab, image: Path, source: FaultyDisk, store: Path) -> None:
    """By default they end the capture and are named; with "zero" they are zeros, and named in the result and in the image."""
    chunk = wholly_used_chunk(image, 0.5) * CHUNK
    bad = [(chunk + 40960, chunk + 41472), (chunk + 1048576, chunk + 1060000)]
    lost = [(chunk + 40960, chunk + 45056), (chunk + 1048576, chunk + 1060864)]
    source.fail(read=bad)
    disk = ("-l", "reference", "-e", f"imaging_disk={source.device}")
    outcome = playbook(lab, CAPTURE_ONE, *disk, *where(store / "bad.img.zst"))
    text = outcome.failures()[lab.reference.name]
    assert f"bytes {lost[0][0]} to {lost[0][1]} (partition " in text
    assert f"bytes {lost[1][0]} to {lost[1][1]} (partition " in text
    assert "imaging_bad_sectors: zero" in text
    assert_nothing_remains(lab)
    outcome = playbook(lab, CAPTURE_ONE, *disk, *where(store / "bad.img.zst"), "-e", "imaging_bad_sectors=zero")
    assert outcome.status == 0, outcome.stdout
    assert "are zeros in the image" in outcome.stdout + outcome.stderr
    result = result_of(outcome, lab.reference.name, "image_capture")
    assert [(place["start"], place["end"]) for place in result["bad_ranges"]] == lost
    assert all("partition" in place["partition"] for place in result["bad_ranges"])
    assert result["kept_chunks"] > 0  # of the capture that ended
    reader = ImageReader(FileSource(str(store / "bad.img.zst")))
    assert list(reader.header.bad_ranges) == result["bad_ranges"]
    plain = subprocess.run(["zstd", "-q", "-dc", store / "bad.img.zst"], capture_output=True, check=True).stdout
    expected = bytearray(Path(lab.reference.disk).read_bytes()[chunk : chunk + CHUNK])
    for start, end in lost:
        expected[start - chunk : end - chunk] = bytes(end - start)
    assert plain[chunk : chunk + CHUNK] == expected
    listing = playbook(lab, "images", "-e", f"imaging_store={store}", "-e", "imaging_verify_images=true")
    assert listing.status == 0 and "could not be read" in listing.stdout
    assert_nothing_remains(lab)


def test_write_errors_of_the_target(lab: Lab, image: Path, target: FaultyDisk) -> None:
    chunk = wholly_used_chunk(image, 0.6) * CHUNK
    target.fail(write=[(chunk + 8192, chunk + 12288)])
    arguments = ("-l", "lab-01", *where(image), "-e", f"imaging_disk={target.device}")
    outcome = playbook(lab, RESTORE_ONE, *arguments)
    text = outcome.failures()["lab-01"]
    assert target.device in text and "Input/output error" in text and "does not boot" in text
    assert outcome.of("image_restore")[0].result["disk_state"] == "incomplete"
    assert "These disks do not boot now: lab-01." in outcome.stdout
    assert looks_bootable(target.device) == []
    assert_nothing_remains(lab)
    target.fail()
    outcome = playbook(lab, RESTORE_ONE, *arguments)
    result = result_of(outcome, "lab-01")
    assert result["verified"] is True
    assert result["equal_chunks"] > 0.4 * result["used_chunks"]
    assert_holds(image, target.backing_file)


def test_the_target_vanishes(lab: Lab, image: Path, target: FaultyDisk) -> None:
    arguments = ("-l", "lab-01", *where(image), "-e", f"imaging_disk={target.device}")
    before = written(target.device)
    running = start_playbook(lab, RESTORE_ONE, *arguments)
    wait_for_share(target.device, image, 0.5, before, running)
    target.fail(gone=True)
    outcome = running.wait()
    text = outcome.failures()["lab-01"]
    assert target.device in text and "does not boot" in text
    assert_nothing_remains(lab)
    target.fail()
    assert looks_bootable(target.device) == []
    outcome = playbook(lab, RESTORE_ONE, *arguments)
    result = result_of(outcome, "lab-01")
    assert result["verified"] is True
    assert result["equal_chunks"] > 0.3 * result["used_chunks"]
    assert_holds(image, target.backing_file)


@pytest.mark.parametrize("shares", [(0.1, 0.99), (0.5, 0.9)])
def test_started_from_their_disks_after_a_cut(lab: Lab, image: Path, shares: tuple[float, float]) -> None:
    """They do not start: two laptops lost their power before the end, and what makes a disk bootable is written last."""
    before = []
    for laptop in lab.targets:
        make_foreign(laptop)
        before.append(written(laptop.disk))
    laptops = ("-l", "lab_laptops", *where(image))
    running = start_playbook(lab, RESTORE_ONE, *laptops, environment=SHORT)
    for laptop, share, least in zip(lab.targets, shares, before, strict=True):
        wait_for_share(laptop.disk, image, share, least, running)
        laptop.power_off()
    for laptop, share in zip(lab.targets, shares, strict=True):
        if share > 0.9 and looks_bootable(laptop.disk):
            # From here to the last byte it is less than 50 ms: the cut came after that. Then nothing may be missing.
            assert_holds(image, Path(laptop.disk))
        else:
            assert looks_bootable(laptop.disk) == []
    assert sorted(running.wait().failures()) == [laptop.name for laptop in lab.targets]
    for laptop in lab.targets:
        boot_live_medium_again(laptop)
    assert_nothing_remains(lab)
    outcome = playbook(lab, RESTORE_ONE, *laptops)
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    for laptop, share in zip(lab.targets, shares, strict=True):
        assert_finished(outcome, image, laptop, max(0.0, share - 0.2))
        assert len(looks_bootable(laptop.disk)) >= 4
