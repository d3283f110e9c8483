# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptops of a run pass the image on to one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.tests.integration.faults import (
    SHORT,
    assert_holds,
    assert_nothing_remains,
    make_foreign,
    result_of,
    wait_for_share,
    where,
    written,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import YES, Outcome, playbook, start_playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan

pytestmark = pytest.mark.skipif(not isolated(), reason="laptops need network namespaces and loop devices, and so root")


@pytest.fixture(scope="module", name="lab")
def fixture_lab(survival_plan: Plan) -> Iterator[Lab]:
    with running_lab(survival_plan, laptops=3) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("store") / "passed-on.img.zst"
    outcome = playbook(lab, "capture", *where(image))
    assert outcome.status == 0, outcome.stdout
    return image


def results(lab: Lab, outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.status == 0, outcome.stdout
    return [result_of(outcome, laptop.name) for laptop in lab.targets]


def sent(found: list[dict[str, Any]]) -> int:
    return sum(each["sent_bytes"] for each in found)


@pytest.mark.parametrize("transport", ["tcp", "ssh"])
def test_the_controller_sends_about_one_image_and_nothing_to_equal_laptops(
    lab: Lab, image: Path, transport: str
) -> None:
    arguments = (*where(image), *YES, "-e", f"imaging_transport={transport}")
    for laptop in lab.targets:
        make_foreign(laptop)
    found = results(lab, playbook(lab, "restore", *arguments))
    assert [each["verified"] for each in found] == [True] * 3
    for laptop in lab.targets:
        assert_holds(image, Path(laptop.disk))
    assert sent(found) < 1.2 * found[0]["stored_bytes"]
    # Two of the three laptops took all of it from others, and each byte that was taken was passed on.
    assert sum(each["frame_bytes"]["peers"] for each in found) > 1.8 * found[0]["stored_bytes"]
    assert sum(each["passed_on"] for each in found) >= sum(each["frame_bytes"]["peers"] for each in found)
    assert sorted(len(each["taken_from"]) for each in found)[1:] != [0, 0]
    assert_nothing_remains(lab)
    found = results(lab, playbook(lab, "restore", *arguments))
    assert [each["changed"] for each in found] == [False] * 3
    assert [each["frame_bytes"]["peers"] + each["frame_bytes"]["controller"] for each in found] == [0] * 3


def test_off_has_each_laptop_take_all_from_the_controller(lab: Lab, image: Path) -> None:
    for laptop in lab.targets:
        make_foreign(laptop)
    found = results(lab, playbook(lab, "restore", *where(image), *YES, "-e", "imaging_relay=off"))
    assert all(each["verified"] and each["frame_bytes"]["peers"] == 0 for each in found)
    assert sent(found) > 2.8 * found[0]["stored_bytes"]


def test_one_of_three_laptops_is_switched_off(lab: Lab, image: Path) -> None:
    for laptop in lab.targets:
        make_foreign(laptop)
    laptop = lab.targets[0]
    before = written(laptop.disk)
    running = start_playbook(lab, "restore", *where(image), *YES, environment=SHORT)
    wait_for_share(laptop.disk, image, 0.4, before, running)
    laptop.power_off()
    outcome = running.wait()
    assert list(outcome.failures()) == [laptop.name], outcome.failures()
    others = [result_of(outcome, other.name) for other in lab.targets[1:]]
    assert [each["verified"] for each in others] == [True, True]
    for other in lab.targets[1:]:
        assert_holds(image, Path(other.disk))
