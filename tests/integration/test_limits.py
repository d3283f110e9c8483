# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each thing that can limit a transfer is made the limit, and the result must name it; and the time that was told must be kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.tests.integration.faults import make_foreign, where
from ansible_collections.fleet.imaging.tests.integration.labs import DISK_SIZE, isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import CAPTURE_ONE, RESTORE_ONE, YES, playbook
from ansible_collections.fleet.imaging.tests.lab.disks import attach_loop_device, make_used_disk
from ansible_collections.fleet.imaging.tests.lab.faulty_disk import faulty_disk
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop
from ansible_collections.fleet.imaging.tests.lab.network import Network
from ansible_collections.fleet.imaging.tests.lab.processes import marked_processes

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not isolated(), reason="limits are made with links, loop devices and processors, and need root"),
]

MB = 1_000_000
UNLIMITED = 100_000
"""Mbit/s that no link here reaches."""


@pytest.fixture(scope="module", name="lab")
def fixture_lab(plan: Plan) -> Iterator[Lab]:
    with running_lab(plan, laptops=1, udev_seconds=0) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that is not small, so that a slow link takes its time."""
    image = tmp_path_factory.mktemp("store") / "limited.img.zst"
    run(lab, "image_capture", "capture", *where(image), "-e", "imaging_compression_level=1", laptop=lab.reference)
    return image


def run(lab: Lab, action: str, name: str | Path, *arguments: str, laptop: Laptop) -> dict[str, Any]:
    """The result of one transfer of one laptop."""
    outcome = playbook(lab, name, "-l", laptop.name, *arguments)
    assert outcome.status == 0, outcome.stdout
    (result,) = [result.result for result in outcome.of(action, laptop.name)]
    return result


def capture(lab: Lab, store: Path, *arguments: str) -> dict[str, Any]:
    return run(lab, "image_capture", CAPTURE_ONE, *where(store / "one.img.zst"), *arguments, laptop=lab.reference)


def restore(lab: Lab, image: Path, *arguments: str) -> dict[str, Any]:
    make_foreign(lab.targets[0])
    return run(lab, "image_restore", RESTORE_ONE, *where(image), *YES, *arguments, laptop=lab.targets[0])


def streaming(result: dict[str, Any]) -> tuple[str, str]:
    """What limited it while data was sent, and the advice. A restore's read-back has a limit of its own."""
    verdict = result["limited_by"]
    assert 0 < verdict["share"] <= 1
    found = re.match(r"(.*) (\d+)% busy: \w", verdict["advice"])
    assert found and found[1] == verdict["limit"] and abs(int(found[2]) / 100 - verdict["share"]) < 0.01, verdict
    return verdict["limit"], verdict["advice"]


@contextlib.contextmanager
def slow_link(lab: Lab, laptop: Laptop, mbit: int) -> Iterator[None]:
    network = Network(lab.folder)
    network.limit(laptop.number, mbit)
    try:
        yield
    finally:
        network.limit(laptop.number, UNLIMITED)


@contextlib.contextmanager
def one_processor(laptop: Laptop) -> Iterator[None]:
    """Let a laptop's processes use the first processor only, and those that they start."""
    everything = os.sched_getaffinity(0)
    for pid in marked_processes(laptop.folder):
        os.sched_setaffinity(pid, {min(everything)})
    try:
        yield
    finally:
        for pid in marked_processes(laptop.folder):
            os.sched_setaffinity(pid, everything)


@contextlib.contextmanager
def slow_store(folder: Path, read_rate: int, write_rate: int, content: Path | None = None) -> Iterator[Path]:
    """A store on a disk of its own, with an image in it already."""
    backing, mounted = folder / "store.img", folder / "mounted"
    with open(backing, "wb") as file:
        file.truncate(DISK_SIZE)
    mounted.mkdir()
    with faulty_disk(backing, folder / "slow") as disk:
        subprocess.run(["mkfs.ext4", "-q", disk.device], check=True)
        subprocess.run(["mount", disk.device, mounted], check=True)
        try:
            if content:
                subprocess.run(["cp", content, mounted], check=True)
                subprocess.run(["umount", mounted], check=True)  # so that nothing of it is in memory
                subprocess.run(["mount", disk.device, mounted], check=True)
            disk.slow_down(read_rate, write_rate)
            yield mounted
        finally:
            disk.slow_down(0, 0)
            subprocess.run(["umount", mounted], check=True)


def test_a_slow_link_limits_a_capture(lab: Lab, store: Path) -> None:
    with slow_link(lab, lab.reference, 50):
        limit, advice = streaming(capture(lab, store, "-e", "imaging_compression_level=1"))
    assert limit == "network"
    assert "a wired gigabit link gives at most 117 MB/s" in advice and "a higher zstd level" in advice
    rate = float(advice.partition("busy: ")[2].split(" ")[0])
    assert 5 < rate < 6.3, "50 Mbit/s are 6.25 MB/s"


