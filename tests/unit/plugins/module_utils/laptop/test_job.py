# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier runs have left on a laptop, and what a later one takes for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.laptop.job import (
    FOLDER,
    remove_killed,
    remove_uncollected,
)
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import TICKET
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS

OWN, OLD = "0000000000000000", "fedcba9876543210"
MODULE = "AnsiballZ_image_restore.py"
NUMBERS = iter(range(100))


def make_folder(parent: Path, *names: str, age: float = 0.0) -> Path:
    """As Ansible makes one for a module."""
    folder = parent / f"ansible-tmp-{time.time()}-{os.getpid()}-{next(NUMBERS)}"
    assert FOLDER.fullmatch(folder.name)
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    os.utime(folder, (time.time() - age,) * 2)
    return folder


@pytest.mark.parametrize(
    ("names", "age", "stays"),
    [
        ([MODULE], 0, False),
        (["AnsiballZ_image_capture.py", "AnsiballZ_async_wrapper.py"], 0, False),
        ([TICKET], 0, True),
        ([TICKET, MODULE], 0, True),
        ([TICKET, MODULE], 3600, False),
        ([TICKET, MODULE], -3600, False),
        (["AnsiballZ_setup.py"], 3600, True),
        (["AnsiballZ_image_restored.py"], 3600, True),
        ([], 3600, True),
    ],
    ids=[
        "module",
        "wrapper",
        "ticket",
        "about-to-start",
        "never-started",
        "clock-set-back",
        "another-module",
        "nearly",
        "empty",
    ],
)
def test_the_folder_of_a_killed_module_goes(tmp_path: Path, names: list[str], age: float, stays: bool) -> None:
    own, other = make_folder(tmp_path, MODULE), make_folder(tmp_path, *names, age=age)
    remove_killed(str(own / TICKET), DEFAULTS.settled)
    assert own.exists()
    assert other.exists() is stays


def test_the_folder_of_a_module_that_runs_stays(tmp_path: Path) -> None:
    own, other = make_folder(tmp_path, MODULE), make_folder(tmp_path, MODULE)
    code = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, other / MODULE], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        remove_killed(str(own / TICKET), DEFAULTS.settled)
        assert other.exists()
        process.kill()
    remove_killed(str(own / TICKET), DEFAULTS.settled)
    assert not other.exists()


def test_nothing_is_removed_by_a_link_or_of_somebody_else(tmp_path: Path) -> None:
    own, target = make_folder(tmp_path, MODULE), make_folder(tmp_path / "elsewhere", MODULE)
    link = tmp_path / "ansible-tmp-1-1-1"
    link.symlink_to(target)
    others = make_folder(tmp_path, MODULE)
    if os.geteuid() == 0:
        os.chown(others, 65534, -1)
    remove_killed(str(own / TICKET), DEFAULTS.settled)
    assert (target / MODULE).exists() and link.is_symlink()
    assert others.exists() is (os.geteuid() == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have files of other users")
def test_the_folder_is_the_users_who_logs_in_where_root_runs_the_module(tmp_path: Path) -> None:
    own, other = make_folder(tmp_path, MODULE), make_folder(tmp_path, MODULE)
    for folder in (own, other):
        os.chown(folder, 65534, -1)
    remove_killed(str(own / TICKET), DEFAULTS.settled)
    assert not other.exists()


@pytest.mark.parametrize(
    ("result", "age", "stays"),
    [
        ({"finished": 1}, 30, True),
        ({"finished": 1}, 300, False),
        ({"finished": 1}, -300, False),
        ({"started": 1}, 300, False),
        ({"started": 1}, 30, True),
        ({"started": 1, "finished": 1}, 300, False),
    ],
)
def test_a_result_that_nobody_collects_goes_whatever_the_clock_has_become(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: object, age: float, stays: bool
) -> None:
    monkeypatch.setenv("ANSIBLE_ASYNC_DIR", str(tmp_path / OWN))
    file = tmp_path / OLD / "j246813579024.1"
    for folder in (tmp_path / OWN, file.parent):
        folder.mkdir()
    file.write_text(json.dumps(result))
    for path in (file, file.parent):
        os.utime(path, (time.time() - age,) * 2)
    remove_uncollected(OWN, 120)
    assert (tmp_path / OWN).exists()
    assert file.exists() is stays


def test_a_result_that_is_waited_for_stays_and_so_does_a_place_that_was_just_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_ASYNC_DIR", str(tmp_path / OWN))
    file, young = tmp_path / OLD / "j987654321098.77", tmp_path / "abcdef0123456789"
    for folder in (tmp_path / OWN, file.parent, young):
        folder.mkdir()
    file.write_text('{"started": 1, "finished": 0}')
    for path in (file, file.parent):
        os.utime(path, (0, 0))
    code = "import time; print(flush=True); time.sleep(60)"
    wrapper = [sys.executable, "-c", code, "j987654321098", "604800", MODULE]
    with subprocess.Popen(wrapper, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        remove_uncollected(OWN, 120)
        assert file.exists()
        process.kill()
    remove_uncollected(OWN, 120)
    assert not file.exists()
    assert young.exists()
