# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk's content is a state: running again changes nothing, and what has drifted costs as much as has drifted."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.tests.integration.faults import looks_bootable
from ansible_collections.fleet.imaging.tests.integration.labs import DISK_SIZE, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    RESTORE_ONE,
    YES,
    Outcome,
    playbook,
    stored,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop
from ansible_collections.fleet.imaging.tests.lab.network import PREFIX_LENGTH
from ansible_collections.fleet.imaging.tests.lab.ntfs import NtfsVolume
from ansible_collections.fleet.imaging.tests.lab.tools import run
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.range_server import serving

SECTOR = 512


@pytest.fixture(scope="module", name="lab")
def fixture_lab(aged_plan: Plan) -> Iterator[Lab]:
    with running_lab(aged_plan) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of the aged reference, which both laptops hold."""
    shelf = tmp_path_factory.mktemp("store")
    outcome = playbook(lab, CAPTURE_ONE, "-l", "reference", *where(shelf / "aged.img.zst"))
    assert outcome.status == 0, outcome.stdout
    outcome = playbook(lab, RESTORE_ONE, "-l", "lab_laptops", *where(shelf / "aged.img.zst"))
    assert outcome.status == 0, outcome.stdout
    return shelf / "aged.img.zst"


def where(image: Path) -> tuple[str, ...]:
    return ("-e", f"imaging_store={image.parent}", "-e", f"imaging_image={image.name.partition('.')[0]}")


def the_result(outcome: Outcome, action: str, host: str | None = None) -> dict[str, Any]:
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    (found,) = outcome.of(action, host)
    return found.result


def written_sectors(laptop: Laptop) -> int:
    """How many sectors were written to the laptop's disk, and discarded, since it is there (the kernel's block/stat.rst)."""
    if not laptop.isolated:
        return 0
    fields = Path("/sys/block", Path(laptop.disk).name, "stat").read_text().split()
    return int(fields[6]) + int(fields[13])


def content(laptop: Laptop) -> bytes:
    return Path(laptop.backing_file).read_bytes()


def partition(laptop: Laptop, number: int) -> tuple[int, int]:
    """Start and size of a partition, in bytes."""
    listed = run("sfdisk", "--quiet", "--list", "-o", "start,sectors", laptop.backing_file).splitlines()
    start, sectors = listed[number].split()
    return int(start) * SECTOR, int(sectors) * SECTOR


def edit_partition(laptop: Laptop, number: int, folder: Path, edit: Any) -> None:
    """Change a file system on a laptop's disk, by a copy of its partition."""
    start, size = partition(laptop, number)
    copy = folder / "partition"
    with open(laptop.disk, "rb") as disk, open(copy, "wb") as file:
        disk.seek(start)
        shutil.copyfileobj(disk, file, 1 << 20)
        file.truncate(size)
    edit(copy)
    with open(laptop.disk, "r+b") as disk, open(copy, "rb") as file:
        disk.seek(start)
        shutil.copyfileobj(file, disk, 1 << 20)
        disk.flush()
        os.fsync(disk.fileno())
    copy.unlink()


def test_a_second_restore_changes_nothing_and_writes_not_one_byte(lab: Lab, image: Path) -> None:
    before = [(written_sectors(laptop), content(laptop)) for laptop in lab.targets]
    outcome = playbook(lab, "restore", *where(image), *YES)
    for laptop in lab.targets:
        result = the_result(outcome, "image_restore", laptop.name)
        assert (result["changed"], result["verified"], result["bytes_written"]) == (False, True, 0)
        assert result["equal_chunks"] == result["used_chunks"]
        assert result["sent_bytes"] < 0.001 * result["used_bytes"]
    assert "equal already" in outcome.stdout
    assert [(written_sectors(laptop), content(laptop)) for laptop in lab.targets] == before


def test_an_aged_disk_does_not_differ_from_its_own_image(lab: Lab, image: Path) -> None:
    outcome = playbook(lab, RESTORE_ONE, "--check", "-l", "reference", *where(image))
    result = the_result(outcome, "image_restore")
    assert (result["changed"], result["verified"], result["differing_chunks"]) == (False, True, 0)


