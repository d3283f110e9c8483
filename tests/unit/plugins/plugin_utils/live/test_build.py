# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder with a built live system, and what it was built of."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.build import (
    EPOCH,
    RECORD,
    RESULTS,
    BuildFolder,
    Inputs,
    check_root,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.overlay import pack_overlay
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.programs import ProgramFailed, Programs

INPUTS = Inputs(
    suite="bookworm", sources=["deb http://debian.example/debian bookworm main"], packages=["zstd"], overlay=b""
)


def filled(parts: Path, content: bytes) -> dict[str, object]:
    """Put files of a build into a folder, and return their record."""
    for name in RESULTS:
        (parts / name).write_bytes(content)
    return {"inputs": "0", "files": {name: {"size": len(content)} for name in RESULTS}}


@pytest.mark.parametrize(
    "other",
    [{"suite": "trixie"}, {"sources": []}, {"packages": ["zstd", "nano"]}, {"overlay": b"other"}],
    ids=["suite", "sources", "packages", "overlay"],
)
def test_all_inputs_count(other: dict[str, object]) -> None:
    assert dataclasses.replace(INPUTS, **other).fingerprint() != INPUTS.fingerprint()  # type: ignore[arg-type]
    assert dataclasses.replace(INPUTS).fingerprint() == INPUTS.fingerprint()


def test_a_build_is_kept_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = BuildFolder(tmp_path / "live")
    assert folder.record() == {}
    with folder.locked() as parts:
        record = filled(parts, b"first")
        folder.keep(parts, record)
    assert folder.record() == record
    assert {path.name for path in folder.path.iterdir()} == {".lock", RECORD, *RESULTS}
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_what_was_cut_short_is_no_build(tmp_path: Path) -> None:
    folder = BuildFolder(tmp_path)
    with folder.locked() as parts:
        folder.keep(parts, filled(parts, b"first"))
    (tmp_path / RESULTS[0]).write_bytes(b"fir")
    assert folder.record() == {}
    (tmp_path / RESULTS[0]).unlink()
    assert folder.record() == {}
    (tmp_path / RECORD).write_text(json.dumps([]))
    assert folder.record() == {}


def test_a_failed_build_leaves_the_one_before(tmp_path: Path) -> None:
    folder = BuildFolder(tmp_path)
    with folder.locked() as parts:
        record = filled(parts, b"first")
        folder.keep(parts, record)
    with pytest.raises(ImagingError, match="on purpose"), folder.locked() as parts:
        filled(parts, b"second")
        raise ImagingError("on purpose")
    assert folder.record() == record
    assert (tmp_path / RESULTS[0]).read_bytes() == b"first"
    assert {path.name for path in tmp_path.iterdir()} == {".lock", RECORD, *RESULTS}


def test_what_a_killed_build_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".build-x/chroot").mkdir(parents=True)
    with BuildFolder(tmp_path).locked():
        assert not (tmp_path / ".build-x").exists()


def test_two_builds_do_not_meet(tmp_path: Path) -> None:
    with (
        BuildFolder(tmp_path).locked(),
        pytest.raises(ImagingError, match="Another build"),
        BuildFolder(tmp_path).locked(),
    ):
        raise AssertionError("both were let in")


def test_the_overlay_is_equal_when_its_files_are_and_belongs_to_root(tmp_path: Path) -> None:
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "etc/ssh/config").write_text("text")
    own = {
        "etc/ssh/ssh_host_ed25519_key": b"secret",
        "root/.ssh/authorized_keys": b"key",
        "usr/lib/fleet-live/name": b"",
    }
    packed = pack_overlay(tmp_path, own, EPOCH)
    (tmp_path / "etc/ssh/config").touch()
    assert pack_overlay(tmp_path, dict(reversed(own.items())), EPOCH) == packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        entries = {entry.name: entry for entry in archive}
    assert {entry.uid for entry in entries.values()} == {0} and {entry.mtime for entry in entries.values()} == {EPOCH}
    assert {name: oct(entry.mode) for name, entry in entries.items() if entry.isfile()} == {
        "etc/ssh/config": "0o644",
        "etc/ssh/ssh_host_ed25519_key": "0o600",
        "root/.ssh/authorized_keys": "0o600",
        "usr/lib/fleet-live/name": "0o755",
    }
    assert entries["root/.ssh"].mode == 0o700 and entries["etc/ssh"].mode == 0o755


def test_a_program_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    programs = Programs(tmp_path / "log", {"WORD": "given"})
    programs.run(["sh", "-c", 'echo "$WORD"'], into=["sh", "-c", f"cat >{tmp_path}/out"])
    assert (tmp_path / "out").read_text() == "given\n"
    with pytest.raises(ProgramFailed, match="sh failed: E: no network"):
        programs.run(["sh", "-c", "echo noise >&2; echo E: no network >&2; exit 1"], into=["cat"])
    with pytest.raises(ProgramFailed, match=r"yes and cat failed: .*/missing: No such file"):
        programs.run(["yes"], into=["cat", "/missing"])


def test_only_root_can_build() -> None:
    user = os.geteuid()
    try:
        if user == 0:
            check_root()
            os.seteuid(65534)
        with pytest.raises(ImagingError, match="expected the user root"):
            check_root()
    finally:
        os.seteuid(user)
