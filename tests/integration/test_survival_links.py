# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links that fail during a transfer: it goes on when they come back in time, and ends on both sides when they do not."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.tests.integration.faults import (
    LINK_TRANSPORTS,
    TIMEOUT,
    assert_finished_by_running_again,
    assert_holds,
    assert_nothing_remains,
    end_connections,
    firewall,
    looks_bootable,
    make_foreign,
    over_all_transports,
    over_two_transports,
    published,
    put_image,
    result_of,
    start_restore,
    wait_for_share,
    wait_until,
    where,
    written,
)
from ansible_collections.fleet.imaging.tests.integration.labs import LINK_MBIT, isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import CAPTURE_ONE, RESTORE_ONE, playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.network import Network

pytestmark = pytest.mark.skipif(not isolated(), reason="the faults need namespaces and loop devices, and so root")

PATIENT = ("-e", "imaging_link_timeout=12", "-e", "ansible_timeout=10")
"""A link is silent for 8 s before it counts as broken."""


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


@over_all_transports
def test_one_link_is_down_for_five_seconds_and_the_ssh_of_another_laptop_is_cut(
    lab: Lab, image: Path, way: str
) -> None:
    """By tcp, what is cut are Ansible's own connections only: the data has one of its own."""
    laptop, other = lab.targets
    make_foreign(other)
    before = written(other.disk)
    running = start_restore(lab, image, 0.3, *LINK_TRANSPORTS[way], *PATIENT, environment={})
    wait_for_share(other.disk, image, 0.3, before, running)
    end_connections(lab, other)
    laptop.link_down()
    time.sleep(5)
    laptop.link_up()
    outcome = running.wait()
    assert outcome.status == 0, outcome.stdout
    assert result_of(outcome, laptop.name)["verified"] is True
    result = result_of(outcome, other.name)
    assert (result["verified"], result["links_made"]) == (True, 1 if way == "tcp" else 2)
    assert_nothing_remains(lab)
    for each in lab.targets:
        assert_holds(image, Path(each.disk))


@over_two_transports
def test_the_link_is_down_for_longer_than_the_timeout(lab: Lab, image: Path, way: str) -> None:
    laptop = lab.targets[0]
    running = start_restore(lab, image, 0.5, *LINK_TRANSPORTS[way], name="restore" if way == "tcp" else RESTORE_ONE)
    laptop.link_down()
    try:
        began = time.monotonic()
        wait_until(lambda: not published(laptop), "the module ends by itself", 2 * TIMEOUT)
        assert time.monotonic() - began > TIMEOUT - 2.5
        assert looks_bootable(laptop.disk) == []
        outcome = running.wait(90)
    finally:
        laptop.link_up()
    assert list(outcome.failures()) == [laptop.name]
    said = outcome.failures()[laptop.name]
    assert (
        re.search(r"was connected before, and has not answered since \d\d:\d\d: it may be asleep", said)
        and "firewall" not in said
    )
    waited = re.findall(rf"reconnecting (\d+)/{TIMEOUT} s", outcome.stdout)
    assert waited and max(map(int, waited)) <= TIMEOUT
    *_before, disks, again = [line for line in outcome.stdout.splitlines() if line and not line.startswith("Report:")]
    assert disks.startswith("These disks may not boot now") and disks.endswith(f": {laptop.name}.")
    assert again.startswith("To go on with it: ansible-playbook ") and again.endswith(f" -l {laptop.name}")
    assert f"imaging_image={image.name.partition('.')[0]}" in again
    assert result_of(outcome, "lab-02")["verified"] is True
    assert_nothing_remains(lab)
    assert_finished_by_running_again(lab, image, laptop, 0.4, *LINK_TRANSPORTS[way])


@over_two_transports
def test_a_firewall_forgets_a_connection(lab: Lab, image: Path, way: str) -> None:
    """As one does that takes it for idle: its packets vanish, and a new connection is let through."""
    laptop = lab.targets[0]
    running = start_restore(lab, image, 0.3, *LINK_TRANSPORTS[way], "-l", laptop.name)
    port = "19000" if way == "tcp" else "22"
    busiest = ["ss", "-Htnpi", "state", "established", f"sport = :{port}"]
    lines = laptop.run(busiest).stdout.splitlines()
    received = {
        line.split()[3].rpartition(":")[2]: int(found[1])
        for line, more in zip(lines[::2], lines[1::2], strict=True)
        if (found := re.search(r"bytes_received:(\d+)", more))
    }
    theirs = max(received, key=lambda peer: received[peer])
    with firewall(laptop, "INPUT", "-p", "tcp", "--sport", theirs, "-j", "DROP"):
        outcome = running.wait()
    assert outcome.status == 0, outcome.stdout
    result = result_of(outcome, laptop.name)
    assert (result["verified"], result["links_made"]) == (True, 2)
    assert_nothing_remains(lab)
    assert_holds(image, Path(laptop.disk))


def test_ssh_is_gone_for_good_while_data_flows(lab: Lab, image: Path) -> None:
    """Everything gets through, and nobody can say so."""
    laptop = lab.targets[0]
    running = start_restore(lab, image, 0.3)
    reject = ["INPUT", "-p", "tcp", "--dport", "22", "-j", "REJECT", "--reject-with", "tcp-reset"]
    with firewall(laptop, *reject):
        end_connections(lab, laptop)
        outcome = running.wait()
        assert list(outcome.failures()) == [laptop.name]
        assert "Run again" in outcome.failures()[laptop.name]
        assert result_of(outcome, "lab-02")["verified"] is True
        assert not published(laptop)
    assert_holds(image, Path(laptop.disk))
    result = assert_finished_by_running_again(lab, image, laptop, 1.0)
    assert result["changed"] is False
    # The result that nobody could ask for is all that is left, in the laptop's memory; a later run removes it once it is old.
    for path in (laptop.folder / "async").iterdir():
        shutil.rmtree(path)
    assert_nothing_remains(lab)


def test_a_link_of_1_mbit(lab: Lab, image: Path) -> None:
    """By ssh, which has buffers of its own; ``test_transfer.py`` has a slow link by tcp."""
    laptop = lab.targets[0]
    put_image(image, laptop)
    rows = [row for row in ImageReader(FileSource(str(image))).index if row.flags == 1]
    smallest = sorted(rows, key=lambda row: row.frame_size)
    row = next(row for row in smallest if row.frame_size > 300_000)
    with open(laptop.disk, "r+b") as disk:
        disk.seek(row.chunk * (4 << 20) + (int.from_bytes(row.ranges[:2], "little") * 512 if row.ranges else 0))
        disk.write(b"changed")
        disk.flush()
    network = Network(lab.folder)
    network.limit(laptop.number, 1)
    try:
        began = time.monotonic()
        arguments = ("-l", laptop.name, *where(image), *LINK_TRANSPORTS["openssh"], *PATIENT)
        outcome = playbook(lab, RESTORE_ONE, *arguments)
        seconds = time.monotonic() - began
    finally:
        network.limit(laptop.number, LINK_MBIT)
    assert outcome.status == 0, outcome.stdout
    result = result_of(outcome, laptop.name)
    assert (result["changed"], result["verified"], result["links_made"]) == (True, True, 1)
    assert seconds > row.frame_size * 8 / 1_000_000
    assert_nothing_remains(lab)
    assert_holds(image, Path(laptop.disk))
