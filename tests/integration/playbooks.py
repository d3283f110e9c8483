# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the collection's playbooks on a lab, as a user does: in the folder playbooks/, by ansible-playbook."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fleet.imaging.tests.integration.documented import dropped_on_purpose, undocumented
from ansible_collections.fleet.imaging.tests.lab.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SECONDS = 300.0
LOCAL_TEMP = Path.home() / ".ansible/tmp" / os.environ.get("PYTEST_XDIST_WORKER", "")
"""Where Ansible puts files of the controller, of this worker of pytest alone: what lies there while no playbook of it runs was left behind."""

CAPTURE_ONE = ROOT / "tests/integration/plays/capture_one.yml"
RESTORE_ONE = ROOT / "tests/integration/plays/restore_one.yml"
"""One transfer of any laptop, without what the playbooks do around it."""

YES = ("-e", "imaging_confirm_erase=true")


@dataclass(frozen=True)
class TaskResult:
    """What a task came to on a host; the status is ok, failed, ignored, skipped or unreachable."""

    status: str
    host: str
    task: str
    action: str
    check_mode: bool
    result: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a playbook went."""

    status: int
    stdout: str
    stderr: str
    results: list[TaskResult]

    def of(self, action: str, host: str | None = None) -> list[TaskResult]:
        """Return the results of a module or action plugin (its last name is enough), of all hosts or of one; none skipped."""
        return [
            result
            for result in self.results
            if result.action.rpartition(".")[2] == action.rpartition(".")[2]
            and host in (None, result.host)
            and result.status != "skipped"
        ]

    def failures(self) -> dict[str, str]:
        """Return for each host that failed or was unreachable the last message."""
        return {
            result.host: str(result.result.get("msg", ""))
            for result in self.results
            if result.status in ("failed", "unreachable")
        }


class RunningPlaybook:
    """A playbook that runs; its output goes to files, so that it never waits for whoever reads it.

    No callback may fail, its results must be as their modules document them, and nothing of a laptop's answer may be lost on the way, unless
    ``lying`` laptops add to it.
    """

    def __init__(
        self, command: list[str | Path], folder: Path, environment: Mapping[str, str], lying: bool = False
    ) -> None:
        self._lying = lying
        self._files = tempfile.TemporaryDirectory(prefix="fleet-playbook-")
        self._folder = Path(self._files.name)
        (self._folder / "results").touch()
        with open(self._folder / "stdout", "wb") as stdout, open(self._folder / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={
                    **ansible_environment(),
                    "FLEET_IMAGING_TEST_RESULTS": str(self._folder / "results"),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def stdout(self) -> str:
        """Return what it has printed so far."""
        return (self._folder / "stdout").read_text(errors="replace")

    def results(self) -> list[TaskResult]:
        """Return the results that there are so far."""
        lines = (self._folder / "results").read_text().splitlines(keepends=True)
        return [TaskResult(**json.loads(line)) for line in lines if line.endswith("\n")]

    def wait(self, seconds: float = SECONDS) -> Outcome:
        """Return how it went; when it takes longer, kill it and fail with what it printed."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            stuck = f"{self.process.args!r} did not end within {seconds:.0f} s; it printed:\n{self.stdout()}"
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(seconds)
            raise AssertionError(stuck) from None
        outcome = Outcome(status, self.stdout(), (self._folder / "stderr").read_text(errors="replace"), self.results())
        dropped = [] if self._lying else self._dropped()
        self._files.cleanup()
        faults = [f"{each.host}: {fault}" for each in outcome.results for fault in _undocumented(each)]
        faults += re.findall(r"Callback dispatch .*", outcome.stderr)
        assert not (faults or dropped), (faults, dropped)
        return outcome

    def _dropped(self) -> list[str]:
        """What of laptops' answers did not come through, as paths of fields."""
        path = self._folder / "results.dropped"
        names = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return sorted({name for name in names if not dropped_on_purpose(name)})


def _undocumented(each: TaskResult) -> list[str]:
    failed = each.status in ("failed", "ignored")
    return undocumented(each.action, each.result, failed, each.check_mode) if failed or each.status == "ok" else []


def ansible_environment() -> dict[str, str]:
    """Return the environment for Ansible's programs: this virtual environment's, with the checkout's collection."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return own | {
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"], "/usr/sbin", "/sbin"]),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
        "ANSIBLE_LOCAL_TEMP": str(LOCAL_TEMP),
        "ANSIBLE_NOCOLOR": "1",
    }


def start_playbook(
    lab: Lab,
    name: str | Path,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    lying: bool = False,
) -> RunningPlaybook:
    """Start a playbook of playbooks/ (or any, by its path) on a lab, with more in its environment."""
    path = name if isinstance(name, Path) else ROOT / "playbooks" / f"{name}.yml"
    command: list[str | Path] = [BIN / "ansible-playbook", path, "-i", lab.inventory, *arguments]
    return RunningPlaybook(command, ROOT / "playbooks", environment or {}, lying)


def playbook(
    lab: Lab,
    name: str | Path,
    *arguments: str | Path,
    seconds: float = SECONDS,
    environment: Mapping[str, str] | None = None,
    lying: bool = False,
) -> Outcome:
    """Run a playbook of playbooks/ (or any, by its path) on a lab, with more in its environment."""
    return start_playbook(lab, name, *arguments, environment=environment, lying=lying).wait(seconds)


def stored(store: Path) -> list[str]:
    """Return the names of what lies in an image store, without the reports."""
    return [name for name in os.listdir(store) if name != "reports"]


def newest(store: Path, playbook_name: str) -> tuple[str, dict[str, Any]]:
    """The page and the data of the newest report of a playbook; both are there, and only this user can read them."""
    pages = sorted((store / "reports").glob(f"*-{playbook_name}*.html"), key=lambda path: path.stat().st_mtime_ns)
    page, data = pages[-1], pages[-1].with_suffix(".json")
    assert {path.stat().st_mode & 0o777 for path in (page, data)} == {0o600}
    return page.read_text(), json.loads(data.read_text())
