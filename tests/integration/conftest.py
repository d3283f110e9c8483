# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab that the integration tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.labs import (
    DISK_SIZE,
    LINK_MBIT,
    reference_disk,
    running_lab,
    small_plan,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.reference_disk import MIN_SIZE

LONGEST = (
    "test_survival_processes.py",
    "test_ssh.py",
    "test_relay.py",
    "test_bad_input.py",
    "test_main_road.py",
    "test_equal.py",
    "test_safety.py",
    "test_survival_links.py",
    "test_survival_disks.py",
    "test_uefi.py",
    "test_fitness.py",
    "test_sizes.py",
    "test_import_export.py",
    "test_by_hand.py",
    "test_stores.py",
    "test_progress.py",
    "test_probe.py",
    "test_noisy_shells.py",
    "test_report.py",
    "test_release.py",
    "test_random_kills.py",
    "test_consistency.py",
    "test_disk_states.py",
    "test_copies.py",
    "test_disks.py",
    "test_grow.py",
    "test_lab.py",
    "test_fitness_linux.py",
    "test_fitness_disks.py",
    "test_file_trees.py",
    "test_owners.py",
    "test_signatures.py",
)
"""Files that take more than half a minute, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker of pytest is left alone with one of them in the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", name="references")
def fixture_references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for references' disks, which all workers of pytest share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def fixture_packed_modules(references: Path) -> None:
    """Have all playbooks use the packages of modules that the first of them makes, see callback_plugins/json_lines.py."""
    os.environ["FLEET_IMAGING_TEST_MODULES"] = str(references / "modules")


@pytest.fixture(scope="session")
def plan(references: Path) -> Plan:
    """The plan of a small lab, for tests that bring up their own: running_lab(plan, laptops=1)."""
    return small_plan(reference_disk(references, DISK_SIZE))


@pytest.fixture(scope="session")
def tiny_plan(references: Path) -> Plan:
    """The plan of a lab whose disks are as small as a reference's can be, for tests in which their size is not the point."""
    return replace(small_plan(reference_disk(references, MIN_SIZE)), disk_size=MIN_SIZE, reference_size=MIN_SIZE)


@pytest.fixture(scope="session")
def aged_plan(plan: Plan, references: Path) -> Plan:
    """The plan of a small lab whose reference was in use for long."""
    return replace(plan, reference_image=reference_disk(references, DISK_SIZE, aged=True))


@pytest.fixture(scope="session")
def survival_plan(plan: Plan) -> Plan:
    """The plan of a lab whose disks and links are such that a transfer takes some seconds."""
    return replace(plan, link_mbit=LINK_MBIT)


@pytest.fixture(scope="session")
def lab(plan: Plan) -> Iterator[Lab]:
    """A lab with a reference and two laptops. Whoever changes more than the laptops' disks takes one of their own."""
    with running_lab(plan) as shared:
        yield shared


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty image store."""
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    return folder
