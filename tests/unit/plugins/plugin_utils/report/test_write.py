# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a report is put."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.report.summary import summary
from ansible_collections.fleet.imaging.plugins.plugin_utils.report.write import write_report

from .runs import fleet

WHEN = datetime(2026, 11, 26, 4, 36, 16, tzinfo=UTC)
REPORT = summary(fleet(1))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_report_is_a_page_and_its_data(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    previous = os.umask(0)
    try:
        path = write_report(str(store), REPORT, WHEN)
    finally:
        os.umask(previous)
    assert path == f"{store}/reports/2026-11-26T04-36-16Z-restore.html"
    page, data = Path(path), Path(path).with_suffix(".json")
    assert json.loads(data.read_text()) == REPORT
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert [mode(path) for path in (store / "reports", page, data)] == [0o700, 0o600, 0o600]
    assert sorted(os.listdir(store / "reports")) == [data.name, page.name][::-1]


def test_reports_of_one_second_do_not_replace_each_other(tmp_path: Path) -> None:
    paths = [write_report(str(tmp_path), REPORT, WHEN) for _time in range(3)]
    names = [os.path.basename(path) for path in paths]
    assert names == [f"2026-11-26T04-36-16Z-restore{end}.html" for end in ("", "-2", "-3")]
    assert len(os.listdir(tmp_path / "reports")) == 6


def test_a_report_that_is_being_written_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / ".2026-11-26T04-36-16Z-restore.json.partial").touch()
    (tmp_path / "reports" / "2026-11-26T04-36-16Z-restore-2.html").symlink_to("nowhere")
    assert write_report(str(tmp_path), REPORT, WHEN).endswith("-restore-3.html")


@pytest.mark.parametrize("name", ["../../etc/x", "a b\x00\n", "", "ü" * 300])
def test_the_name_of_a_playbook_leads_nowhere(tmp_path: Path, name: str) -> None:
    path = Path(write_report(str(tmp_path), {**REPORT, "playbook": name}, WHEN))
    assert path.parent == tmp_path / "reports" and path.exists()


def test_what_can_not_be_written_is_not_left_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*dummy: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(str(tmp_path), REPORT, WHEN)
    assert os.listdir(tmp_path / "reports") == []


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_report(str(tmp_path / "mistyped"), REPORT, WHEN)
    assert caught.value.filename == str(tmp_path / "mistyped/reports")
    assert os.listdir(tmp_path) == []


def test_something_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "reports").touch()
    with pytest.raises(OSError) as caught:
        write_report(str(tmp_path), REPORT, WHEN)
    assert caught.value.filename == str(tmp_path / "reports")
