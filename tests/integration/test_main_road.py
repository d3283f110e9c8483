# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Capture one laptop's disk, make others equal to it, look after the images: what a user does, in the order of doing it."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import indexed_zstd
import pytest
import pyzstd

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import unpack_ranges
from ansible_collections.fleet.imaging.tests.integration.faults import tickets
from ansible_collections.fleet.imaging.tests.integration.labs import running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    BIN,
    CAPTURE_ONE,
    LOCAL_TEMP,
    RESTORE_ONE,
    ROOT,
    YES,
    Outcome,
    ansible_environment,
    playbook,
    stored,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan

NAME = "lab-image"


@pytest.fixture(scope="module", name="lab")
def fixture_lab(aged_plan: Plan) -> Iterator[Lab]:
    with running_lab(aged_plan) as lab:
        yield lab


@pytest.fixture(scope="module", name="shelf")
def fixture_shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store", numbered=True) / "images"


@pytest.fixture(scope="module", name="captured")
def fixture_captured(lab: Lab, shelf: Path) -> Outcome:
    return playbook(lab, "capture", "-l", "reference", "-e", f"imaging_store={shelf}", "-e", f"imaging_image={NAME}")


@pytest.fixture(scope="module", name="restored")
def fixture_restored(lab: Lab, shelf: Path, captured: Outcome) -> Outcome:
    assert captured.status == 0, captured.stdout
    return playbook(lab, "restore", "-l", "lab_laptops", "-e", f"imaging_store={shelf}", *YES, "-vvv")


def result_of(outcome: Outcome, action: str, host: str | None = None) -> dict[str, Any]:
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    (found,) = outcome.of(action, host)
    return found.result


def leftovers(lab: Lab) -> list[str]:
    """What a run left on its laptops: processes and files of Ansible and of ours."""
    found = []
    for laptop in lab.laptops:
        # async_wrapper itself looks after its module every few seconds, then removes its folder, and only then ends.
        wait = (
            'for i in $(seq 80); do left=$(ls -A "$1" "$2" | grep -v ":$"; ps -eo args | grep [A]nsiballZ | grep -F "$3"); '
            '[ -z "$left" ] && break; sleep 0.1; done; echo "$left"'
        )
        folders = [str(laptop.folder / name) for name in ("ansible", "async")]
        listing = laptop.run(["sh", "-c", wait, "sh", *folders, str(laptop.folder)]).stdout
        found += [f"{laptop.name}: {line}" for line in listing.splitlines() if line]
        runs = laptop.run(["sh", "-c", "cat /run/fleet.imaging/*.run 2>/dev/null || true"]).stdout
        found += [f"{laptop.name}: {line}" for line in runs.splitlines() if str(laptop.disk) in line]
    return found


def used_ranges(path: Path) -> Iterator[tuple[int, int]]:
    """The used ranges of an image's disk, in bytes of the disk."""
    reader = ImageReader(FileSource(str(path)))
    for row in reader.index:
        offset, length = reader.header.geometry.offset(row.chunk), reader.header.geometry.length(row.chunk)
        for start, end in unpack_ranges(row.ranges, length):
            yield offset + start, offset + end


def test_capture_leaves_a_whole_image_and_nothing_else(lab: Lab, shelf: Path, captured: Outcome) -> None:
    result = result_of(captured, "image_capture")
    assert stored(shelf) == [f"{NAME}.img.zst"]
    assert os.stat(shelf).st_mode & 0o777 == 0o700
    assert result["changed"] is True
    assert result["disk_size"] == lab.reference.size
    assert result["stored_bytes"] == os.path.getsize(shelf / f"{NAME}.img.zst")
    assert result["used_bytes"] < lab.reference.size * 0.6 or not lab.reference.isolated
    assert abs(result["sent_bytes"] - result["stored_bytes"]) < 0.02 * result["stored_bytes"]
    assert result["ratio"] == pytest.approx(result["used_bytes"] / result["stored_bytes"], abs=0.01)
    assert result["throughput"] == pytest.approx(result["used_bytes"] / result["seconds"], rel=0.01)
    assert len(bytes.fromhex(result["root_digest"])) == 32
    assert {"read", "hash", "compress", "send", "controller receive", "controller store"} <= set(result["stages"])
    assert all(set(times) == {"busy", "wait", "cpu"} for times in result["stages"].values())
    assert leftovers(lab) == []


def test_only_what_is_used_was_read(lab: Lab, captured: Outcome) -> None:
    if not lab.reference.isolated:
        pytest.skip("without loop devices partclone can't map the partitions of a disk")
    result = result_of(captured, "image_capture")
    assert [(part["content"], part["method"]) for part in result["partitions"]] == [
        ("vfat", "partclone"),
        ("ntfs", "partclone"),
        ("ext4", "partclone"),
        ("swap", "swap header"),
    ]
    assert result["bytes_read"] < 1.35 * result["used_bytes"]


