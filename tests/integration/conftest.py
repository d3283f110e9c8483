# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab that the integration tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab, small_plan
from ansible_collections.fleet.imaging.tests.lab.lab import UDEV_SECONDS, Lab, Plan


@pytest.fixture(scope="session")
def reference_image() -> Iterator[Path]:
    """The path of a prepared reference disk, made by the first lab that is up and copied by all others."""
    with tempfile.TemporaryDirectory(prefix="fleet-reference-", dir="/var/tmp") as folder:
        yield Path(folder, "reference.img")


@pytest.fixture(scope="session")
def plan(reference_image: Path) -> Plan:
    """The plan of a small lab, for tests that bring up their own: running_lab(plan, laptops=1)."""
    return small_plan(reference_image)


@pytest.fixture(scope="session")
def survival_plan() -> Iterator[Plan]:
    """The plan of a lab whose disks and links are such that a transfer takes some seconds."""
    with tempfile.TemporaryDirectory(prefix="fleet-reference-", dir="/var/tmp") as folder:
        size = 512 << 20
        yield Plan(
            2,
            size,
            size,
            isolated(),
            link_mbit=100,
            reference_image=Path(folder, "small.img"),
            udev_seconds=UDEV_SECONDS,
        )


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
