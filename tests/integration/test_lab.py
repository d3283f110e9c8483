# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: what it promises to those who test with it, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.labs import DISK_SIZE, lab_folder, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import BIN, ROOT, ansible_environment, playbook
from ansible_collections.fleet.imaging.tests.lab import tools
from ansible_collections.fleet.imaging.tests.lab.disks import (
    MIB,
    attach_loop_device,
    detach_loop_device,
    make_empty_disk,
    make_used_disk,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan, can_isolate
from ansible_collections.fleet.imaging.tests.lab.machine_files import copies
from ansible_collections.fleet.imaging.tests.lab.network import Network
from ansible_collections.fleet.imaging.tests.lab.reference_disk import make_reference_disk
from ansible_collections.fleet.imaging.tests.lab.tools import LabError, run

needs_isolation = pytest.mark.skipif(not can_isolate(), reason="namespaces and loop devices are for root")
both_modes = pytest.mark.parametrize(
    "isolated", [pytest.param(True, marks=needs_isolation, id="root"), pytest.param(False, id="no-root")]
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of a lab to be; the lab is taken down in the end."""
    with lab_folder() as path:
        yield path
        Lab(path).down()


def traces(folder: Path) -> list[str]:
    """Return what there is of a lab, anywhere on this machine."""
    words = (str(folder), Network(folder).prefix)
    found = [f"file {path}" for path in folder.parent.iterdir()]
    found += [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines()]
    if can_isolate():
        for command in (["losetup", "--list"], ["ip", "netns", "list"], ["ip", "link", "show"]):
            found += [f"{command[0]} {line}" for line in run(*command).splitlines()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = b" ".join([(process / "cmdline").read_bytes(), (process / "environ").read_bytes()])
            found.append(f"process {process.name} {about.decode(errors='replace')}")
        except OSError:
            pass  # It has ended, or is another user's.
    return [trace for trace in found if any(word in trace for word in words)]


@needs_isolation
def test_a_laptop_keeps_nothing_mounted_that_somebody_else_has_mounted(
    tiny_plan: Plan, folder: Path, tmp_path: Path
) -> None:
    disk, place = tmp_path / "disk", tmp_path / "a place"
    make_empty_disk(disk, 16 * MIB)
    run("mkfs.ext4", "-q", "-F", disk)
    place.mkdir()
    device = attach_loop_device(disk, False)
    try:
        run("mount", device, place)
        try:
            Lab(folder).up(replace(tiny_plan, isolated=True, laptops=1))
        finally:
            run("umount", place)
        (laptop,) = Lab(folder).targets
        assert device not in laptop.run(["cat", "/proc/mounts"]).stdout
    finally:
        assert detach_loop_device(device, disk, 20), f"{device} is still in use"


@pytest.mark.parametrize("size", [MIB, 20 * MIB, 64 * MIB + 512])
def test_a_used_disk_has_the_size_that_was_asked_for(size: int, tmp_path: Path) -> None:
    make_used_disk(tmp_path / "disk", size)
    assert (tmp_path / "disk").stat().st_size == size


def test_a_file_that_goes_while_a_reference_is_made_is_left_out(tmp_path: Path) -> None:
    """As happens when a package is being installed on this machine."""
    (tmp_path / "there").write_bytes(b"content")
    (tmp_path / "copies").mkdir()
    found = copies({"gone": tmp_path / "gone", "kept": tmp_path / "there"}, tmp_path / "copies")
    assert {place: path.read_bytes() for place, path in found.items()} == {"kept": b"content"}


def ansible(lab: Lab, *arguments: str) -> str:
    """Run ansible on all laptops of a lab; return its output."""
    command: list[str | Path] = [BIN / "ansible", "all", "-i", lab.inventory, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ansible_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@both_modes
def test_ansible_reaches_all_laptops_and_down_leaves_nothing(tiny_plan: Plan, folder: Path, isolated: bool) -> None:
    lab = Lab(folder)
    lab.up(replace(tiny_plan, isolated=isolated))
    assert ansible(lab, "-m", "ping").count('"ping": "pong"') == 3
    # A job that nobody waits for, and that is no child of any sshd any more.
    ansible(lab, "-B", "1000", "-P", "0", "-m", "command", "-a", "sleep 1000")
    deadline = time.monotonic() + 10
    while sum(" sleep\0001000\0" in trace for trace in traces(folder)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert traces(folder)
    lab.down()
    assert traces(folder) == []
    lab.down()


@both_modes
def test_down_cleans_up_after_a_killed_up(folder: Path, isolated: bool) -> None:
    command: list[str | Path] = [
        sys.executable,
        ROOT / "tests/lab/lab",
        "up",
        "--state",
        folder,
        "--laptops",
        "2",
        "--disk-size",
        "256M",
    ]
    with subprocess.Popen([*command, *([] if isolated else ["--no-root"])], start_new_session=True) as process:
        while not (folder / "lab-01").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert traces(folder)
    with pytest.raises(LabError, match="take it down first"):
        Lab(folder).up(Plan(laptops=1, disk_size=MIB, reference_size=DISK_SIZE, isolated=isolated))
    Lab(folder).down()
    assert traces(folder) == []


@both_modes
def test_up_that_fails_leaves_nothing(tiny_plan: Plan, folder: Path, isolated: bool, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.img"
    wrong.write_bytes(b"not a disk")
    with pytest.raises(LabError, match="has 10 bytes"):
        Lab(folder).up(replace(tiny_plan, isolated=isolated, reference_image=wrong))
    assert traces(folder) == []


def test_up_says_what_to_install(
    tiny_plan: Plan, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "SEARCH_PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"sshd not found; install it with: apt-get install .*openssh-server"):
        Lab(folder).up(replace(tiny_plan, isolated=False))
    assert not folder.exists()


def test_another_inventory_file_is_left_alone(tiny_plan: Plan, folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "hosts.yml"
    mine.write_text("all:\n")
    with pytest.raises(LabError, match="exists already"):
        Lab(folder).up(replace(tiny_plan, inventory=mine))
    assert mine.read_text() == "all:\n"


def test_down_refuses_a_folder_that_is_no_labs(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis").touch()
    with pytest.raises(LabError, match=r"has no lab\.json"):
        Lab(folder).down()
    (folder / "thesis").unlink()


@needs_isolation
def test_two_labs_are_up_at_once(lab: Lab, tiny_plan: Plan) -> None:
    with running_lab(tiny_plan, isolated=True, laptops=1) as other:
        assert not {laptop.address for laptop in lab.laptops} & {laptop.address for laptop in other.laptops}
        other.down()
        assert all(laptop.pid for laptop in lab.laptops)


@needs_isolation
def test_an_isolated_laptop_has_its_own_name_processes_network_and_run_folder(tiny_plan: Plan) -> None:
    with running_lab(tiny_plan, isolated=True, laptops=1, link_mbit=100) as lab:
        laptop = lab.targets[0]
        assert laptop.run(["uname", "-n"]).stdout == "lab-01\n"
        assert "sshd" in laptop.run(["cat", "/proc/1/cmdline"]).stdout
        laptop.run(["mkdir", "/run/fleet.imaging-lab-test"])
        assert not Path("/run/fleet.imaging-lab-test").exists()
        interfaces = json.loads(laptop.run(["ip", "-json", "link"]).stdout)
        assert [interface["ifname"] for interface in interfaces] == ["lo", "eth0"]
        assert "rate 100Mbit" in laptop.run(["tc", "qdisc", "show", "dev", "eth0"]).stdout
        assert "rate 100Mbit" in run("tc", "qdisc", "show", "dev", Network(lab.folder).port(laptop.number))


@needs_isolation
def test_the_disk_of_an_isolated_laptop_is_locked_after_it_was_written_to(tiny_plan: Plan) -> None:
    with running_lab(tiny_plan, isolated=True, laptops=1, udev_seconds=60) as lab:
        laptop = lab.targets[0]
        lock = ["flock", "--nonblock", "--exclusive", laptop.disk, "true"]
        log = laptop.folder / "udev.log"
        deadline = time.monotonic() + 20
        while "watching" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        laptop.run(lock)
        laptop.run(["dd", "if=/dev/zero", f"of={laptop.disk}", "bs=512", "count=1"])
        while "locked" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert laptop.run(lock, check=False).returncode == 1


@needs_isolation
def test_a_laptop_can_lose_its_link_and_its_power(tiny_plan: Plan) -> None:
    with running_lab(tiny_plan, isolated=True, laptops=1) as lab:
        laptop = lab.targets[0]
        laptop.link_down()
        assert "NO-CARRIER" in laptop.run(["ip", "link", "show", "eth0"]).stdout
        laptop.link_up()
        laptop.wait_until_up()
        laptop.power_off()
        assert laptop.pid is None
        assert lab.reference.pid
        laptop.power_on()
        laptop.wait_until_up()


@needs_isolation
def test_the_start_files_of_the_users_shell_play_no_part(tiny_plan: Plan, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("echo read; exit 9\n")
    accounts = tmp_path / "passwd"
    accounts.write_text(f"root:x:0:0:root:{tmp_path}:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
    with running_lab(tiny_plan, isolated=True, laptops=1) as lab:
        lab.targets[0].run(["mount", "--bind", accounts, "/etc/passwd"])
        said = ansible(lab, "--limit", lab.targets[0].name, "-m", "raw", "-a", "echo home is $HOME")
        assert said.splitlines()[1] == f"home is {tmp_path}"


def test_laptops_disks_hold_old_data_unless_blank_ones_are_wanted(tiny_plan: Plan) -> None:
    with running_lab(tiny_plan, laptops=2) as used:
        first, second = (laptop.backing_file.open("rb").read(MIB) for laptop in used.targets)
        assert any(first) and first != second
    with running_lab(tiny_plan, laptops=1, disk_size=8 * MIB, blank=True) as blank:
        assert not any(blank.targets[0].backing_file.read_bytes())


def test_a_playbooks_results_are_read(lab: Lab, tmp_path: Path) -> None:
    book = tmp_path / "book.yml"
    task = {"name": "Say it", "ansible.builtin.command": "false", "failed_when": "inventory_hostname == 'lab-02'"}
    book.write_text(json.dumps([{"hosts": "lab_laptops", "gather_facts": False, "tasks": [task]}]))
    outcome = playbook(lab, book)
    assert outcome.status == 2
    assert [result.status for result in outcome.of("command", "lab-01")] == ["ok"]
    assert list(outcome.failures()) == ["lab-02"]
    assert outcome.of("command", "lab-02")[0].result["rc"] == 1


def test_reference_disk_has_sound_file_systems_with_files_of_this_machine(tmp_path: Path) -> None:
    disk, size = tmp_path / "disk.img", 256 * MIB
    make_reference_disk(disk, size, used_share=1 / 3, aged=True)
    assert 0.25 < disk.stat().st_blocks * 512 / size < 0.75
    table = json.loads(run("sfdisk", "--json", disk))["partitiontable"]
    assert table["label"] == "gpt"
    images = []
    for number, partition in enumerate(table["partitions"]):
        image = tmp_path / str(number)
        with open(disk, "rb") as reader:
            reader.seek(partition["start"] * 512)
            image.write_bytes(reader.read(partition["size"] * 512))
        images.append(image)
    esp, windows, linux, swap = images
    run("fsck.fat", "-n", esp)
    run("mdir", "-i", esp, "::/EFI/Boot/bootx64.efi")
    run("ntfsfix", "--no-action", windows)
    run("ntfs-3g.probe", "--readwrite", windows)
    assert "Volume Flags: 0x0000" in run("ntfsinfo", "--mft", windows)
    state = subprocess.run(
        ["ntfscat", windows, "Windows/Setup/State/State.ini"], check=True, stdout=subprocess.PIPE
    ).stdout
    assert "GENERALIZE_RESEAL_TO_OOBE" in state.decode("utf-16")
    run("e2fsck", "-fn", linux)
    assert run("debugfs", "-R", "cat etc/os-release", linux) == Path("/etc/os-release").read_text()
    assert run("blkid", "-p", "-s", "TYPE", "-o", "value", swap) == "swap\n"
