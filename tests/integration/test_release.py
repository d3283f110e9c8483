# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are in use, really, and are released: on a laptop of the lab, by the module and by the playbooks."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.disk.release import release_disk
from ansible_collections.fleet.imaging.tests.integration.disk_files import MIB, RUN
from ansible_collections.fleet.imaging.tests.integration.faults import wait_until
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import Outcome, playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop
from ansible_collections.fleet.imaging.tests.lab.tools import LabError
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = pytest.mark.skipif(not isolated(), reason="mounting needs loop devices and namespaces, and so root")

LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
RELEASE = """
- hosts: all
  gather_facts: false
  tasks:
    - fleet.imaging.disk_release:
        device: "{{ imaging_disk }}"
"""


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tiny_plan: Plan) -> Iterator[Lab]:
    with running_lab(tiny_plan, laptops=1) as lab:
        yield lab


@pytest.fixture(name="laptop")
def fixture_laptop(lab: Lab) -> Iterator[Laptop]:
    """The reference. Whatever a test leaves mounted is unmounted, and swap, which is the whole machine's, is switched off before."""
    laptop = lab.reference
    yield laptop
    for line in laptop.run(["cat", "/proc/swaps"]).stdout.splitlines()[1:]:
        if line.startswith(str(laptop.folder)):
            laptop.run(["swapoff", line.split()[0]])
    for path in reversed(mounts_of(laptop)):
        laptop.run(["umount", "-R", "-l", path])


@pytest.fixture(name="play")
def fixture_play(tmp_path: Path) -> Path:
    path = tmp_path / "release.yml"
    path.write_text(RELEASE)
    return path


@pytest.fixture(name="mnt")
def fixture_mnt(laptop: Laptop) -> str:
    """A folder to mount something on, of the laptop's own."""
    folder = laptop.folder / "mnt"
    folder.mkdir(exist_ok=True)
    return str(folder)


def linux_partition(laptop: Laptop) -> str:
    """The node of the partition with ext4."""
    table = laptop.run(["sfdisk", "-d", laptop.disk]).stdout
    return next(line.split()[0] for line in table.splitlines() if LINUX in line)


def mount(laptop: Laptop, *arguments: str) -> None:
    laptop.run(["mount", *arguments])


def all_mounts(laptop: Laptop) -> list[str]:
    return mount_points(laptop.run(["cat", "/proc/self/mountinfo"]).stdout)


def mounts_of_this_machine() -> set[str]:
    return set(mount_points(Path("/proc/self/mountinfo").read_text()))


def mount_points(mountinfo: str) -> list[str]:
    return [line.split()[4].replace("\\040", " ") for line in mountinfo.splitlines()]


def mounts_of(laptop: Laptop) -> list[str]:
    lines = laptop.run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()
    return [line.split()[4] for line in lines if laptop.disk in line]


def release(lab: Lab, play: Path, laptop: Laptop, *more: str) -> Outcome:
    return playbook(lab, play, "-l", laptop.name, *more)


def result_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    (found,) = outcome.of("disk_release")
    return found.result


def words(result: dict[str, Any]) -> list[str]:
    return [" ".join(step["command"]) for step in result["steps"]]


def test_mounts_of_all_kinds_go_and_nothing_else(lab: Lab, laptop: Laptop, mnt: str, play: Path) -> None:
    node = linux_partition(laptop)
    mount(laptop, node, mnt)
    laptop.run(["mkdir", "-p", f"{mnt}/inner", f"{mnt} of mine"])
    mount(laptop, "--bind", f"{mnt}/inner", f"{mnt} of mine")
    laptop.run(["mkdir", "-p", f"{mnt}/proc"])
    mount(laptop, "--bind", "/proc", f"{mnt}/proc")
    machine = mounts_of_this_machine()
    before = all_mounts(laptop)
    machine |= mounts_of_this_machine()
    checked = result_of(release(lab, play, laptop, "--check"))
    assert checked["changed"] is True
    assert words(checked) == [f"umount -- {mnt} of mine", f"umount -- {mnt}/proc", f"umount -- {mnt}"]
    assert len(mounts_of(laptop)) == 2
    done = result_of(release(lab, play, laptop))
    assert (done["changed"], words(done)) == (True, words(checked))
    assert mounts_of(laptop) == []
    after = all_mounts(laptop)
    # What this machine unmounts meanwhile goes from the laptop, too: other tests have namespaces and mounts of their own.
    unmounted_here = machine - mounts_of_this_machine()
    gone = [path for path in before if path not in after and path not in unmounted_here]
    assert gone == [mnt, f"{mnt} of mine", f"{mnt}/proc"]
    assert {"/", "/proc", "/run"} <= set(after)
    again = result_of(release(lab, play, laptop))
    assert (again["changed"], again["steps"]) == (False, [])


def test_a_loop_device_and_swap_in_its_files(lab: Lab, laptop: Laptop, mnt: str, play: Path) -> None:
    node = linux_partition(laptop)
    mount(laptop, node, mnt)
    laptop.run(["dd", "if=/dev/zero", f"of={mnt}/inside.img", "bs=1M", "count=4", "status=none"])
    laptop.run(["mkfs.ext4", "-q", "-F", f"{mnt}/inside.img"])
    inner = laptop.run(["losetup", "--find", "--show", f"{mnt}/inside.img"]).stdout.strip()
    laptop.run(["mkdir", "-p", f"{mnt}-inner"])
    mount(laptop, inner, f"{mnt}-inner")
    expected = [f"umount -- {mnt}-inner", f"losetup --detach {inner}"]
    laptop.run(["dd", "if=/dev/zero", f"of={mnt}/swap", "bs=1M", "count=4", "status=none"])
    laptop.run(["chmod", "600", f"{mnt}/swap"])
    laptop.run(["mkswap", "-q", f"{mnt}/swap"])
    try:
        laptop.run(["swapon", f"{mnt}/swap"])
        expected.append(f"swapoff -- {mnt}/swap")
    except LabError:
        pass  # no swap in files here; the order is tested without a kernel
    done = result_of(release(lab, play, laptop))
    assert words(done) == [*expected, f"umount -- {mnt}"]
    # Whoever needs a loop device next may have this one by now.
    assert (
        f"{mnt}/inside.img" not in laptop.run(["losetup", "--list", "--output", "BACK-FILE", inner], check=False).stdout
    )


