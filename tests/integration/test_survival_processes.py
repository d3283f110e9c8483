# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that die during a transfer, on either side: nothing is left of them, and running again finishes the job."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.faults import (
    LINK_TRANSPORTS,
    MAX_WAIT,
    SHORT,
    TIMEOUT,
    assert_finished_by_running_again,
    assert_holds,
    assert_nothing_remains,
    boot_live_medium_again,
    held,
    kill,
    kill_on_laptop,
    make_foreign,
    published,
    remains,
    result_of,
    start_restore,
    wait_for_share,
    wait_until,
    where,
    workers,
    written,
)
from ansible_collections.fleet.imaging.tests.integration.labs import DISK_SIZE, isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    BIN,
    CAPTURE_ONE,
    RESTORE_ONE,
    ROOT,
    YES,
    ansible_environment,
    playbook,
    start_playbook,
    stored,
)
from ansible_collections.fleet.imaging.tests.integration.terminal import Terminal
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan

pytestmark = pytest.mark.skipif(not isolated(), reason="the faults need namespaces and loop devices, and so root")

PATIENT = ("-e", "imaging_link_timeout=120")


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


@pytest.mark.parametrize(
    "victims",
    [
        ["AnsiballZ_image"],
        ["async_wrapper"],
        ["async_wrapper", "AnsiballZ_image"],
    ],
)
def test_the_module_or_its_wrapper_is_killed(lab: Lab, image: Path, victims: list[str]) -> None:
    laptop = lab.targets[0]
    running = start_restore(lab, image, 0.4)
    for victim in victims:
        # The wrapper's command line ends with the module's name.
        kill_on_laptop(laptop, "/async_wrapper" if victim == "async_wrapper" else "python3 [^ ]*AnsiballZ_image")
    outcome = running.wait()
    assert list(outcome.failures()) == [laptop.name]
    assert "killed" in outcome.failures()[laptop.name]
    assert result_of(outcome, "lab-02")["verified"] is True
    assert_nothing_remains(lab)
    assert_finished_by_running_again(lab, image, laptop, 0.3)


@pytest.mark.parametrize(
    ("victims", "way"),
    [
        ("worker", "tcp"),
        ("ansible-playbook", "tcp"),
        ("both", "tcp"),
        ("both", "openssh"),
    ],
)
def test_the_controllers_processes_are_killed(lab: Lab, image: Path, victims: str, way: str) -> None:
    laptop = lab.targets[0]
    running = start_restore(lab, image, 0.4, "-l", laptop.name, *LINK_TRANSPORTS[way])
    doomed = workers(running) if victims != "ansible-playbook" else []
    doomed += [running.process.pid] if victims != "worker" else []
    kill(*doomed)
    assert running.wait().status != 0
    # A worker of an ansible-playbook that was killed goes on by itself, to the end.
    assert_nothing_remains(lab, TIMEOUT + 30)
    assert_finished_by_running_again(lab, image, laptop, 0.3)


def test_started_again_at_once_after_everything_was_killed(lab: Lab, image: Path) -> None:
    """The old module still waits for its controller then."""
    laptop = lab.targets[0]
    running = start_restore(lab, image, 0.4, "-l", laptop.name)
    kill(*workers(running), running.process.pid)
    running.wait()
    assert published(laptop)
    assert_finished_by_running_again(lab, image, laptop, 0.3)
    assert_nothing_remains(lab)


def test_what_is_left_when_both_sides_are_killed_goes_with_the_next_run(lab: Lab, image: Path) -> None:
    laptop = lab.targets[0]
    running = start_restore(lab, image, 0.4, "-l", laptop.name)
    kill(*workers(running), running.process.pid)
    kill_on_laptop(laptop, "/async_wrapper")
    kill_on_laptop(laptop, "python3 [^ ]*AnsiballZ_image")
    running.wait()
    assert any("ansible-tmp-" in left for left in remains(lab))
    assert_finished_by_running_again(lab, image, laptop, 0.3)
    assert_nothing_remains(lab)


