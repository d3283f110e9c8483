# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the packages of the live system come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.archive import KEYRING, find_proxies, find_sources
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command


def targets(text: str) -> CommandResult:
    """What apt-get indextargets prints."""
    return CommandResult(0, text, "")


def test_the_machines_own_sources_of_the_release_are_taken_with_their_keys(tmp_path: Path) -> None:
    entry = tmp_path / "debian.sources"
    entry.write_text("Types: deb\nURIs: http://debian.example/debian\nSigned-By: /usr/share/keyrings/example.gpg\n")
    listed = (
        f"http://debian.example/debian/ bookworm main {entry}:1\n"
        f"http://debian.example/debian/ bookworm contrib {entry}:1\n"
        f"http://debian.example/security/ bookworm-security main {entry}:9\n"
        f"http://node.example/ nodistro main {entry}:20\n"
        f"http://other.example/ bookworm-backports main {entry}:20\n"
    )

    def run(_command: Sequence[str]) -> CommandResult:
        return targets(listed)

    assert find_sources([], "bookworm", "main non-free-firmware", run) == [
        "deb [signed-by=/usr/share/keyrings/example.gpg] http://debian.example/debian/ bookworm main non-free-firmware",
        "deb [signed-by=/usr/share/keyrings/example.gpg] http://debian.example/security/ bookworm-security main non-free-firmware",
    ]


def test_keys_of_the_old_format_are_found(tmp_path: Path) -> None:
    entry = tmp_path / "sources.list"
    entry.write_text(
        "deb [arch=amd64 signed-by=/etc/apt/keyrings/lab.gpg] http://debian.example/debian bookworm main\n"
    )

    def run(_command: Sequence[str]) -> CommandResult:
        return targets(f"http://debian.example/debian/ bookworm main {entry}:1\n")

    assert find_sources([], "bookworm", "main", run) == [
        "deb [signed-by=/etc/apt/keyrings/lab.gpg] http://debian.example/debian/ bookworm main"
    ]


def test_a_given_mirror_replaces_them() -> None:
    def run(command: Sequence[str]) -> CommandResult:
        raise AssertionError(command)

    line = "deb [trusted=yes] file:/srv/debian bookworm main"
    assert find_sources([line], "bookworm", "main", run) == [line]
    assert find_sources(["http://mirror.example/debian"], "bookworm", "main", run) == [
        f"deb [signed-by={KEYRING}] http://mirror.example/debian bookworm main",
        f"deb [signed-by={KEYRING}] http://mirror.example/debian bookworm-updates main",
    ]


def test_a_machine_without_debian_sources_has_none() -> None:
    def run(_command: Sequence[str]) -> CommandResult:
        return targets("http://ubuntu.example/ubuntu/ noble main /etc/apt/sources.list.d/ubuntu.sources:1\n")

    assert find_sources([], "bookworm", "main", run) == []


def test_proxies_of_the_machine_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://proxy.example:3142";\nAcquire::https::Proxy "";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    assert find_proxies(run_command) == ['Acquire::http::Proxy "http://proxy.example:3142";']
