# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes hives of a Windows registry: an empty one by its format, filled by hivexsh. There is no Windows here to make one.

Source of the format: M. Suhanov, "Windows registry file format specification".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from .tools import run

BIN_SIZE = 4096
NOTHING = 0xFFFFFFFF
KEY = struct.Struct("<2sHQIIIIIIIIIIIIIIIHH")
SECURITY = struct.Struct("<2s2xIIII")
DESCRIPTOR = bytes.fromhex("0100048000000000000000000000000000000000")
ROOT_FLAGS = 0x2C
ROOT_NAME = b"ROOT"

Values = Mapping[str, Mapping[str, str | int]]
"""Keys, with backslashes between their parts, and their values by name: text or a number of 32 bits."""

CURRENT_VERSION = r"Microsoft\Windows NT\CurrentVersion"
SETUP_STATE = r"Microsoft\Windows\CurrentVersion\Setup\State"
READY = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
SOFTWARE: Values = {
    CURRENT_VERSION: {
        "ProductName": "Windows 10 Pro",
        "EditionID": "Professional",
        "CurrentBuild": "22631",
        "DisplayVersion": "23H2",
    },
    SETUP_STATE: {"ImageState": READY},
}
SYSTEM: Values = {
    "Setup": {"SetupType": 2, "CmdLine": "oobe\\windeploy.exe"},
    "Select": {"Current": 1},
    r"ControlSet001\Control\ComputerName\ComputerName": {"ComputerName": "REFERENCE"},
    r"ControlSet001\Control\Session Manager\Environment": {"PROCESSOR_ARCHITECTURE": "AMD64"},
}
"""What a Windows 11 has there that sysprep has made ready."""


def _cell(content: bytes) -> bytes:
    size = -(-(len(content) + 4) // 8) * 8
    return struct.pack("<i", -size) + content.ljust(size - 4, b"\0")


def _root(security: int) -> bytes:
    fields = (0, 0, 0, 0, 0, NOTHING, NOTHING, 0, NOTHING, security, NOTHING, 0, 0, 0, 0, 0, len(ROOT_NAME), 0)
    return _cell(KEY.pack(b"nk", ROOT_FLAGS, *fields) + ROOT_NAME)


def empty_hive() -> bytes:
    """Return a hive with a root key and nothing else."""
    first = 32
    security = first + len(_root(0))
    content = _root(security)
    content += _cell(SECURITY.pack(b"sk", security, security, 1, len(DESCRIPTOR)) + DESCRIPTOR)
    content += struct.pack("<i", BIN_SIZE - first - len(content))
    block = (struct.pack("<4sII20x", b"hbin", 0, BIN_SIZE) + content).ljust(BIN_SIZE, b"\0")
    head = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, 0, 1, 3, 0, 1, first, BIN_SIZE, 1).ljust(508, b"\0")
    checksum = 0
    for (word,) in struct.iter_unpack("<I", head):
        checksum ^= word
    return (head + struct.pack("<I", checksum)).ljust(BIN_SIZE, b"\0") + block


def make_hive(path: Path, values: Values) -> None:
    """Write a hive with these values."""
    path.write_bytes(empty_hive())
    lines = []
    made = set()
    for key, entries in values.items():
        lines.append("cd \\")
        place = ""
        for part in key.split("\\"):
            place += "\\" + part
            lines += [] if place in made else [f"add {part}"]
            made.add(place)
            lines.append(f"cd {part}")
        lines.append(f"setval {len(entries)}")
        for name, value in entries.items():
            lines += [name, f"dword:{value}" if isinstance(value, int) else f"string:{value}"]
    run("hivexsh", "-w", path, stdin="\n".join([*lines, "commit", ""]))
