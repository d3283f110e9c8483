# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: the collection's own playbooks, on the lab."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..integration.playbooks import start_playbook
from ..lab.lab import Lab
from .memory import MemorySampler

IMAGE = "bench"
MAX_RUN = 900.0
SECONDS_TO_END = 30.0


class PlaybookFailed(Exception):
    """A playbook failed; the message ends with what it printed."""


@dataclass(frozen=True)
class Run:
    """One run: the module's result, the seconds of the whole playbook, and the peaks of memory in bytes by whose they are."""

    result: dict[str, Any]
    playbook_seconds: float
    peaks: dict[str, int]


class Ours:
    """Captures the lab's reference into one image and restores the first laptop from it."""

    def __init__(self, lab: Lab, store: Path) -> None:
        self._lab = lab
        self._store = store
        self.image = store / f"{IMAGE}.img.zst"

    def remove_image(self) -> None:
        """Make room for the next capture."""
        self.image.unlink(missing_ok=True)

    def capture(self) -> Run:
        """Capture the reference; raises PlaybookFailed."""
        return self.run("capture", "image_capture", "reference")

    def restore(self) -> Run:
        """Restore the first laptop, with the comparison that follows; raises PlaybookFailed."""
        return self.run("restore", "image_restore", self._lab.targets[0].name, "-e", "imaging_confirm_erase=true")

    @property
    def variables(self) -> tuple[str, ...]:
        """The arguments that say which image is meant."""
        return ("-e", f"imaging_store={self._store}", "-e", f"imaging_image={IMAGE}")

    def run(self, name: str | Path, module: str, limit: str, *more: str) -> Run:
        """Run a playbook, by its name or path, for one host; raises PlaybookFailed."""
        started = time.monotonic()
        running = start_playbook(self._lab, name, "-l", limit, *self.variables, *more)
        try:
            with MemorySampler(self._lab, running.process.pid) as sampler:
                running.process.wait(MAX_RUN)
                seconds = time.monotonic() - started
        finally:
            if running.process.poll() is None:
                # It ends its workers, which have sessions of their own.
                running.process.send_signal(signal.SIGINT)
                running.process.wait(SECONDS_TO_END)
        outcome = running.wait()
        results = [result for result in outcome.of(module) if result.status == "ok"]
        if outcome.status or not results:
            raise PlaybookFailed(f"{name} ended with status {outcome.status}:\n{outcome.stdout}{outcome.stderr}")
        return Run(results[0].result, seconds, sampler.peaks)
