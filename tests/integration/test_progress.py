# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees while transfers go on: in a real terminal, with real workers; mostly of transfers that do not take place."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    BIN,
    ROOT,
    RunningPlaybook,
    ansible_environment,
    playbook,
)
from ansible_collections.fleet.imaging.tests.integration.terminal import Terminal
from ansible_collections.fleet.imaging.tests.lab.lab import Plan

PLAYS = Path(__file__).parent / "plays"
BAR = re.compile(r"[#-]{8,}   *\d+ %")
COLOURS = re.compile(rb"\x1b\[[0-9;]+m")


def inventory(folder: Path, laptops: int) -> Path:
    """Laptops that are only names."""
    path = folder / "hosts.yml"
    names = "".join(f"    lab-{number:02}: {{}}\n" for number in range(1, laptops + 1))
    path.write_text(f"all:\n  vars: {{ansible_connection: local}}\n  hosts:\n{names}")
    return path


def command(hosts: Path, seconds: int, *arguments: str) -> list[str]:
    return [
        str(BIN / "ansible-playbook"),
        str(PLAYS / "pretend.yml"),
        "-i",
        str(hosts),
        "-e",
        f"pretend_seconds={seconds}",
        *arguments,
    ]


def environment(**changes: str) -> Mapping[str, str]:
    """For Ansible, with what pretends to transfer."""
    return {**ansible_environment(), "ANSIBLE_ACTION_PLUGINS": str(Path(__file__).parent / "action_plugins"), **changes}


def bars(terminal: Terminal) -> list[str]:
    """The rows with a bar that are on the screen."""
    return [row for row in terminal.rows() if BAR.search(row)]


def is_clean(terminal: Terminal) -> bool:
    """Whether nothing of the bars is left, on the screen and above, and the whole screen scrolls again."""
    bars = BAR.search(terminal.text()) or re.search(r"\d laptops  ", terminal.text())
    return not bars and terminal.screen.margins is None


@pytest.mark.parametrize("laptops", [1, 8, 40])
def test_bars_at_the_bottom_of_a_terminal(tmp_path: Path, laptops: int) -> None:
    hosts = inventory(tmp_path, laptops)
    with Terminal(command(hosts, 4, "-e", "pretend_slow=3"), environment(), str(ROOT / "playbooks")) as terminal:
        shown = min(laptops, 30 - 5 - 2) if laptops == 40 else laptops
        assert terminal.watch(lambda seen: len(bars(seen)) >= shown), terminal.text()
        terminal.watch(lambda seen: False, 1.5)
        rows = terminal.rows()
        bottom = rows[-(shown + (laptops > 1) + (laptops == 40)) :]
        assert all(BAR.search(row) for row in bottom[:shown]), rows
        assert all("212 MB/s" in row and "eta 0:0" in row and "network 94%" in row for row in bottom[:shown]), rows
        if laptops > 1:
            assert bottom[-1].startswith(f"{laptops} laptops")
            assert "MB/s" in bottom[-1] and "limited by: network 94%" in bottom[-1]
            assert bottom[0].startswith("lab-07"), "the slowest comes first"
        if laptops == 40:
            assert bottom[-2] == f"and {40 - shown} more"
        assert any("Transfer nothing" in row for row in rows[: -len(bottom)]), "Ansible's own output is above"
        if laptops > 7:
            # The others end before the slowest one: that is said above the bars, which go on.
            assert terminal.watch(lambda seen: "changed: [" in seen.text() and bool(bars(seen))), terminal.text()
        assert terminal.finish() == 0
        assert is_clean(terminal), terminal.text()
        text = terminal.text()
        assert [text.count(f"changed: [lab-{number:02}]") for number in range(1, laptops + 1)] == [1] * laptops
        assert text.index("Transfer nothing") < text.index("Say something after") < text.index("PLAY RECAP")


@pytest.fixture(name="temporary")
def short_folder() -> Iterator[Path]:
    """A folder whose path is so short that a socket can lie below it."""
    with tempfile.TemporaryDirectory(prefix="fleet-", dir="/var/tmp") as folder:
        yield Path(folder)


def test_ctrl_c_leaves_a_clean_terminal(tmp_path: Path, temporary: Path) -> None:
    own = environment(TMPDIR=str(temporary))
    with Terminal(command(inventory(tmp_path, 3), 60), own, str(ROOT / "playbooks")) as terminal:
        assert terminal.watch(lambda seen: len(bars(seen)) == 3), terminal.text()
        assert list(temporary.glob("fleet.imaging.scratch-*")), "what the bars are told by"
        terminal.enter("\x03")
        assert terminal.finish(30) not in (None, 0)
        assert is_clean(terminal), terminal.text()
    assert not list(temporary.glob("fleet.imaging.scratch-*"))


