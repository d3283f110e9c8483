# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils import private_files
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.private_files import (
    PREFIX,
    clear_scratch,
    open_new,
    open_own,
    remove_own_folder,
    scratch_folder,
)
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts

NOBODY = 65534


def test_a_new_file_is_this_users_alone(tmp_path: Path) -> None:
    os.close(open_new(str(tmp_path / "file")))
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        open_new(str(tmp_path / "file"))
    os.close(open_own(str(tmp_path / "file")))
    os.close(open_own(str(tmp_path / "other")))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    for target in (victim, tmp_path / "not there"):
        link.symlink_to(target)
        with pytest.raises(FileExistsError):
            open_new(str(link))
        with pytest.raises(ImagingError, match="is in the way"):
            open_own(str(link))
        link.unlink()
    os.link(victim, link)
    with pytest.raises(ImagingError, match="is in the way"):
        open_own(str(link))
    assert victim.read_text() == "precious" and not (tmp_path / "not there").exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file_is_neither_used_nor_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ImagingError, match="is in the way"):
        open_own(str(path))


def test_a_file_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("theirs")
    folder = os.stat(tmp_path).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    os.close(open_own(str(path)))  # a file system without owners: all is the folder's owner's
    with monkeypatch.context() as patched, pytest.raises(ImagingError) as caught:
        patched.setattr(os, "stat", lambda name: os.stat_result([0o40700, 1, 1, 2, folder + 1, 0, 0, 0, 0, 0]))
        open_own(str(path))
    assert "another user's file" in str(caught.value)


def test_only_an_own_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    (victim / "inside").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(victim)
    remove_own_folder(str(link))
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    remove_own_folder(str(victim))
    assert (victim / "inside").exists()
    monkeypatch.undo()
    remove_own_folder(str(victim))
    assert not victim.exists()
    remove_own_folder(str(victim))


@pytest.fixture(name="temporary")
def fixture_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(private_files, "DEFAULTS", Timeouts(settled=0.0))
    return tmp_path


def test_what_a_killed_run_has_left_is_cleared_and_what_a_living_one_has_is_not(temporary: Path) -> None:
    code = (
        "import time; from ansible_collections.fleet.imaging.plugins.module_utils.private_files import Scratch; "
        "scratch = Scratch(); print(scratch.path, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().decode().strip())
        (left / "map").write_text("x")
        clear_scratch()
        assert left.exists(), "its owner lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left.exists()
    with scratch_folder() as own:
        assert not left.exists(), "its owner is dead"
        clear_scratch()
        assert os.path.isdir(own)
    assert not os.path.exists(own)


def test_only_what_is_of_its_own_kind_is_cleared(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = temporary / "victim"
    victim.mkdir()
    (temporary / f"{PREFIX}abcdefgh").symlink_to(victim)
    (temporary / f"{PREFIX}12345678").write_text("a file")
    kept = [
        "fleet.imaging-12345678",
        "fleet.imaging",
        f"{PREFIX}abc",
        f"{PREFIX}abcdefghi",
        "ansible_x_payload_12345678",
    ]
    for name in kept:
        (temporary / name).mkdir()
    young = temporary / f"{PREFIX}youngone"
    young.mkdir()
    monkeypatch.setattr(private_files, "DEFAULTS", Timeouts(settled=60.0))
    clear_scratch()
    assert young.exists()
    monkeypatch.setattr(private_files, "DEFAULTS", Timeouts(settled=0.0))
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    clear_scratch()
    assert young.exists()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(temporary).st_uid)
    clear_scratch()
    assert not young.exists() and victim.exists() and all((temporary / name).exists() for name in kept)
