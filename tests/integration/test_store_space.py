# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image stores on real file systems that are full, small or read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.integration.labs import isolated
from ansible_collections.fleet.imaging.tests.integration.playbooks import CAPTURE_ONE, playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Lab

pytestmark = pytest.mark.skipif(not isolated(), reason="mounting takes root")

MountStore = Callable[[str], Path]


@pytest.fixture(name="mount_store")
def fixture_mount_store(tmp_path: Path, request: pytest.FixtureRequest) -> MountStore:
    """Mounts a store in memory, with these options."""

    def mount(options: str) -> Path:
        store = tmp_path / "store"
        store.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", store], check=True)
        request.addfinalizer(lambda: subprocess.run(["umount", store], check=True))
        return store

    return mount


@pytest.mark.parametrize(
    ("options", "said"), [("size=1g,ro", "read-only: mount it writable"), ("size=8m", "8.0 MiB free.*Make room")]
)
def test_a_store_that_takes_nothing_is_said_at_once(mount_store: MountStore, options: str, said: str) -> None:
    store = mount_store(options)
    with pytest.raises(ImagingError, match=said):
        FolderStore(str(store)).existing("new", update=False)
    assert os.listdir(store) == []


def test_a_capture_that_can_not_fit_ends_before_its_first_record(lab: Lab, mount_store: MountStore) -> None:
    store = mount_store("size=12m")
    outcome = playbook(lab, CAPTURE_ONE, "-l", "reference", "-e", f"imaging_store={store}", "-e", "imaging_image=large")
    text = outcome.failures()[lab.reference.name]
    assert "12.0 MiB free" in text and "Make room" in text
    (result,) = outcome.of("image_capture")
    assert result.result["kept_bytes"] == 0
    assert [name for name in os.listdir(store) if name != "reports"] == []


def test_a_capture_that_may_not_fit_says_so_before_and_keeps_what_was_stored(lab: Lab, mount_store: MountStore) -> None:
    store = mount_store("size=24m")
    outcome = playbook(lab, CAPTURE_ONE, "-l", "reference", "-e", f"imaging_store={store}", "-e", "imaging_image=large")
    said = outcome.stdout + outcome.stderr
    assert "this image will take about" in said
    assert "No space left on device" in outcome.failures()[lab.reference.name]
    (result,) = outcome.of("image_capture")
    assert result.result["kept_bytes"] > 12 << 20
    assert "What was stored is kept. To go on from there: ansible-playbook" in outcome.stdout