def test_a_terminal_that_changes_its_size(tmp_path: Path) -> None:
    with Terminal(command(inventory(tmp_path, 8), 9), environment(), str(ROOT / "playbooks"), 150, 30) as terminal:
        assert terminal.watch(lambda seen: len(bars(seen)) == 8), terminal.text()
        for columns, lines, shown in ((80, 12, 5), (60, 40, 8), (150, 24, 8)):
            terminal.resize(columns, lines)
            terminal.watch(lambda seen: False, 1.5)
            rows = terminal.rows()
            assert len(bars(terminal)) == shown, rows
            assert rows[lines - 1].startswith("8 laptops"), rows
            assert all(len(row) <= columns for row in rows)
            assert all(BAR.search(row) for row in rows[lines - 2 - shown + (shown == 8) : lines - 1 - (shown != 8)]), (
                rows
            )
        assert terminal.finish() == 0
        assert is_clean(terminal), terminal.text()


def test_colour_is_used_unless_it_is_not_wanted(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, 1)
    for nothing, wanted in (("", True), ("1", False)):
        own = {name: value for name, value in environment().items() if name != "ANSIBLE_NOCOLOR"}
        own.update({"NO_COLOR": "1"} if nothing else {})
        with Terminal(command(hosts, 2), own, str(ROOT / "playbooks")) as terminal:
            assert terminal.finish() == 0
        assert bool(COLOURS.search(terminal.raw)) == wanted


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    """They come while it goes on, at each tenth, and nothing of a terminal's is in them."""
    run = RunningPlaybook(command(inventory(tmp_path, 1), 6), ROOT / "playbooks", environment())  # type: ignore[arg-type]
    while run.process.poll() is None and not re.search(r"\b[1-5]\d %", run.stdout()):
        time.sleep(0.2)
    assert run.process.poll() is None, "the line came only at the end"
    outcome = run.wait()
    assert outcome.status == 0, outcome.stderr
    lines = [line for line in outcome.stdout.splitlines() if re.match(r"lab-01  .*%", line)]
    found = [int(line.split()[1]) for line in lines]
    assert found == sorted(found) and 8 <= len(found) <= 12, lines
    assert all(
        "of 12.0 GiB" in line and "mean 198 MB/s" in line and "limited by: network 94%" in line for line in lines
    )
    assert "\x1b" not in outcome.stdout


def test_without_the_callback_the_lines_come_through_ansible(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, 1)
    own = environment(ANSIBLE_CALLBACKS_ENABLED="ansible.posix.none")
    with Terminal(command(hosts, 4), own, str(ROOT / "playbooks")) as terminal:
        assert terminal.watch(
            lambda seen: re.search(r"^lab-01 +[1-6]\d %  .*network 94%", seen.text(), re.MULTILINE) is not None
        )
        assert terminal.finish() == 0
    assert not BAR.search(terminal.text())


@pytest.mark.skipif(not isolated(), reason="links can be slowed down only in an isolated lab, which needs root")
def test_a_real_capture_and_restore(survival_plan: Plan, store: Path) -> None:
    """Real figures, of real transfers over links that are slow enough for the bars to be seen, and their results say the same."""
    with running_lab(survival_plan) as lab:
        arguments = [
            "-i",
            str(lab.inventory),
            "-e",
            f"imaging_store={store}",
            "-e",
            "imaging_image=shown",
            "-e",
            "imaging_confirm_erase=true",
        ]
        for name, limit, laptops in (("capture", "reference", 1), ("restore", "lab_laptops", 2)):
            started = [str(BIN / "ansible-playbook"), f"{name}.yml", "-l", limit, *arguments]
            with Terminal(started, ansible_environment(), str(ROOT / "playbooks"), 160, 30) as terminal:
                assert terminal.watch(lambda seen: any("MB/s" in row for row in bars(seen))), terminal.text()
                row = next(row for row in bars(terminal) if "MB/s" in row)
                assert re.search(r"\d+ %  +\d+\.\d of \d+\.\d [MG]iB +[\d.]+ MB/s", row), row
                assert terminal.finish() == 0, terminal.text()
                assert is_clean(terminal), terminal.text()
                # A laptop that took from another one says so behind the rate.
                assert len(re.findall(r"MB/s(\"|  [0-9])", terminal.text())) == laptops
        outcome = playbook(
            lab, "verify", "-l", "lab_laptops", "-e", f"imaging_store={store}", "-e", "imaging_image=shown"
        )
        results = [result.result for result in outcome.of("image_restore")]
        assert len(results) == 2
        for result in results:
            assert result["limited_by"]["limit"] in ("target disk read", "target cpu (decompression, hashing)")
            assert result["limits"] and abs(sum(result["limits"].values()) - 1) < 0.01
            seconds = [point[0] for point in result["timeline"]]
            assert seconds == sorted(seconds) and result["timeline"][-1][1] <= result["used_bytes"]
            assert "status" not in result
