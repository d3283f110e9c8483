# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressing an image anew, as a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action.image_recompress import ActionModule
from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import documented_fields

from ..module_utils.samples import CHUNK, Used, make_image
from .running import run_action


def run(store: Path, *, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run the action plugin."""
    return run_action(ActionModule, "image_recompress", {"store": str(store), **arguments}, check_mode=check_mode)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with an image of text."""
    make_image(str(tmp_path / "lab.img.zst"), b"some text. " * CHUNK, Used((0, 8 * CHUNK)))
    return tmp_path


def test_it_changes_once_and_says_what_became_of_the_size(store: Path) -> None:
    file = store / "lab.img.zst"
    before = file.read_bytes()
    announced = run(store, image="lab", level=12, check_mode=True)
    assert announced["changed"] and file.read_bytes() == before
    done = run(store, image="lab", level=12)
    assert done["changed"]
    assert (done["stored_bytes_before"], done["stored_bytes"]) == (len(before), file.stat().st_size)
    again = run(store, image="lab", level=12)
    assert not again["changed"] and again["stored_bytes"] == again["stored_bytes_before"]
    assert documented_fields("image_recompress").keys() - done.keys() == {"codes"}
    assert done.keys() - documented_fields("image_recompress").keys() == {"changed"}


def test_a_missing_image_and_an_impossible_level_are_refused(store: Path) -> None:
    assert run(store, image="other", level=3)["codes"] == ["no_image"]
    assert "level" in run(store, image="lab", level=23)["msg"]
