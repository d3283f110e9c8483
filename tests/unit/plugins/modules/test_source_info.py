# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import DISK_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.modules import source_info

from .results import printed


def ended(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, Any]:
    """The result that the module prints."""
    return printed(source_info.main, {"device": str(path)}, capsys)


def test_what_speaks_against_a_capture_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk").write_bytes(b"LUKS\xba\xbe\x00\x01aes".ljust(1 << 20, b"\0"))
    result = ended(capsys, tmp_path / "disk")
    assert (result["changed"], result["boot_mode"], result["systems"]) == (False, "unknown", [])
    assert [finding["name"] for finding in result["findings"]] == ["encrypted"]
    assert [facts["content"] for facts in result["partitions"]] == ["crypto_LUKS"]


def test_a_module_leaves_the_shared_arguments_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """AnsibleModule completes a dictionary with suboptions in place, also one that is a default."""
    before = copy.deepcopy(DISK_ARGUMENTS)
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    ended(capsys, tmp_path / "disk")
    assert before == DISK_ARGUMENTS


def test_what_was_not_looked_into_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk").write_bytes(b"unknown " * (1 << 17))
    with patch_module_args({"device": str(tmp_path / "disk")}), pytest.raises(SystemExit):
        source_info.main()
    said = capsys.readouterr()
    assert json.loads(said.out)["findings"] == []
    # In a process that has loaded Ansible's controller a module's warnings go to the terminal.
    assert "the disk as a whole (unknown)" in " ".join((said.out + said.err).split())
