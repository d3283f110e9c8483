# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labs for tests."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ansible_collections.fleet.imaging.tests.lab.lab import UDEV_SECONDS, Lab, Plan, can_isolate
from ansible_collections.fleet.imaging.tests.lab.reference_disk import make_reference_disk

DISK_SIZE = 256 << 20
"""Bytes; a third of those of a reference are used."""

LINK_MBIT = 60
"""Mbit/s, at which a transfer of such a disk takes some seconds."""


def isolated() -> bool:
    """Return whether the tests' labs are isolated: if they can be, unless FLEET_IMAGING_TEST_ISOLATED is "no"."""
    return can_isolate() and os.environ.get("FLEET_IMAGING_TEST_ISOLATED") != "no"


def reference_disk(folder: Path, size: int, aged: bool = False) -> Path:
    """Return the path of a reference's disk of so many bytes in a folder; the first process that asks makes it, the others wait."""
    path = folder / f"reference-{size >> 20}{'-aged' if aged else ''}.img"
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            make_reference_disk(unfinished, size, Plan.used_share, aged)
            unfinished.rename(path)
    return path


def small_plan(reference_image: Path) -> Plan:
    """Return the plan of a reference and two laptops with small disks."""
    return Plan(
        laptops=2,
        disk_size=DISK_SIZE,
        reference_size=DISK_SIZE,
        isolated=isolated(),
        reference_image=reference_image,
        udev_seconds=UDEV_SECONDS,
    )


@contextmanager
def running_lab(plan: Plan, **changes: object) -> Iterator[Lab]:
    """Have a lab of this plan, with changes, up."""
    with lab_folder() as folder:
        lab = Lab(folder)
        try:
            lab.up(replace(plan, **changes))  # type: ignore[arg-type]
            yield lab
        finally:
            lab.down()


@contextmanager
def lab_folder() -> Iterator[Path]:
    """Have the path of a folder for a lab, which does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="fleet-test-", dir="/var/tmp") as folder:
        yield Path(folder, "lab")
