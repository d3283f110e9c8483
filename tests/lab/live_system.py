# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A built live system for tests. It is kept between runs, so that only the first one, or one after a change, takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleet.imaging/live"


@dataclass(frozen=True)
class LiveSystem:
    """The folders of a build, and the SSH key that may log in."""

    folder: Path

    @property
    def build(self) -> Path:
        """The folder with the result."""
        return self.folder / "build"

    @property
    def iso(self) -> Path:
        """The ISO image."""
        return self.build / "live.iso"

    @property
    def ca(self) -> Path:
        """The folder with the keys of the lab."""
        return self.folder / "ca"

    @property
    def known_hosts(self) -> Path:
        """The file by which SSH knows the laptops."""
        return self.ca / "known_hosts"

    @property
    def key(self) -> Path:
        """The private key of the admin."""
        return self.folder / "admin"

    def record(self) -> dict[str, Any]:
        """What build.json says."""
        found: dict[str, Any] = json.loads((self.build / "build.json").read_text())
        return found

    def arguments(self) -> list[str]:
        """The variables for live.yml."""
        values = {"folder": self.build, "ca": self.ca, "authorized_keys": self.key.with_suffix(".pub")}
        return [word for name, value in values.items() for word in ("-e", f"imaging_live_{name}={value}")]


def cached_live_system(folder: Path = CACHE) -> LiveSystem:
    """Return the live system of tests, which live.yml has yet to build or to find unchanged."""
    live = LiveSystem(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not live.key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "admin", "-f", live.key], check=True)
    return live
