# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main road without namespaces and loop devices: regular files as disks, and a port that the kernel chooses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ansible_collections.fleet.imaging.tests.integration.labs import running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import ROOT, playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Plan


def test_capture_restore_and_verify_with_regular_files(plan: Plan, tmp_path: Path) -> None:
    with running_lab(plan, isolated=False) as lab:
        where = ("-e", f"imaging_store={tmp_path / 'store'}", "-e", "imaging_image=files")
        captured = playbook(lab, "capture", *where)
        assert captured.status == 0, captured.stdout
        (result,) = captured.of("image_capture")
        # Root can still map the partitions of a file; who can't reads all of it but for its holes.
        assert result.result["bytes_read"] < lab.reference.size * 0.7
        restored = playbook(lab, "restore", *where, "-e", "imaging_confirm_erase=true")
        assert restored.status == 0, restored.stdout
        for laptop in lab.targets:
            assert restored.of("image_restore", laptop.name)[0].result["verified"] is True
        assert playbook(lab, "verify", *where).status == 0
        disks = [f"{laptop.name}={laptop.disk}" for laptop in lab.laptops]
        subprocess.run([sys.executable, ROOT / "tests/tools/compare_disks.py", *disks], check=True)