def test_files_that_came_and_went_differ_in_metadata_alone(lab: Lab, image: Path, tmp_path: Path) -> None:
    """On NTFS and ext4 a file of 24 MB is created and deleted again; of its data nothing is sent."""
    laptop = lab.targets[0]
    big = tmp_path / "big"
    big.write_bytes(os.urandom(24_000_000))

    def on_ntfs(copy: Path) -> None:
        with NtfsVolume(copy) as volume:
            volume.write("came and went", big.read_bytes())
            volume.remove("came and went")

    def on_ext4(copy: Path) -> None:
        subprocess.run(
            ["debugfs", "-w", "-f", "-", copy],
            input=f"write {big} big\nrm big\n",
            text=True,
            capture_output=True,
            check=True,
        )

    edit_partition(laptop, 2, tmp_path, on_ntfs)
    edit_partition(laptop, 3, tmp_path, on_ext4)
    compared = playbook(lab, RESTORE_ONE, "--check", "--diff", "-l", laptop.name, *where(image))
    result = the_result(compared, "image_restore")
    assert 0 < result["differing_chunks"] <= 10  # of files alone there were 12
    assert all("ntfs" in place["partition"] or "ext4" in place["partition"] for place in result["changes"])
    assert "(partition 2 ntfs Windows)" in compared.stdout
    restored = the_result(playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(image)), "image_restore")
    assert restored["verified"] is True
    assert restored["written_chunks"] <= result["differing_chunks"] + 2
    assert restored["sent_bytes"] < 12_000_000


def test_only_what_has_drifted_is_sent(lab: Lab, image: Path) -> None:
    laptop = lab.targets[0]
    rows = [row for row in ImageReader(FileSource(str(image))).index if row.flags == 1]
    spoilt = rows[5::50]
    with open(laptop.disk, "r+b") as disk:
        for row in spoilt:
            first = int.from_bytes(row.ranges[:2], "little") * SECTOR if row.ranges else 0
            disk.seek(row.chunk * (4 << 20) + first)
            disk.write(os.urandom(SECTOR))
        disk.flush()
        os.fsync(disk.fileno())
    outcome = playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(image))
    result = the_result(outcome, "image_restore")
    assert (result["changed"], result["verified"]) == (True, True)
    assert result["written_chunks"] <= len(spoilt) + 2
    assert result["sent_bytes"] < 1.1 * sum(row.frame_size for row in spoilt) + 200_000
    assert playbook(lab, "verify", *where(image)).status == 0


def test_a_rotating_disk_is_made_equal_too(lab: Lab, image: Path) -> None:
    laptop = lab.targets[1]
    if not laptop.isolated:
        pytest.skip("a file does not rotate")
    flag = Path("/sys/block", Path(laptop.disk).name, "queue/rotational")
    before = flag.read_text()
    flag.write_text("1")
    try:
        with open(laptop.disk, "r+b") as disk:
            disk.seek(150 << 20)
            disk.write(os.urandom(32 << 20))
            disk.flush()
            os.fsync(disk.fileno())
        result = the_result(playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(image)), "image_restore")
        assert (result["changed"], result["verified"]) == (True, True)
        assert 0 < result["written_chunks"] < 30
    finally:
        flag.write_text(before)


def test_unused_space_is_discarded_left_or_made_zeros(lab: Lab, image: Path) -> None:
    laptop = lab.targets[1]
    index = ImageReader(FileSource(str(image))).index
    used = {row.chunk for row in index}
    gap = next(chunk for chunk in range(20, DISK_SIZE // (4 << 20)) if chunk not in used) * (4 << 20)

    def write(position: int, data: bytes) -> None:
        with open(laptop.disk, "r+b") as disk:
            disk.seek(position)
            disk.write(data)
            disk.flush()
            os.fsync(disk.fileno())

    def found() -> bytes:
        with open(laptop.disk, "rb") as disk:
            disk.seek(gap)
            return disk.read(1 << 20)

    secret = os.urandom(1 << 20)
    for unused in ("leave", "discard", "zero"):
        write(gap, secret)
        write(SECTOR, b"not a GPT")
        outcome = playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(image), "-e", f"imaging_unused={unused}")
        result = the_result(outcome, "image_restore")
        assert (result["changed"], result["verified"]) == (True, True)
        assert (found() == secret) == (unused == "leave")
        if unused == "discard" and laptop.isolated:
            assert result["bytes_discarded"] > 0
    # The playbooks hand it over.
    assert playbook(lab, "verify", "-l", laptop.name, *where(image), "-e", "imaging_unused=zero").status == 0
    before = written_sectors(laptop)
    again = playbook(lab, "restore", "-l", laptop.name, *where(image), *YES, "-e", "imaging_unused=zero")
    assert the_result(again, "image_restore")["changed"] is False
    assert written_sectors(laptop) == before


def with_another_uuid(image: Path, changed: Path, content: str) -> int:
    """Write an image whose header notes another UUID of the partition with this content; returns the partition's number."""
    reader = ImageReader(FileSource(str(image)))
    source = copy.deepcopy(dict(reader.header.source))
    (partition,) = [each for each in source["partitions"] if each["content"] == content]
    partition["seen"]["uuid"] = "00000000-0000-4000-8000-000000000001"
    staged = StagedFile(str(changed))
    writer = ImageWriter(staged, replace(reader.header, source=source), find_zstd().codec())
    for row in reader.index:
        record = reader.record(row)
        writer.append(record.header, record.frame)
    writer.finish({"used_bytes": reader.index.used_bytes()})
    staged.commit(None)
    return int(partition["number"])


def test_a_disk_on_which_a_system_sees_something_else_fails_and_does_not_boot(
    lab: Lab, image: Path, store: Path
) -> None:
    laptop = lab.targets[0]
    number = with_another_uuid(image, store / "other.img.zst", "ext4")
    before = f"partition {number}: expected TYPE=ext4 UUID=00000000-0000-4000-8000-000000000001"
    verified = playbook(lab, "verify", "-l", laptop.name, *where(store / "other.img.zst"))
    (compared,) = verified.of("image_restore")
    assert (compared.result["changed"], compared.result["verified"]) == (True, False)
    assert compared.result["differing_chunks"] == 0
    assert len(compared.result["seen_differences"]) == 1
    assert before in verified.failures()[laptop.name]
    assert looks_bootable(laptop.disk)
    outcome = playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(store / "other.img.zst"))
    text = outcome.failures()[laptop.name]
    assert before in text and "does not boot" in text and "imaging_unused: zero" in text
    assert looks_bootable(laptop.disk) == []
    result = the_result(playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(image)), "image_restore")
    assert (result["verified"], result["seen_differences"]) == (True, [])
    assert looks_bootable(laptop.disk)


