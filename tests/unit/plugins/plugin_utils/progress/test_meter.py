# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer's reports come to, of transfers that were made up second by second."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import COMPARING, STREAMING, VERIFYING, Status
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.history import MAX_POINTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import (
    LIMITS,
    NETWORK,
    STORE,
    STORE_SERVER,
    TARGET_READ,
    TARGET_WRITE,
    AdviceContext,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter

MB = 1_000_000


class Ends:
    """Both ends of a transfer, and their clocks."""

    def __init__(self, total: int, frames: int | None = None, capturing: bool = False) -> None:
        self.now = 100.0
        self.wire = 0
        self.total = total
        self.laptop: dict[str, dict[str, float]] = {}
        self.controller: dict[str, dict[str, float]] = {}
        self.status = Status(STREAMING, 0, total, 0, total, 0.0, self.laptop, workers=2, processors=2)
        self.meter = Meter(self, lambda: self.wire, capturing, frames, clock=lambda: self.now)  # type: ignore[arg-type]

    def stages(self) -> dict[str, dict[str, float]]:
        return {name: dict(times) for name, times in self.controller.items()}

    def pass_by(self, seconds: float, done: int, wire: int = 0, there: Any = (), **laptop: float) -> None:
        """Let time pass, of which each stage was busy for a share; with "waiting" it was not."""
        self.now += seconds
        self.wire += wire
        for times, busy in ((self.laptop, laptop), (self.controller, dict(there))):
            for name, share in busy.items():
                entry = times.setdefault(name.replace("_", " "), {"busy": 0.0, "wait": 0.0, "cpu": 0.0})
                entry["busy"] += share * seconds
                entry["wait"] += (1 - share) * seconds
        written = self.status.written + (done if self.status.phase == STREAMING else 0)
        now = self.status.done + done
        data = now if self.status.phase == STREAMING else self.status.data_done
        self.status = replace(
            self.status, done=now, data_done=data, seconds=self.status.seconds + seconds, written=written
        )
        self.meter.update(self.status.pack())

    def enter(self, phase: str, total: int) -> None:
        self.status = replace(self.status, phase=phase, done=0, total=total)


def test_nothing_is_said_before_the_first_report() -> None:
    ends = Ends(100 * MB)
    assert ends.meter.reading("lab-01") is None
    assert ends.meter.limits() == {} and ends.meter.verdict(AdviceContext()) is None


def test_rates_and_the_end_of_a_steady_restore_with_its_read_back() -> None:
    ends = Ends(1000 * MB, frames=500 * MB)
    for second in range(50):
        ends.pass_by(1, 10 * MB, 5 * MB, {"send": 0.95, "read store": 0.02}, receive=0.95, write=0.2, decompress=0.1)
        reading = ends.meter.reading("lab-01")
        assert reading is not None
        if second > 2:
            left = 1000 - 10 * (second + 1)
            # Read back at the rate of the writing: 0.2 s for 10 MB.
            assert reading.eta == pytest.approx(left / 10 + 1000 / 50, rel=0.02)
            assert reading.now == pytest.approx(10 * MB) and reading.mean == pytest.approx(10 * MB)
            assert (reading.limit, round(reading.share, 2)) == (NETWORK, 0.95)
            assert reading.whole == pytest.approx((second + 1) / 200, rel=0.02)
    assert ends.meter.limits() == {NETWORK: 1.0}
    verdict = ends.meter.verdict(AdviceContext(laptops=3))
    assert verdict is not None and verdict["limit"] == NETWORK and verdict["share"] == 0.95
    assert "5.0 MB/s came through" in str(verdict["advice"]) and "3 laptops share" in str(verdict["advice"])


def test_the_looks_before_tell_how_long_the_read_back_takes() -> None:
    ends = Ends(1000 * MB)
    ends.status = replace(ends.status, scanned=100 * MB)
    ends.laptop["read"] = {"busy": 2.0, "wait": 0.0, "cpu": 0.0}
    for _second in range(5):
        ends.pass_by(1, 100 * MB, write=0.9, receive=0.1)
    reading = ends.meter.reading("lab-01")
    assert reading is not None and reading.eta == pytest.approx(5 + 1000 / 50, rel=0.05)


def test_what_compresses_unlike_the_rest_does_not_mislead_when_the_link_limits() -> None:
    """The first half is 20 MB/s of used bytes at 5 MB/s on the wire, the second half 5 MB/s at the same: by bytes sent the end is known."""
    ends = Ends(1000 * MB, frames=125 * MB + 500 * MB)
    for _second in range(20):
        ends.pass_by(1, 20 * MB, 5 * MB, {"send": 0.95}, receive=0.95, write=0.0)
    reading = ends.meter.reading("lab-01")
    assert reading is not None and reading.eta == pytest.approx((625 - 100) / 5, rel=0.05)


def test_a_phase_has_rates_and_limits_of_its_own() -> None:
    ends = Ends(100 * MB)
    for _second in range(10):
        ends.pass_by(1, 10 * MB, write=0.98, receive=0.1)
    ends.enter(VERIFYING, 100 * MB)
    for _second in range(5):
        ends.pass_by(1, 20 * MB, read=0.97, compare=0.2)
        reading = ends.meter.reading("lab-01")
    assert reading is not None
    assert (reading.state, reading.limit) == (VERIFYING, TARGET_READ) and reading.now == pytest.approx(20 * MB)
    assert reading.eta == pytest.approx(0, abs=0.1) and reading.whole == 1.0
    limits = ends.meter.limits()
    assert set(limits) == {TARGET_WRITE, TARGET_READ} and sum(limits.values()) == pytest.approx(1, abs=0.01)
    assert ends.meter.limited_by == TARGET_WRITE
    assert [phase for _at, _done, phase in ends.meter.timeline] == [STREAMING] * 10 + [VERIFYING] * 5


def test_a_comparison_is_told_by_what_was_looked_at() -> None:
    ends = Ends(100 * MB)
    ends.enter(COMPARING, 100 * MB)
    for _second in range(4):
        ends.pass_by(1, 20 * MB, read=0.97, compare=0.5)
    reading = ends.meter.reading("lab-01")
    assert reading is not None and reading.eta == pytest.approx(1, rel=0.05) and reading.whole == pytest.approx(0.8)
    ends.status = replace(ends.status, scanned=80 * MB)
    ends.meter.update(ends.status.pack())
    verdict = ends.meter.verdict(AdviceContext())
    assert verdict is not None and "comparing goes at the 21 MB/s that the disk gives" in str(verdict["advice"])


def test_a_long_run_keeps_few_points_and_every_change_of_phase() -> None:
    ends = Ends(10000 * MB)
    for _second in range(2000):
        ends.pass_by(1, MB, write=0.9, receive=0.1)
    ends.enter(VERIFYING, 100 * MB)
    for _second in range(500):
        ends.pass_by(1, MB // 10, read=0.9)
    timeline = ends.meter.timeline
    assert MAX_POINTS <= len(timeline) <= 2 * MAX_POINTS + 4
    assert [at for at, _done, _phase in timeline] == sorted(at for at, _done, _phase in timeline)
    phases = [phase for _at, _done, phase in timeline]
    assert phases == sorted(phases) and timeline[-1][0] == pytest.approx(2500, abs=1)
    last = max(at for at, _done, phase in timeline if phase == STREAMING)
    assert last == pytest.approx(2000, abs=1)


def test_work_that_is_not_finished_is_waited_for_before_a_limit_is_told() -> None:
    """On a slow link a chunk takes longer than the time between two reports, and is accounted for when it is through."""
    ends = Ends(100 * MB)
    for _second in range(3):
        ends.pass_by(1, 0)
    assert ends.meter.limits() == {}
    reading = ends.meter.reading("lab-01")
    assert reading is not None and reading.limit == ""
    ends.laptop["receive"] = {"busy": 3.8, "wait": 0.1, "cpu": 0.0}
    ends.controller["send"] = {"busy": 3.9, "wait": 0.0, "cpu": 0.0}
    ends.pass_by(1, 4 * MB)
    assert ends.meter.limits() == {NETWORK: 1.0}


def test_reports_that_come_in_all_at_once_are_told_from_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store takes nothing, the laptop's reports wait behind its data; what the controller then does at once is not its limit."""
    cpu = 0.0
    monkeypatch.setattr("time.process_time", lambda: cpu)
    ends = Ends(100 * MB, capturing=True)
    for _second in range(2):
        ends.pass_by(1, 10 * MB, 0, {"store": 0.6}, read=0.2, send=0.5)
    told = ends.meter.limits()
    assert set(told) == {STORE}
    for there, here, worked in ((6.0, 1.4, 0.1), (0.2, 4.8, 0.2)):
        cpu += worked
        ends.now += there
        ends.controller["store"]["busy"] += there - worked
        ends.laptop["send"]["busy"] += here
        ends.status = replace(ends.status, seconds=ends.status.seconds + here)
        ends.meter.update(ends.status.pack())
        assert ends.meter.limits() == told


def test_the_last_report_comes_late_with_the_result() -> None:
    ends = Ends(100 * MB)
    ends.pass_by(0.1, 10 * MB, write=0.9, receive=0.1)
    for times in ends.laptop.values():
        times["busy"] += 0.5
    ends.status = replace(ends.status, seconds=ends.status.seconds + 0.6)
    ends.now += 4.0
    ends.meter.close(ends.status.pack().decode())
    assert ends.meter.limited_by == TARGET_WRITE


@pytest.mark.parametrize(("stage", "limit"), [("finish", STORE), ("upload", STORE_SERVER)])
def test_what_the_store_takes_after_a_capture_counts(stage: str, limit: str) -> None:
    ends = Ends(100 * MB, capturing=True)
    for _second in range(3):  # of which the first is charged to nothing
        ends.pass_by(1, 10 * MB, 0, {"store": 0.1}, read=0.9, send=0.1)
    ends.controller[stage] = {"busy": 8.0, "wait": 0.0, "cpu": 0.5}
    ends.meter.close(ends.status.pack().decode())
    verdict = ends.meter.verdict(AdviceContext())
    assert verdict is not None and verdict["limit"] == limit and ends.meter.limits()[limit] == 0.8
    assert ("upload" in str(verdict["explanation"])) == (stage == "upload")


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"phase":"dancing"}',
        Status(STREAMING, 1, 2, 1, 2, 1.0, {}).pack().replace(b'"done":1', b'"done":1e400'),
        Status(STREAMING, 1, 2, 1, 2, 1.0, {}).pack().replace(b'"done":1', b'"done":true'),
        Status(STREAMING, 1, 2, 1, 2, 1.0, {}).pack().replace(b'"seconds":1.0', b'"seconds":NaN'),
        Status(STREAMING, 1, 2, 1, 2, 1.0, {"read\x1b[2J": {}}).pack(),
        Status(
            STREAMING, 1, 2, 1, 2, 1.0, {f"stage {chr(97 + i // 26)}{chr(97 + i % 26)}": {} for i in range(99)}
        ).pack(),
    ],
)
def test_what_is_no_report_is_refused(report: bytes) -> None:
    with pytest.raises(ImagingError, match="reports its progress in a form that can't be read"):
        Ends(1).meter.update(report)


def test_reports_come_in_while_somebody_looks() -> None:
    """The one who shows them is another thread than the one that hears them, and must not fall over what changes meanwhile."""
    ends = Ends(1000000 * MB)
    ends.pass_by(1, MB, write=0.9)
    failures: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                ends.meter.reading("lab-01")
        except BaseException as error:
            failures.append(error)

    lookers = [threading.Thread(target=look) for dummy in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for looker in lookers:
            looker.start()
        for _second in range(500):
            ends.pass_by(0.1, MB, write=0.9)
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
        sys.setswitchinterval(before)
    assert not failures


def test_a_laptop_that_reports_nonsense_harms_nobody() -> None:
    ends = Ends(100 * MB)
    for done, total, seconds in ((5, 0, 1.0), (-5, -1, 0.5), (1 << 60, 1, 0.0)):
        ends.status = replace(
            ends.status, done=done, total=total, data_done=done, data_total=total, seconds=seconds, workers=0
        )
        ends.pass_by(1, 0, write=1.0)
        reading = ends.meter.reading("lab-01")
        assert reading is not None and 0 <= reading.share <= 1
    assert set(ends.meter.limits()) <= set(LIMITS)