def test_plain_zstd_gives_every_used_byte(lab: Lab, shelf: Path, captured: Outcome, tmp_path: Path) -> None:
    assert captured.status == 0, captured.stdout
    image = shelf / f"{NAME}.img.zst"
    subprocess.run(["zstd", "-q", "-t", image], check=True)
    with open(tmp_path / "disk", "wb") as file:
        subprocess.run(["zstd", "-q", "-dc", image], stdout=file, check=True)
    assert os.path.getsize(tmp_path / "disk") == lab.reference.size
    with open(tmp_path / "disk", "rb") as plain, open(lab.reference.disk, "rb") as disk:
        for start, end in used_ranges(image):
            plain.seek(start)
            disk.seek(start)
            assert plain.read(end - start) == disk.read(end - start), start
    os.unlink(tmp_path / "disk")


@pytest.mark.parametrize("library", ["indexed-zstd", "pyzstd"])
def test_independent_readers_of_the_seekable_format_find_every_frame(
    shelf: Path, captured: Outcome, library: str
) -> None:
    assert captured.status == 0, captured.stdout
    image = shelf / f"{NAME}.img.zst"
    reader = ImageReader(FileSource(str(image)))
    geometry = reader.header.geometry
    opened: Any = (
        indexed_zstd.IndexedZstdFile(str(image)) if library == "indexed-zstd" else pyzstd.SeekableZstdFile(str(image))
    )
    with open(image, "rb") as file:
        seen = 0
        for chunk in reversed(range(geometry.chunk_count)):
            opened.seek(geometry.offset(chunk))
            content = opened.read(geometry.length(chunk))
            row = reader.index.find(chunk)
            if row is None:
                assert content == bytes(geometry.length(chunk))
                continue
            file.seek(row.frame_offset)
            assert content == pyzstd.decompress(file.read(row.frame_size))
            seen += 1
    assert seen == len(reader.index)


def test_restore_makes_all_laptops_equal_and_reads_them_back(
    lab: Lab, shelf: Path, captured: Outcome, restored: Outcome
) -> None:
    digest = result_of(captured, "image_capture")["root_digest"]
    for laptop in lab.targets:
        result = result_of(restored, "image_restore", laptop.name)
        assert (result["changed"], result["verified"], result["differing_chunks"]) == (True, True, 0)
        assert result["root_digest"] == digest
        assert result["past_cache"] is True
        assert {"receive", "decompress", "hash", "write", "flush", "read"} <= set(result["stages"])
    assert leftovers(lab) == []
    disks = [f"{laptop.name}={laptop.disk}" for laptop in lab.laptops]
    subprocess.run([sys.executable, ROOT / "tests/tools/compare_disks.py", *disks], check=True)


def test_no_key_is_shown_or_left(lab: Lab, restored: Outcome) -> None:
    """The most that Ansible says shows that a ticket travelled, and nothing of what is in it."""
    said = restored.stdout + restored.stderr
    assert re.search(r"PUT \S+ TO \S+/ticket", said), "it would show what is handed over"
    assert "PRIVATE KEY" not in said and "CERTIFICATE" not in said
    for folder in (*(laptop.folder for laptop in lab.laptops), LOCAL_TEMP):
        assert list(tickets(folder)) == []


def test_what_was_restored_captures_to_the_same_digest(
    lab: Lab, shelf: Path, captured: Outcome, restored: Outcome
) -> None:
    if not lab.reference.isolated:
        pytest.skip("without used maps, old data in free space is part of the content")
    again = playbook(
        lab,
        CAPTURE_ONE,
        "-l",
        lab.targets[0].name,
        "-e",
        f"imaging_store={shelf}",
        "-e",
        "imaging_image=again",
    )
    assert result_of(again, "image_capture")["root_digest"] == result_of(captured, "image_capture")["root_digest"]