@pytest.mark.parametrize(("times", "way"), [(1, "tcp"), (1, "openssh"), (2, "tcp")])
def test_ctrl_c_in_a_terminal(lab: Lab, image: Path, times: int, way: str) -> None:
    laptop = lab.targets[0]
    make_foreign(laptop)
    before = written(laptop.disk)
    arguments = ["restore.yml", "-i", lab.inventory, "-l", laptop.name, *where(image), *YES, *LINK_TRANSPORTS[way]]
    command = [str(each) for each in (BIN / "ansible-playbook", *arguments)]
    # So wide that no sentence is wrapped.
    with Terminal(command, ansible_environment() | SHORT, str(ROOT / "playbooks"), 1000) as terminal:
        far_enough = terminal.watch(lambda _seen: written(laptop.disk) - before > DISK_SIZE // 8, MAX_WAIT)
        assert far_enough, terminal.text()
        for _time in range(times):
            terminal.enter("\x03")
            time.sleep(0.3)
        status = terminal.finish(MAX_WAIT)
    output = terminal.text()
    assert status in (99, 130, -signal.SIGINT), output
    assert f"may not boot now, because their laptops did not report how the restore ended: {laptop.name}." in output
    assert "To go on with it: ansible-playbook " in output
    assert_nothing_remains(lab, 20)
    assert_finished_by_running_again(lab, image, laptop, 0.2)


BOOTED_IN_1970 = time.time()
"""Seconds by which the clock of a laptop without a battery is behind."""

JUMPING_CLOCK = """
import time

real = time.time

def jumping():
    with open({clock!r}) as file:
        return real() + float(file.read() or 0)

time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""


@pytest.mark.parametrize(
    ("side", "offsets"), [("controller", (0, 86400, -86400)), ("laptop", (-BOOTED_IN_1970, 0, -3600))]
)
def test_a_clock_jumps(lab: Lab, image: Path, tmp_path: Path, side: str, offsets: tuple[float, float, float]) -> None:
    """This machine has one clock for everybody: what jumps is what Python's time() says on one side."""
    laptop = lab.targets[0]
    clock, python = tmp_path / "clock", tmp_path / "python3"
    clock.write_text(str(offsets[0]))
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK.format(clock=str(clock)))
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec /usr/bin/python3 "$@"\n')
    python.chmod(0o755)
    environment = {"PYTHONPATH": str(tmp_path)} if side == "controller" else {}
    arguments = ["-l", laptop.name, *where(image), *YES]
    arguments += ["-e", f"ansible_python_interpreter={python}"] if side == "laptop" else []
    make_foreign(laptop)
    before = written(laptop.disk)
    name = "restore" if side == "controller" else RESTORE_ONE
    running = start_playbook(lab, name, *arguments, environment=environment)
    for share, offset in ((0.3, offsets[1]), (0.6, offsets[2])):
        wait_for_share(laptop.disk, image, share, before, running)
        clock.write_text(str(offset))
    outcome = running.wait()
    assert outcome.status == 0, outcome.stdout
    result = result_of(outcome, laptop.name)
    assert (result["verified"], result["links_made"]) == (True, 1)
    assert 0 < result["seconds"] < 60
    assert_nothing_remains(lab)
    assert_holds(image, Path(laptop.disk))


