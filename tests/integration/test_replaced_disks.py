# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that took the place of the selected one, between two steps of a run, is touched by no step."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import describe
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import look_at
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    START,
    attached,
    needs,
    needs_loop_devices,
    part,
    partitioned,
)
from ansible_collections.fleet.imaging.tests.integration.test_uefi import DEBIAN, fill
from ansible_collections.fleet.imaging.tests.unit.plugins.modules.results import printed

pytestmark = needs_loop_devices

STEPS = ("disk_release", "source_info", "uefi_boot", "partition_grow")
"""The modules that work on the disk beside a transfer, in an order in which each has something to do."""

ESP, DATA = 40 * MIB, 20 * MIB


@pytest.fixture(scope="module", name="pair")
def fixture_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two disks with the same content: an EFI system partition without a fallback loader, an ext4, and room behind that."""
    needs("mcopy", "mmd", "mkfs.fat", "mkfs.ext4", "resize2fs")
    folder = tmp_path_factory.mktemp("pair")
    disk = folder / "selected"
    with open(disk, "wb") as file:
        file.truncate(100 * MIB)
    partitioned(disk, f"label: gpt\nstart={START // 512}, size={ESP // 512}, type=uefi\nsize={DATA // 512}\n")
    for start, size, make in (
        (START, ESP, ["mkfs.fat", "-F", "32"]),
        (START + ESP, DATA, ["mkfs.ext4", "-q", "-F"]),
    ):
        with attached(disk, *part(start, size)) as device:
            subprocess.run([*make, device], check=True, capture_output=True)
    fill(folder, disk, START, DEBIAN)
    shutil.copy(disk, folder / "other")
    return disk, folder / "other"


@pytest.fixture(name="mounted")
def fixture_mounted(pair: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Path, dict[str, Any], Path]]:
    """A path that leads to a disk of which the second partition is mounted, what the disk is recognised by to which it led before, and where."""
    path, mount_point = tmp_path / "disk", tmp_path / "mnt"
    mount_point.mkdir()
    with attached(pair[0]) as selected, attached(pair[1], "--partscan") as other:
        path.symlink_to(selected)
        expect = look_at(describe(RUN, str(path)))
        path.unlink()
        path.symlink_to(other)
        subprocess.run(["partx", "--update", other], check=True)
        subprocess.run(["mount", f"{other}p2", mount_point], check=True)
        try:
            yield path, expect, mount_point
        finally:
            subprocess.run(["umount", mount_point], check=False, capture_output=True)


def ended(capsys: pytest.CaptureFixture[str], name: str, path: Path, expect: Mapping[str, Any]) -> dict[str, Any]:
    """The result that a module prints."""
    module = importlib.import_module(f"ansible_collections.fleet.imaging.plugins.modules.{name}")
    return printed(module.main, {"device": str(path), "expect": dict(expect)}, capsys)


def test_no_step_touches_a_disk_that_took_the_place_of_another(
    mounted: tuple[Path, dict[str, Any], Path], pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the kernel's count of disks tells these two from one another."""
    path, expect, mount_point = mounted
    found = look_at(describe(RUN, str(path)))
    if not found["diskseq"]:
        pytest.skip("this kernel counts no disks, which Linux does since 5.15")
    assert dict(expect, diskseq=found["diskseq"]) == found
    before = pair[1].read_bytes()
    for name in STEPS:
        result = ended(capsys, name, path, expect)
        assert result.get("failed"), (name, result)
        assert "is not the disk that was selected: its diskseq was" in result["msg"], (name, result)
        assert "It was not touched." in result["msg"]
    assert mount_point.is_mount()
    assert pair[1].read_bytes() == before
    # And with what this one is recognised by each does its work.
    for name in STEPS:
        result = ended(capsys, name, path, found)
        assert not result.get("failed"), (name, result)
        assert result["changed"] is (name != "source_info"), (name, result)
    assert not mount_point.is_mount()
