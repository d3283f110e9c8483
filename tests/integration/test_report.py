# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report that a run leaves in the store."""

from __future__ import annotations

import html
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.faults import wait_for_share, written
from ansible_collections.fleet.imaging.tests.integration.labs import running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import YES, Outcome, newest, playbook, start_playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan


@pytest.fixture(scope="module", name="lab")
def fixture_lab(plan: Plan) -> Iterator[Lab]:
    with running_lab(plan, link_mbit=200) as lab:
        yield lab


@pytest.fixture(scope="module", name="shelf")
def fixture_shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store", numbered=True) / "images"


@pytest.fixture(scope="module", name="captured")
def fixture_captured(lab: Lab, shelf: Path) -> Outcome:
    return playbook(lab, "capture", "-e", f"imaging_store={shelf}", "-e", "imaging_image=reported")


def test_a_capture_leaves_a_report(shelf: Path, captured: Outcome) -> None:
    assert captured.status == 0, captured.stdout
    page, data = newest(shelf, "capture")
    assert (shelf / "reports").stat().st_mode & 0o777 == 0o700
    assert sorted(path.suffix for path in (shelf / "reports").iterdir()) == [".html", ".json"]
    assert f"Report: {shelf / 'reports'}" in captured.stdout
    (entry,) = data["laptops"]
    result = captured.of("image_capture")[0].result
    assert (data["level"], data["image"], entry["state"]) == ("good", "reported", "captured")
    assert {name: entry[name] for name in ("used_bytes", "sent_bytes", "root_digest")} == {
        name: result[name] for name in ("used_bytes", "sent_bytes", "root_digest")
    }
    assert "reference-01: captured." in page


def test_a_laptop_that_failed_is_first_and_says_why(lab: Lab, shelf: Path, captured: Outcome, tmp_path: Path) -> None:
    assert captured.status == 0, captured.stdout
    good, bad = lab.targets
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(json.dumps({"all": {"hosts": {bad.name: {"imaging_disk": "/dev/<not-there>"}}}}))
    outcome = playbook(lab, "restore", "-i", wrong, "-e", f"imaging_store={shelf}", *YES)
    page, data = newest(shelf, "restore")
    assert data["verdict"] == "1 of 2 laptops restored and verified; 1 failed."
    assert [(entry["host"], entry["verified"]) for entry in data["laptops"]] == [(bad.name, False), (good.name, True)]
    (failure,) = data["laptops"][0]["failures"]
    assert failure["message"] == outcome.failures()[bad.name] and "/dev/<not-there>" in failure["message"]
    assert html.escape(failure["message"]) in page
    assert page.index(html.escape(failure["message"])) < page.index("restored and verified</span>")


def test_a_comparison_that_finds_a_difference(lab: Lab, shelf: Path, captured: Outcome) -> None:
    assert captured.status == 0, captured.stdout
    outcome = playbook(lab, "verify", "-l", lab.targets[1].name, "-e", f"imaging_store={shelf}")
    assert outcome.status != 0
    page, data = newest(shelf, "verify")
    (entry,) = data["laptops"]
    assert (entry["state"], entry["verified"], entry["unreachable"]) == ("not equal", False, False)
    assert entry["failures"][0]["message"] in html.unescape(page)


def test_a_run_that_is_interrupted_says_so(lab: Lab, shelf: Path, captured: Outcome) -> None:
    assert captured.status == 0, captured.stdout
    if not lab.reference.isolated:
        pytest.skip("without loop devices it is not known how far a restore is")
    laptop = lab.targets[1]
    before = written(laptop.disk)
    arguments = ("-e", f"imaging_store={shelf}", "-e", "imaging_rewrite=true", *YES)
    running = start_playbook(lab, "restore", "-l", laptop.name, *arguments)
    wait_for_share(laptop.disk, shelf / "reported.img.zst", 0.2, before, running)
    os.killpg(running.process.pid, signal.SIGINT)
    outcome = running.wait(60)
    assert "Report: " in outcome.stdout and "Traceback" not in outcome.stdout + outcome.stderr
    page, data = newest(shelf, "restore")
    assert data["interrupted"] is True and data["laptops"][0]["host"] == laptop.name
    assert (data["laptops"][0]["level"], data["laptops"][0]["state"]) == ("bad", "broken off")
    assert "Interrupted." in page


def test_without_a_report(lab: Lab, shelf: Path, captured: Outcome) -> None:
    assert captured.status == 0, captured.stdout
    before = os.listdir(shelf / "reports")
    outcome = playbook(
        lab, "verify", "-l", lab.targets[0].name, "-e", f"imaging_store={shelf}", "-e", "imaging_report=false"
    )
    assert outcome.of("image_restore")
    assert os.listdir(shelf / "reports") == before
    assert "Report: " not in outcome.stdout


def test_a_report_that_cannot_be_written_is_a_warning(lab: Lab, shelf: Path, captured: Outcome, tmp_path: Path) -> None:
    assert captured.status == 0, captured.stdout
    store = tmp_path / "store"
    store.mkdir()
    os.link(shelf / "reported.img.zst", store / "reported.img.zst")
    (store / "reports").write_text("in the way")
    outcome = playbook(lab, "restore", "-l", lab.targets[0].name, "-e", f"imaging_store={store}", *YES)
    assert outcome.status == 0, outcome.stdout
    assert f"No report was written to {store}/reports: File exists." in " ".join(outcome.stderr.split())
