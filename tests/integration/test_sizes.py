# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets of another size than the reference: larger ones, smaller ones, and those that are too small."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.disk_files import attached
from ansible_collections.fleet.imaging.tests.integration.labs import DISK_SIZE, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    RESTORE_ONE,
    YES,
    Outcome,
    playbook,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop

MIB = 1 << 20
SWAP = DISK_SIZE // 16
"""Bytes of the reference's last partition, which ends a MiB before the disk."""

LARGER = DISK_SIZE + 128 * MIB
SMALLER = DISK_SIZE - SWAP
TOO_SMALL = DISK_SIZE - 96 * MIB


def table_of(disk: Path) -> dict[str, str]:
    """Each partition of a disk, as sfdisk says."""
    dump = subprocess.run(["sfdisk", "--dump", disk], check=True, capture_output=True, text=True).stdout
    rows = (line.partition(" : ") for line in dump.splitlines() if " : " in line)
    return {node.replace(str(disk), ""): " ".join(said.split()) for node, _colon, said in rows}


@pytest.fixture(scope="module", name="reference")
def fixture_reference(plan: Plan) -> Iterator[Lab]:
    """A lab whose reference has nothing where the swap was, at the end of its disk, and whose laptop has a larger one."""
    with running_lab(plan, laptops=1, disk_size=LARGER) as lab:
        subprocess.run(["sgdisk", "-d", "4", lab.reference.backing_file], check=True, stdout=subprocess.DEVNULL)
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(reference: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of it, in a store of its own."""
    shelf = tmp_path_factory.mktemp("store")
    where = ("-l", "reference", "-e", f"imaging_store={shelf}", "-e", "imaging_image=short")
    outcome = playbook(reference, CAPTURE_ONE, *where)
    assert outcome.status == 0, outcome.stdout
    return shelf / "short.img.zst"


@pytest.fixture(scope="module", name="small")
def fixture_small(plan: Plan) -> Iterator[Lab]:
    with running_lab(plan, laptops=1, disk_size=SMALLER) as lab:
        yield lab


def restore(lab: Lab, image: Path, *more: str) -> Outcome:
    return playbook(lab, "restore", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=short", *YES, *more)


def restore_one(lab: Lab, image: Path, *more: str) -> Outcome:
    where = ("-l", "lab_laptops", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=short")
    return playbook(lab, RESTORE_ONE, *where, *more)


def check_disk(laptop: Laptop, reference: Laptop, size: int) -> None:
    """The partitions are the reference's, and the table is whole on a disk of this size."""
    disk = laptop.backing_file
    assert os.stat(disk).st_size == size
    said = subprocess.run(["sgdisk", "-v", disk], check=True, capture_output=True, text=True).stdout
    assert "No problems found" in said, said
    checked = subprocess.run(["sfdisk", "--verify", disk], check=True, capture_output=True, text=True)
    assert "No errors detected" in checked.stdout, checked.stdout
    assert table_of(disk) == table_of(reference.backing_file)
    with open(disk, "rb") as content:
        content.seek(size - 512)
        assert content.read(8) == b"EFI PART"
    with open(disk, "rb") as ours, open(reference.backing_file, "rb") as theirs:
        for partition in table_of(disk).values():
            fields = dict(field.strip().split("=") for field in partition.split(",") if "=" in field)
            start, length = int(fields["start"]) * 512, int(fields["size"]) * 512
            ours.seek(start)
            theirs.seek(start)
            assert ours.read(65536) == theirs.read(65536)
            assert length > 65536


@pytest.mark.parametrize("where", ["larger", "smaller"])
def test_a_disk_of_another_size_is_restored_once_and_equal_from_then_on(
    reference: Lab, small: Lab, image: Path, where: str
) -> None:
    lab, size = (reference, LARGER) if where == "larger" else (small, SMALLER)
    laptop = lab.targets[0]
    with open(laptop.backing_file, "r+b") as disk:
        disk.seek(size - MIB)
        disk.write(os.urandom(MIB))
    outcome = restore(lab, image)
    assert outcome.status == 0, outcome.stdout
    first = outcome.of("image_restore")[0].result
    assert (first["changed"], first["verified"], first["larger_by"]) == (True, True, size - DISK_SIZE)
    check_disk(laptop, reference.reference, size)
    second = restore_one(lab, image).of("image_restore")[0].result
    assert (second["changed"], second["verified"], second["bytes_written"]) == (False, True, 0)
    verified = playbook(lab, "verify", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=short")
    assert verified.status == 0, verified.stdout
    with open(laptop.backing_file, "r+b") as disk:
        disk.seek(size - 512 + 56)
        disk.write(b"another GUID")
    compared = restore_one(lab, image, "--check")
    assert compared.of("image_restore")[0].result["differing_chunks"] == 1
    mended = restore_one(lab, image).of("image_restore")[0].result
    assert (mended["changed"], mended["verified"]) == (True, True)
    check_disk(laptop, reference.reference, size)


def test_with_unused_space_as_zeros_a_larger_disk_ends_in_zeros_and_the_backup(reference: Lab, image: Path) -> None:
    laptop = reference.targets[0]
    with open(laptop.backing_file, "r+b") as disk:
        disk.seek(DISK_SIZE + 64 * MIB)
        disk.write(b"old data")
    outcome = restore_one(reference, image, "-e", "imaging_unused=zero")
    assert outcome.status == 0, outcome.stdout
    check_disk(laptop, reference.reference, LARGER)
    with open(laptop.backing_file, "rb") as disk:
        disk.seek(DISK_SIZE - SWAP)
        assert not any(disk.read(LARGER - (DISK_SIZE - SWAP) - 33 * 512))


def test_the_last_partition_grows_after_a_restore_and_is_undone_and_redone_by_the_next(
    reference: Lab, image: Path
) -> None:
    laptop = reference.targets[0]
    restore_one(reference, image)
    checked = restore(reference, image, "-e", "imaging_grow=last", "--check")
    assert not checked.of("partition_grow")
    for again in (False, True):
        outcome = restore(reference, image, "-e", "imaging_grow=last")
        assert outcome.status == 0, outcome.stdout
        (grown,) = outcome.of("partition_grow")
        assert (grown.result["changed"], grown.result["partition"], grown.result["content"]) == (True, 3, "ext4")
        (restored,) = outcome.of("image_restore")
        assert restored.result["changed"] is again
        rows = list(table_of(laptop.backing_file).values())
        fields = dict(field.strip().split("=") for field in rows[2].split(",") if "=" in field)
        start, length = int(fields["start"]) * 512, int(fields["size"]) * 512
        assert start + length == LARGER - MIB
        place = ["--offset", str(start), "--sizelimit", str(length)]
        with attached(laptop.backing_file, *place) as node:
            subprocess.run(["e2fsck", "-f", "-n", node], check=True, capture_output=True)
        # All but the length of the third is as it was on the reference.
        theirs = list(table_of(reference.reference.backing_file).values())
        assert rows[:2] == theirs[:2] and rows[2].partition("type=")[2] == theirs[2].partition("type=")[2]
    compared = playbook(reference, "verify", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=short")
    assert compared.status != 0


def test_a_disk_that_is_too_small_is_refused_with_the_partition_and_the_bytes(plan: Plan, image: Path) -> None:
    with running_lab(plan, laptops=1, disk_size=TOO_SMALL) as lab:
        before = lab.targets[0].backing_file.read_bytes()
        outcome = restore(lab, image)
        assert outcome.status != 0
        assert not outcome.of("image_restore")
        end = DISK_SIZE - SWAP - MIB  # where the swap of the reference was, a MiB before the end
        text = " ".join(outcome.failures()["lab-01"].split())
        assert f"{end + 33 * 512 - TOO_SMALL} bytes too few" in text, text
        assert "partition 3 (ext4" in text
        assert lab.targets[0].backing_file.read_bytes() == before


def test_a_disk_that_is_too_small_for_the_reference_is_refused_before_anything_is_asked(
    small: Lab, tmp_path: Path
) -> None:
    outcome = playbook(small, "clone", "-e", f"imaging_store={tmp_path}", *YES)
    assert "needs" in outcome.failures()["lab-01"] and "bytes too few" in outcome.failures()["lab-01"]
    assert not outcome.of("confirm") and not [each for each in outcome.of("image_share") if not each.check_mode]
