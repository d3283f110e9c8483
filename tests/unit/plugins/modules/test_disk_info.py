# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.modules import disk_info

from .results import printed


def ended(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    """The result that the module prints."""
    return printed(disk_info.main, arguments, capsys)


def test_a_file_is_described_and_selected_when_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    result = ended(capsys, device=str(tmp_path / "disk"), purpose="target")
    assert result["changed"] is False
    assert result["selected"] == result["disks"][0]
    assert (result["selected"]["kind"], result["selected"]["size"]) == ("file", 1 << 20)
    assert result["selected"]["target_refusals"] == []


def test_nothing_is_selected_without_a_purpose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk").write_bytes(bytes(1000))
    result = ended(capsys, device=str(tmp_path / "disk"))
    assert "selected" not in result
    assert "1000 bytes" in result["disks"][0]["source_refusals"][0]["message"]


def test_a_refusal_is_a_failure_that_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk").write_bytes(bytes(1000))
    result = ended(capsys, device=str(tmp_path / "disk"), purpose="source")
    assert result["failed"] is True
    assert "can't be captured: It has 1000 bytes" in result["msg"]
    assert result["codes"] == ["bad_size"]


def test_every_value_that_is_returned_is_documented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml", reason="a laptop has no YAML")
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    result = ended(capsys, device=str(tmp_path / "disk"), purpose="source")
    documented = yaml.safe_load(disk_info.RETURN)
    for name in ("selected", "disks"):
        assert set(documented[name]["contains"]) == set(result["disks"][0])