def test_a_high_level_limits_a_capture(lab: Lab, store: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.img"
    with open(small, "wb") as file:
        for path in sorted(Path(json.__file__).parents[1].rglob("*.py")):
            if file.tell() < 24 * MB:
                file.write(path.read_bytes())
        file.truncate(24 << 20)
    with faulty_disk(small, tmp_path / "source") as disk:
        limit, advice = streaming(
            capture(lab, store, "-e", "imaging_compression_level=19", "-e", f"imaging_disk={disk.device}")
        )
    assert limit == "laptop cpu (compression)"
    assert "at level 19; a lower one, or imaging_compression_level: auto" in advice


def test_a_slow_source_disk_limits_a_capture(lab: Lab, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "source.img"
    subprocess.run(["cp", "--sparse=always", lab.reference.backing_file, copy], check=True)
    with faulty_disk(copy, tmp_path / "source") as disk:
        disk.slow_down(20 * MB, 0)
        limit, advice = streaming(capture(lab, store, "-e", f"imaging_disk={disk.device}"))
    assert limit == "source disk read"
    rate = float(advice.partition("it gives ")[2].split(" ")[0])
    assert 10 < rate <= 22, advice


def test_a_slow_target_disk_limits_a_restore(lab: Lab, image: Path, tmp_path: Path) -> None:
    make_used_disk(tmp_path / "target.img", DISK_SIZE)
    with faulty_disk(tmp_path / "target.img", tmp_path / "target") as disk:
        disk.slow_down(0, 15 * MB)
        limit, advice = streaming(restore(lab, image, "-e", f"imaging_disk={disk.device}"))
    assert limit == "target disk write"
    rate = float(advice.partition("it takes ")[2].split(" ")[0])
    assert 8 < rate <= 17, advice


def test_a_slow_store_limits_a_capture(lab: Lab, tmp_path: Path) -> None:
    with slow_store(tmp_path, 0, 5 * MB) as mounted:
        limit, advice = streaming(capture(lab, mounted))
    assert limit == "store disk"
    assert "imaging_store on a faster disk" in advice


def test_a_slow_store_limits_a_restore(lab: Lab, image: Path, tmp_path: Path) -> None:
    with slow_store(tmp_path, 7 * MB, 0, image) as mounted:
        assert streaming(restore(lab, mounted / image.name))[0] == "store disk"


def test_one_processor_limits_a_restore(lab: Lab, image: Path) -> None:
    with one_processor(lab.targets[0]):
        result = restore(lab, image)
    assert result["workers"] == 1
    assert streaming(result)[0] == "target cpu (decompression, hashing)"


def test_encryption_by_the_controller_limits_a_restore(lab: Lab, store: Path, tmp_path: Path) -> None:
    """Of what does not compress, to a disk in memory: nothing else is as slow as the SSH client."""
    image = store / "random.img.zst"
    with tempfile.TemporaryDirectory(prefix="fleet-test-", dir="/dev/shm") as memory:
        for name, content in (("source.img", os.urandom(1 << 20)), ("target.img", bytes(1 << 20))):
            with open(Path(memory, name), "wb") as file:
                for number in range(300):
                    file.write(content[number:] + content[:number])
        source = attach_loop_device(Path(memory, "source.img"), direct_io=False)
        target = attach_loop_device(Path(memory, "target.img"), direct_io=False)
        try:
            arguments = ("-e", f"imaging_disk={source}", "-e", "imaging_compression_level=-5")
            run(lab, "image_capture", CAPTURE_ONE, *where(image), *arguments, laptop=lab.reference)
            arguments = ("-e", f"imaging_disk={target}", "-e", "imaging_transport=ssh")
            result = run(lab, "image_restore", RESTORE_ONE, *where(image), *YES, *arguments, laptop=lab.targets[0])
        finally:
            subprocess.run(["losetup", "--detach", source, target], check=True)
    sending = result["stages"]["controller send"]
    if sending["cpu"] < 0.6 * sending["busy"]:
        pytest.skip(
            f"on this machine the SSH client mostly waits for the SSH server, so it is not the limit: {sending}"
        )
    limit, advice = streaming(result)
    assert limit == "controller cpu", result["limits"]
    assert "imaging_transport: tcp leaves out SSH" in advice


def test_a_slow_link_limits_a_restore_and_the_time_that_was_told_is_kept(lab: Lab, image: Path, tmp_path: Path) -> None:
    """From the first third on, within 15 %, when what limits is steady."""
    told = tmp_path / "told"
    make_foreign(lab.targets[0])
    with slow_link(lab, lab.targets[0], 25):
        outcome = playbook(
            lab,
            RESTORE_ONE,
            "-l",
            lab.targets[0].name,
            *where(image),
            *YES,
            environment={"FLEET_IMAGING_TEST_PROGRESS": str(told), "ANSIBLE_CALLBACKS_ENABLED": "progress_events"},
        )
    assert outcome.status == 0, outcome.stdout
    (restored,) = outcome.of("image_restore")
    assert streaming(restored.result)[0] == "network"
    assert restored.result["limits"]["network"] > 0.6
    events = [json.loads(line) for line in told.read_text().splitlines()]
    began, ended = events[0]["at"], events[-1]["at"]
    third = [event for event in events if event["at"] - began > (ended - began) / 3 and event["state"] != "finishing"]
    told_ends = [event["at"] + event["eta"] for event in third if event["eta"] is not None]
    assert len(told_ends) >= len(third) * 0.8
    worst = max(abs(end - ended) for end in told_ends) / (ended - began)
    assert worst < 0.15, [(round(event["at"] - began, 1), event["state"], event["eta"]) for event in third]