def test_verify_finds_a_flipped_bit_ignores_free_space_and_says_that_forks_are_few(
    lab: Lab, shelf: Path, restored: Outcome
) -> None:
    assert restored.status == 0
    where = ("-e", f"imaging_store={shelf}", "-e", f"imaging_image={NAME}")
    target, other = lab.targets
    ranges = list(used_ranges(shelf / f"{NAME}.img.zst"))
    gaps = [(before[1], after[0]) for before, after in itertools.pairwise(ranges) if before[1] < after[0]]
    with open(target.disk, "r+b") as disk:
        for start, end in gaps[:: max(1, len(gaps) // 50)]:
            disk.seek(start)
            disk.write(os.urandom(min(end - start, 4096)))
        os.fsync(disk.fileno())
    # One laptop after the other, which is said.
    compared = playbook(lab, "verify", "-f", "1", *where)
    assert compared.status == 0, compared.stdout
    assert "There are 2 laptops and only 1 forks" in " ".join(compared.stdout.split())
    position = ranges[len(ranges) // 2][0]
    with open(target.disk, "r+b") as disk:
        disk.seek(position)
        byte = disk.read(1)[0]
        disk.seek(position)
        disk.write(bytes([byte ^ 1]))
        os.fsync(disk.fileno())
    outcome = playbook(lab, "verify", *where)
    assert outcome.status != 0
    assert list(outcome.failures()) == [target.name]
    assert "1 of" in outcome.failures()[target.name]
    assert result_like(outcome, target.name)["differing_chunks"] == 1
    assert result_like(outcome, other.name)["verified"] is True
    # Restoring mends it.
    assert playbook(lab, RESTORE_ONE, "-l", target.name, *where).status == 0
    assert playbook(lab, "verify", "-l", target.name, *where).status == 0


def result_like(outcome: Outcome, host: str) -> dict[str, Any]:
    (found,) = outcome.of("image_restore", host)
    return found.result


def test_check_mode_writes_nothing(lab: Lab, shelf: Path, restored: Outcome) -> None:
    assert restored.status == 0
    before = stored(shelf)
    where = ("-e", f"imaging_store={shelf}")
    outcome = playbook(lab, "capture", "--check", "-l", "reference", *where, "-e", "imaging_image=never")
    assert result_of(outcome, "image_capture")["used_bytes"] > 0
    assert stored(shelf) == before
    with open(lab.targets[0].disk, "r+b") as disk:
        disk.seek(512)
        disk.write(b"\0" * 8)
    outcome = playbook(lab, "restore", "--check", "--diff", *where, "-e", f"imaging_image={NAME}")
    assert outcome.status == 0, outcome.stdout
    changed = {laptop.name: result_like(outcome, laptop.name)["changed"] for laptop in lab.targets}
    assert changed == {lab.targets[0].name: True, lab.targets[1].name: False}
    assert "1 of" in outcome.stdout
    with open(lab.targets[0].disk, "rb") as disk:
        disk.seek(512)
        assert disk.read(8) == b"\0" * 8


def test_images_are_listed_checked_and_removed(lab: Lab, shelf: Path, captured: Outcome) -> None:
    assert captured.status == 0
    shutil.copy(shelf / f"{NAME}.img.zst", shelf / "second.img.zst")
    where = ("-e", f"imaging_store={shelf}")
    listing = playbook(lab, "images", *where)
    assert listing.status == 0, listing.stdout
    for word in (NAME, "second", "reference-01", "256.0 MiB"):
        assert word in listing.stdout
    anew = (*where, "-e", "imaging_image=second", "-e", "imaging_recompress=9", "-e", "imaging_verify_images=true")
    for changed in (True, False):
        (done,) = playbook(lab, "images", *anew).of("image_recompress")
        assert (done.status, done.result["changed"]) == ("ok", changed)
    first, second = (ImageReader(FileSource(str(shelf / f"{name}.img.zst"))) for name in (NAME, "second"))
    assert (first.root_digest, second.header.compression_level) == (second.root_digest, 9)
    refused = playbook(lab, "images", *where, "-e", '{"imaging_remove_images": ["second"]}')
    assert refused.status != 0
    assert "imaging_confirm_erase" in refused.stdout
    unknown = playbook(lab, "images", *where, "-e", '{"imaging_remove_images": ["second", "third"]}', *YES)
    assert unknown.status != 0
    assert (shelf / "second.img.zst").exists()
    assert playbook(lab, "images", *where, "-e", '{"imaging_remove_images": ["second"]}', *YES).status == 0
    assert not (shelf / "second.img.zst").exists()
    with open(shelf / "broken.img.zst", "wb") as broken, open(shelf / f"{NAME}.img.zst", "rb") as whole:
        content = bytearray(whole.read())
        row = ImageReader(FileSource(str(shelf / f"{NAME}.img.zst"))).index.row_at(3)
        content[row.frame_offset + row.frame_size // 2] ^= 4
        broken.write(content)
    damaged = playbook(lab, "images", *where, "-e", "imaging_verify_images=true")
    os.unlink(shelf / "broken.img.zst")
    assert damaged.status != 0
    assert "broken" in str(damaged.failures())


def test_the_installed_collection_works_from_anywhere(lab: Lab, captured: Outcome, tmp_path: Path) -> None:
    assert captured.status == 0
    environment = ansible_environment()
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    source = tmp_path / "source"
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    galaxy = BIN / "ansible-galaxy"
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(tmp_path / "there")
    subprocess.run([galaxy, "collection", "build", "--output-path", tmp_path], cwd=source, env=environment, check=True)
    (package,) = tmp_path.glob("fleet-imaging-*.tar.gz")
    subprocess.run([galaxy, "collection", "install", package, "-p", tmp_path / "there"], env=environment, check=True)
    variables = ["-e", f"imaging_store={tmp_path / 'images'}", "-e", "imaging_image=x", *YES]
    for name, limit in (("capture", "reference"), ("restore", lab.targets[0].name), ("images", "")):
        command: list[str | Path] = [
            BIN / "ansible-playbook",
            f"fleet.imaging.{name}",
            "-i",
            lab.inventory,
            "-l",
            limit,
            *variables,
        ]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert os.listdir(tmp_path / "images") == ["x.img.zst"]