def test_an_image_is_brought_up_to_date(lab: Lab, image: Path, store: Path) -> None:
    updated = store / "aged.img.zst"
    shutil.copy(image, updated)
    before = os.stat(updated)
    laptop = lab.targets[0]
    update = ("-l", laptop.name, *where(updated), "-e", "imaging_update=true")
    same = the_result(playbook(lab, CAPTURE_ONE, *update), "image_capture")
    after = os.stat(updated)
    if laptop.isolated:  # elsewhere without maps the free space of this disk is part of it, and differs
        assert (same["changed"], same["kept_chunks"]) == (False, same["used_chunks"])
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    rows = [row for row in ImageReader(FileSource(str(updated))).index if row.flags == 1 and not row.ranges]
    with open(laptop.disk, "r+b") as disk:
        for row in rows[::40]:
            disk.seek(row.chunk * (4 << 20) + 4096)
            disk.write(os.urandom(SECTOR))
        disk.flush()
        os.fsync(disk.fileno())
    changed = the_result(playbook(lab, CAPTURE_ONE, *update), "image_capture")
    spoilt = [ImageReader(FileSource(str(updated))).index.find(row.chunk) for row in rows[::40]]
    assert changed["changed"] is True
    assert changed["used_chunks"] - changed["kept_chunks"] == len(spoilt)
    assert changed["sent_bytes"] < 1.1 * sum(row.frame_size for row in spoilt if row) + 200_000
    assert stored(store) == ["aged.img.zst"]
    subprocess.run(["zstd", "-q", "-t", updated], check=True)
    checked = playbook(lab, "images", "-e", f"imaging_store={store}", "-e", "imaging_verify_images=true")
    assert checked.status == 0, checked.stdout
    compared = playbook(lab, RESTORE_ONE, "--check", "-l", laptop.name, *where(updated))
    assert the_result(compared, "image_restore")["verified"] is True
    assert playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(image)).status == 0


def test_a_restore_takes_its_chunks_from_a_mirror(lab: Lab, image: Path) -> None:
    laptop = lab.targets[0]
    address = str(ip_interface(f"{laptop.address}/{PREFIX_LENGTH}").network[1]) if laptop.isolated else "127.0.0.1"

    def slowly(offset: int, data: bytes) -> bytes:
        time.sleep(0.002)  # for 16 KiB
        return data

    with serving(str(image.parent), address) as mirror:
        mirror.spoil = slowly
        variables = ("-e", f"imaging_mirror={mirror.url}/", "-e", "imaging_rewrite=true")
        outcome = playbook(lab, "restore", "-l", laptop.name, *where(image), *YES, *variables)
    result = the_result(outcome, "image_restore", laptop.name)
    assert result["verified"] is True
    came = result["frame_bytes"]
    assert came["controller"] == 0 and came["mirror"] > result["stored_bytes"] / 2
    assert result["sent_bytes"] < result["stored_bytes"] / 10
    assert result["limited_by"]["limit"] == "mirror"
    assert re.search("[0-9] MiB from the mirror", outcome.stdout)
