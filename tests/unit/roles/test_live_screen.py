# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the screen of a live system shows."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import STREAMING, VERIFYING, Status
from ansible_collections.fleet.imaging.plugins.module_utils.laptop import shown
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.shown import NAME, show, show_status

SCREEN = Path(__file__).parents[3] / "roles/live_system/files/root/usr/lib/fleet-live/screen.py"
WIDE = 64


@pytest.fixture(name="screen", scope="module")
def fixture_screen() -> ModuleType:
    """The program, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("live_screen", SCREEN)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["live_screen"] = module
    spec.loader.exec_module(module)
    return module


def status(phase: str, done: int, total: int) -> Status:
    return Status(phase=phase, done=done, total=total, data_done=0, data_total=0, seconds=1.0, stages={})


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with what is shown."""
    monkeypatch.setattr(shown, "FOLDER", str(tmp_path))
    return tmp_path


def test_it_shows_what_modules_say(screen: ModuleType, folder: Path) -> None:
    def words() -> str:
        return str(screen.doing((folder / NAME).read_text()))

    show("restoring", "/dev/sda", 41, 100)
    assert words() == "restoring /dev/sda: 41 %"
    show("verified", "/dev/sda")
    assert words() == "verified /dev/sda"


def test_phases_have_their_own_names(screen: ModuleType, folder: Path) -> None:
    for phase, words in ((STREAMING, "restoring /dev/sda: 50 %"), (VERIFYING, "verifying /dev/sda: 50 %")):
        show_status("restoring", "/dev/sda", status(phase, 5, 10))
        assert screen.doing((folder / NAME).read_text()) == words


def test_nothing_is_written_on_other_live_systems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "FOLDER", str(folder / "missing"))
    show("restoring")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"doing": 1, "done": "x"}', '{"done": 1}', "null"])
def test_a_file_that_is_none_is_not_shown(screen: ModuleType, text: str) -> None:
    assert screen.doing(text) == ""


def test_it_says_what_it_waits_for(screen: ModuleType) -> None:
    def state(listens: bool, addresses: list[str], doing: str = "") -> str:
        return str(screen.page(screen.Laptop("live-1", addresses, listens=listens), doing, WIDE)[2])

    assert state(False, []) == ">>> starting"
    assert state(True, []) == ">>> waiting for the network"
    assert state(True, ["192.0.2.11 (eth0)"]) == ">>> ready"
    assert state(True, ["192.0.2.11 (eth0)"], json.dumps({"doing": "verified"})) == ">>> verified"


def test_no_line_is_too_long_or_moves_the_cursor(screen: ModuleType) -> None:
    laptop = screen.Laptop("live-1", ["192.0.2.11 (eth0)"], "SHA256:" + 43 * "x", ["sda " + 90 * "y" + "\x1b[2J"], True)
    lines = screen.page(laptop, "", 30)
    assert max(map(len, lines)) == 30
    assert all(line.isprintable() for line in lines)


def test_addresses_come_from_ip(screen: ModuleType) -> None:
    listed = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {
            "ifname": "eth0",
            "addr_info": [
                {"local": "2001:db8::1", "scope": "global"},
                {"local": "2001:db8::2", "scope": "global", "temporary": True},
                {"local": "192.0.2.11", "scope": "global"},
            ],
        },
    ]
    assert screen.addresses(json.dumps(listed)) == ["192.0.2.11 (eth0)", "2001:db8::1 (eth0)"]
    assert screen.addresses("") == []


def test_disks_come_from_lsblk(screen: ModuleType) -> None:
    listed = {
        "blockdevices": [
            {"name": "loop0", "size": 100, "type": "loop", "tran": None, "model": None, "serial": None},
            {"name": "sda", "size": 512110190592, "type": "disk", "tran": "sata", "model": "ACME  X1 ", "serial": "S1"},
            {"name": "sdb", "size": 0, "type": "disk", "tran": "usb", "model": "Reader", "serial": None},
        ]
    }
    assert screen.disks(json.dumps(listed)) == ["sda  512.1 GB  sata  ACME X1  S1"]
    assert screen.disks("") == []


def test_letters_are_doubled_in_both_directions(screen: ModuleType) -> None:
    glyph = bytes([0b10000001, 0b01000000]).ljust(32, b"\0")
    large = screen.doubled(glyph, 2, 1)
    assert len(large) == 64
    assert [large[2 * row : 2 * row + 2] for row in range(4)] == [b"\xc0\x03", b"\xc0\x03", b"\x30\x00", b"\x30\x00"]
