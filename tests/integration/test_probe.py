# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A forecast changes nothing, leaves nothing, and names what limits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.faults import assert_nothing_remains
from ansible_collections.fleet.imaging.tests.integration.labs import LINK_MBIT, isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import CAPTURE_ONE, Outcome, playbook, stored
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan

pytestmark = pytest.mark.skipif(not isolated(), reason="limited links need namespaces, and so root")

NAME = "probed"
FAST_ETHERNET = 12.5e6


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tiny_plan: Plan) -> Iterator[Lab]:
    with running_lab(tiny_plan, link_mbit=LINK_MBIT) as lab:
        yield lab


def digests(lab: Lab) -> list[str]:
    """What the laptops' disks hold."""
    found = []
    for laptop in lab.laptops:
        with open(laptop.backing_file, "rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


def told(outcome: Outcome) -> list[str]:
    """The lines that the last task says."""
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    lines: list[str] = outcome.of("debug")[-1].result["msg"]
    return lines


def test_a_forecast(lab: Lab, store: Path) -> None:
    before = digests(lab)
    where = ("-e", f"imaging_store={store}")

    # Without an image only a capture is forecast.
    outcome = playbook(lab, "probe", *where)
    lines = told(outcome)
    assert f"A restore is not forecast: there is no image in {store} yet." in lines
    assert [found.host for found in outcome.of("image_probe")] == ["reference-01"]
    (capture,) = outcome.of("image_probe", "reference-01")
    assert capture.result["rates"]["link"] < FAST_ETHERNET
    assert os.listdir(store) == []

    taken = playbook(lab, CAPTURE_ONE, "-l", "reference", *where, "-e", f"imaging_image={NAME}")
    assert taken.status == 0, taken.stdout
    (captured,) = taken.of("image_capture")
    assert capture.result["used_bytes"] == captured.result["used_bytes"]
    assert 0.7 < capture.result["sent_bytes"] / captured.result["sent_bytes"] < 1.3

    outcome = playbook(lab, "probe", *where)
    lines = told(outcome)
    assert lines[0].split()[:3] == ["HOST", "DISK", "READ"]
    heads = ["WHAT", "HOST", "OF", "USED", "SENT", "TAKES", "LIMITED"]
    assert any(line.split()[:7] == heads for line in lines)
    assert any(line.startswith("All 2 laptops are expected to be restored") for line in lines)
    for laptop in lab.targets:
        (found,) = outcome.of("image_probe", laptop.name)
        result = found.result
        assert not result["changed"]
        assert result["device"] == laptop.disk
        assert result["rates"]["link"] < FAST_ETHERNET
        assert result["alone"]["limit"] == "network"
        assert result["alone"]["resources"]["network"] == pytest.approx(
            result["sent_bytes"] / result["rates"]["link"], rel=0.25
        )
        assert result["rates"]["write"] in (
            result["rates"]["read"],
            pytest.approx(result["rates"]["read"] / 2, rel=0.01),
        )
        assert "A network twice as fast would help most" in result["alone"]["advice"]
        # The laptops pass the image on.
        assert result["together"] == result["alone"]
        assert result["all_sent_bytes"] == result["sent_bytes"]
        assert any(line.startswith(f"restore of {laptop.name}: A network twice") for line in lines)
        assert any(f"{laptop.disk}" in line and "MB/s" in line for line in lines)
        assert any(laptop.name in line and line.endswith("network") for line in lines)

    assert digests(lab) == before
    assert stored(store) == [f"{NAME}.img.zst"]
    assert_nothing_remains(lab)


def test_a_disk_in_use_is_forecast_whole(lab: Lab, store: Path) -> None:
    reference = lab.reference
    reference.run(["sh", "-c", 'mkdir -p "$1" && mount -o ro "$2" "$1"', "sh", "/run/looked", f"{reference.disk}p3"])
    try:
        outcome = playbook(lab, "probe", "-l", reference.name, "-e", f"imaging_store={store}", "--check")
    finally:
        reference.run(["umount", "/run/looked"])
    told(outcome)
    (found,) = outcome.of("image_probe")
    assert found.result["used_bytes"] == found.result["disk_size"] == reference.size
    assert any("is in use" in warning and "/run/looked" in warning for warning in found.result["warnings"])
    assert f"Assumed: all of {reference.disk} is captured." in found.result["notes"]
    assert_nothing_remains(lab)


def test_an_image_that_is_not_there_and_one_of_several(lab: Lab, store: Path) -> None:
    image = ("-l", "lab-01", "-e", f"imaging_store={store}", "-e", "imaging_image=missing")
    assert told(playbook(lab, "probe", *image)) == [f"A restore is not forecast: there is no image in {store} yet."]
