# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is believed of boot loaders, and of who says which of them is started."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.loaders import BootChoice, boot_choices, machine_of

GUID = "c0ffee00-1111-2222-3333-444455556666"
SHIM = "/EFI/debian/shimx64.efi"


def program(offset: int, rest: bytes) -> bytes:
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", offset) + rest


@pytest.mark.parametrize(
    ("content", "machine"),
    [
        (program(0x40, b"PE\0\0\x64\x86"), "x64"),
        (program(0x40, b"PE\0\0\x4c\x01"), "ia32"),
        (program(0x40, b"PE\0\0\x64\xaa"), "aa64"),
        (program(0x40, b"PE\0\0\x64\x50"), "riscv64"),
        (program(0x40, b"PE\0\0\x00\x02"), ""),
        (program(0x40, b"PE\0\0\x64"), ""),
        (program(0x40, b"NE\0\0\x64\x86"), ""),
        (program(0xFFFFFFFF, b"PE\0\0\x64\x86"), ""),
        (b"MZ", ""),
        (b"", ""),
    ],
)
def test_the_machine_that_a_program_is_for(content: bytes, machine: str) -> None:
    assert machine_of(content) == machine


def test_choices_come_back_as_they_were() -> None:
    choices = (BootChoice(GUID, SHIM), BootChoice("12345678-01", "/EFI/BOOT/BOOTX64.EFI"))
    assert boot_choices([choice.to_json() for choice in choices]) == choices


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        {"partition": GUID, "loader": SHIM},
        [None, 1, [GUID, SHIM]],
        [{"partition": GUID}],
        [{"partition": 1, "loader": SHIM}],
        [{"partition": GUID, "loader": [SHIM]}],
        [{"partition": GUID + "\n", "loader": SHIM}],
        [{"partition": GUID.upper(), "loader": SHIM}],
        [{"partition": GUID, "loader": "shimx64.efi"}],
        [{"partition": GUID, "loader": "/EFI/../shimx64.efi"}],
        [{"partition": GUID, "loader": "/EFI/*/shimx64.efi"}],
        [{"partition": GUID, "loader": "/EFI/debian/\x1b[2Jshimx64.efi"}],
        [{"partition": GUID, "loader": "/EFI/debian/shimx64.efi\n"}],
        [{"partition": GUID, "loader": "/EFI/" + "x" * 300 + "/shimx64.efi"}],
    ],
)
def test_what_is_not_well_formed_is_no_choice(value: Any) -> None:
    assert boot_choices(value) == ()


def test_no_more_choices_are_taken_than_a_firmware_has() -> None:
    assert len(boot_choices([{"partition": GUID, "loader": SHIM}] * 1000)) == 16