def test_what_is_busy_is_not_forced_and_whoever_uses_it_is_named(
    lab: Lab, laptop: Laptop, mnt: str, play: Path
) -> None:
    mount(laptop, linux_partition(laptop), mnt)
    inside = ["nsenter", "--target", str(laptop.pid), "--mount", "--pid", "--"]
    with subprocess.Popen([*inside, "sh", "-c", f"cd {mnt} && exec sleep 300"]) as process:
        try:
            wait_until(
                lambda: laptop.run(["pgrep", "-f", "^sleep 300"], check=False).stdout, "it has changed its folder"
            )
            message = release(lab, play, laptop).failures()[laptop.name]
            assert f"can't unmount {mnt}" in message
            assert "(sleep, its working folder)" in message
            assert mounts_of(laptop) == [mnt]
        finally:
            laptop.run(["pkill", "-f", "sleep 300"], check=False)
            process.wait(30)
    assert result_of(release(lab, play, laptop))["changed"] is True


def test_a_mount_in_another_namespace_is_found(lab: Lab, laptop: Laptop, mnt: str, play: Path) -> None:
    node = linux_partition(laptop)
    inside = ["nsenter", "--target", str(laptop.pid), "--mount", "--pid", "--"]
    hidden = ["unshare", "--mount", "sh", "-c", f"mount {node} {mnt} && exec sleep 301"]
    with subprocess.Popen([*inside, *hidden]) as process:
        try:
            wait_until(lambda: laptop.run(["pgrep", "-f", "^sleep 301"], check=False).stdout, "it has mounted the disk")
            assert mounts_of(laptop) == []
            message = release(lab, play, laptop).failures()[laptop.name]
            assert "held by somebody else" in message
            assert "(sleep)" in message and "namespaces of their own" in message
        finally:
            laptop.run(["pkill", "-f", "sleep 301"], check=False)
            process.wait(30)


def test_a_mount_of_another_disk_inside_is_refused(lab: Lab, laptop: Laptop, mnt: str, play: Path) -> None:
    mount(laptop, linux_partition(laptop), mnt)
    laptop.run(["mkdir", "-p", f"{mnt}/other"])
    mount(laptop, "-t", "tmpfs", "none", f"{mnt}/other")
    message = release(lab, play, laptop).failures()[laptop.name]
    assert f"{mnt}/other" in message and "not of this disk" in message
    assert mounts_of(laptop) == [mnt]
    laptop.run(["umount", f"{mnt}/other"])


def test_a_capture_releases_its_disk_and_a_restore_on_wish(lab: Lab, laptop: Laptop, mnt: str, store: Path) -> None:
    where = ("-e", f"imaging_store={store}", "-e", "imaging_image=released")
    mount(laptop, linux_partition(laptop), mnt)
    unwilling = playbook(lab, "capture", *where, "-e", "imaging_release=false")
    assert f"mounted at {mnt}" in unwilling.failures()[laptop.name]
    checked = playbook(lab, "capture", *where, "--check")
    assert checked.status == 0, checked.stdout
    assert mounts_of(laptop) == [mnt]
    captured = playbook(lab, "capture", *where)
    assert captured.status == 0, captured.stdout
    assert mounts_of(laptop) == []
    # The target's turn: first it becomes equal, so that there is something to mount.
    (target,) = lab.targets
    yes = (*where, "-e", "imaging_confirm_erase=true")
    restored = playbook(lab, "restore", *yes)
    assert restored.status == 0, restored.stdout
    target.run(["partx", "--update", target.disk], check=False)
    start = next(line for line in target.run(["sfdisk", "-d", target.disk]).stdout.splitlines() if LINUX in line)
    offset = 512 * int(start.split("start=")[1].split(",")[0])
    mount(target, "-o", f"loop,offset={offset}", target.disk, mnt)
    refused = playbook(lab, "restore", *yes)
    assert f"mounted at {mnt}" in refused.failures()[target.name]
    assert target.run(["mountpoint", "-q", mnt], check=False).returncode == 0
    willing = playbook(lab, "restore", *yes, "-e", "imaging_release=true")
    assert willing.status == 0, willing.stdout
    assert target.run(["mountpoint", "-q", mnt], check=False).returncode != 0
    (result,) = willing.of("image_restore", target.name)
    assert result.result["verified"] is True


def test_what_goes_by_itself_while_it_is_taken_down_is_no_failure(tmp_path: Path) -> None:
    """As a loop device does that was detached while somebody looked at it; the program that is to detach it again finds none."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    loop = tool("losetup", "--find", "--show", disk).strip()

    def late(command: Sequence[str]) -> CommandResult:
        result = RUN(command)
        return RUN(command) if command[0] == "losetup" else result

    assert [step.words for step in release_disk(late, str(disk))] == [f"detach {loop}"]


def test_a_loop_device_that_another_program_looks_at_is_waited_for(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    loop = tool("losetup", "--find", "--show", disk).strip()
    looking = os.open(loop, os.O_RDONLY)
    threading.Timer(1.5, os.close, [looking]).start()
    assert [step.words for step in release_disk(RUN, str(disk))] == [f"detach {loop}"]
