# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of an upload, as it is shown without the callback plugin."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.publisher import SOCKET
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.upload import Upload


@pytest.fixture(autouse=True)
def _no_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOCKET, raising=False)


def test_an_upload_is_shown_with_its_rate_and_the_time_left() -> None:
    now = 100.0
    upload = Upload("reference-01", print, lambda: now)
    with upload:
        upload.report(0, 400)
        assert (upload.event().done, upload.event().eta, upload.event().now) == (0, None, None)
        now = 110.0
        upload.report(100, 400)
        event = upload.event()
        assert (event.host, event.state, event.whole, event.now, event.eta) == (
            "reference-01",
            "uploading",
            0.25,
            10.0,
            30.0,
        )


def test_what_an_earlier_run_has_sent_does_not_count_for_the_rate() -> None:
    now = 100.0
    upload = Upload("reference-01", print, lambda: now)
    with upload:
        upload.report(300, 400)
        assert (upload.event().whole, upload.event().eta) == (0.75, None)
        now = 110.0
        upload.report(350, 400)
        assert (upload.event().now, upload.event().eta) == (5.0, 10.0)


def test_the_end_of_an_upload_is_shown() -> None:
    shown: list[str] = []
    with Upload("reference-01", shown.append) as upload:
        upload.report(0, 1 << 20)
        upload.report(1 << 20, 1 << 20)
    assert "reference-01" in shown[-1] and "100 %" in shown[-1] and "uploading" in shown[-1]


def test_without_an_upload_nothing_is_shown() -> None:
    shown: list[str] = []
    with Upload("reference-01", shown.append):
        pass
    assert shown == []