@pytest.mark.parametrize("victim", ["module", "controller"])
def test_a_capture_that_was_killed_goes_on_from_what_is_stored(lab: Lab, image: Path, store: Path, victim: str) -> None:
    partial = store / "half.img.zst.partial"
    arguments = ("-l", "reference", *where(store / "half.img.zst"))
    running = start_playbook(lab, CAPTURE_ONE, *arguments, environment=SHORT)
    size = image.stat().st_size
    wait_until(lambda: partial.exists() and partial.stat().st_size > size // 2, "half of a capture")
    if victim == "module":
        kill_on_laptop(lab.reference, "AnsiballZ_image")
    else:
        kill(*workers(running), running.process.pid)
    outcome = running.wait()
    assert outcome.status != 0
    if victim == "module":
        assert "half.img.zst.partial" in outcome.failures()[lab.reference.name]
    assert_nothing_remains(lab)
    assert set(stored(store)) == {partial.name}
    outcome = playbook(lab, CAPTURE_ONE, *arguments)
    assert outcome.status == 0, outcome.stdout
    result = result_of(outcome, lab.reference.name, "image_capture")
    assert result["kept_chunks"] > 0.3 * result["used_chunks"]
    assert result["sent_bytes"] < 0.75 * size
    assert stored(store) == ["half.img.zst"]
    subprocess.run(["zstd", "-q", "-t", store / "half.img.zst"], check=True)
    assert_holds(store / "half.img.zst", Path(lab.reference.disk))


@pytest.mark.parametrize("way", ["Ctrl-C", "kill -9"])
def test_a_checker_of_a_file_system_ends_with_its_capture(lab: Lab, store: Path, tmp_path: Path, way: str) -> None:
    checker = tmp_path / "e2fsck"
    checker.write_text("#!/bin/sh\nexec sleep 98765\n")
    checker.chmod(0o755)
    lab.reference.run(["mount", "--bind", checker, "/usr/sbin/e2fsck"])
    try:
        running = start_playbook(lab, CAPTURE_ONE, "-l", "reference", *where(store / "waits.img.zst"))
        wait_until(lambda: "checking file systems" in running.stdout(), "a capture that waits for a checker")
        if way == "Ctrl-C":
            os.killpg(running.process.pid, signal.SIGINT)
        else:
            kill_on_laptop(lab.reference, "python3 [^ ]*AnsiballZ_image")
        assert running.wait().status != 0
        assert_nothing_remains(lab)
        assert subprocess.run(["pgrep", "-f", "sleep 98765"], stdout=subprocess.DEVNULL, check=False).returncode == 1
        assert stored(store) == ["waits.img.zst.partial"]
    finally:
        lab.reference.run(["umount", "/usr/sbin/e2fsck"])


def test_two_captures_to_the_same_name(lab: Lab, store: Path) -> None:
    arguments = where(store / "same.img.zst")
    first = start_playbook(lab, CAPTURE_ONE, "-l", "reference", *arguments, *PATIENT)
    partial = store / "same.img.zst.partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 1 << 20, "a capture")
    disk = ("-e", f"imaging_disk={lab.targets[1].disk}")
    with held(lab.reference, "AnsiballZ_image"):
        second = playbook(lab, CAPTURE_ONE, "-l", "lab-02", *arguments, *disk)
    assert "another capture of this name is running" in second.failures()["lab-02"]
    assert first.wait().status == 0
    assert stored(store) == ["same.img.zst"]
    assert_holds(store / "same.img.zst", Path(lab.reference.disk))
    assert_nothing_remains(lab)


def test_two_restores_of_the_same_laptop(lab: Lab, image: Path) -> None:
    laptop = lab.targets[0]
    first = start_restore(lab, image, 0.2, "-l", laptop.name, *PATIENT, environment={})
    with held(laptop, "AnsiballZ_image"):
        second = playbook(lab, "restore", "-l", laptop.name, *where(image), *YES)
    assert "another controller is at work" in second.failures()[laptop.name]
    assert result_of(first.wait(), laptop.name)["verified"] is True
    assert_nothing_remains(lab)
    assert_holds(image, Path(laptop.disk))


def test_one_of_eight_laptops_dies_and_others_come_late(survival_plan: Plan, image: Path) -> None:
    """Six laptops on four forks, and then two more, each as soon as it can: whom they take from has partly ended."""
    late = ("-f", "4", "-e", "batch=6")
    environment = {**SHORT, "ANSIBLE_STRATEGY": "free"}
    with running_lab(survival_plan, laptops=8) as large:
        laptop = large.targets[3]
        before = written(laptop.disk)
        running = start_playbook(large, RESTORE_ONE, "-l", "lab_laptops", *where(image), *late, environment=environment)
        wait_for_share(laptop.disk, image, 0.5, before, running)
        laptop.power_off()
        outcome = running.wait()
        assert list(outcome.failures()) == [laptop.name]
        for other in large.targets:
            if other.name != laptop.name:
                assert result_of(outcome, other.name)["verified"] is True
                assert_holds(image, Path(other.disk))
        boot_live_medium_again(laptop)
        assert_finished_by_running_again(large, image, laptop, 0.35)
        assert_nothing_remains(large)
