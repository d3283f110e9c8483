# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose SSH keys may log in on a live system."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.public_keys import read_public_keys


@pytest.fixture(name="home")
def fixture_home(tmp_path: Path) -> Path:
    """The home of an admin who has two keys."""
    (tmp_path / ".ssh").mkdir()
    for kind in ("ed25519", "ecdsa"):
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            kind,
            "-N",
            "",
            "-C",
            f"admin of {kind}",
            "-f",
            tmp_path / f".ssh/id_{kind}",
        ]
        subprocess.run(command, check=True)
    return tmp_path


def test_those_of_the_admin_are_the_default(home: Path) -> None:
    keys = [(home / f".ssh/id_{kind}.pub").read_text().strip() for kind in ("ed25519", "ecdsa")]
    assert read_public_keys([], home) == sorted(keys)


def test_keys_and_files_of_keys_may_be_given(home: Path) -> None:
    key = (home / ".ssh/id_ecdsa.pub").read_text().strip()
    assert read_public_keys([key], home) == [key]
    assert read_public_keys([str(home / ".ssh/id_ecdsa.pub"), key], home) == [key]


def test_without_any_key_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match="ssh-keygen -t ed25519"):
        read_public_keys([], tmp_path)


def test_a_private_key_is_refused(home: Path) -> None:
    with pytest.raises(ImagingError, match=r"ends in \.pub"):
        read_public_keys([str(home / ".ssh/id_ed25519")], home)


def test_a_missing_file_is_named(home: Path) -> None:
    with pytest.raises(ImagingError, match=r"/missing\.pub can't be read \(No such file"):
        read_public_keys([str(home / "missing.pub")], home)
