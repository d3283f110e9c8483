# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firmware's list, as versions of efibootmgr print it."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.firmware import parse_boot_list
from ansible_collections.fleet.imaging.plugins.module_utils.disk.loaders import BootChoice
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import Partition, PartitionTable

GUID = "c0ffee00-1111-2222-3333-444455556666"
SHIM = "/EFI/debian/shimx64.efi"
HEAD = "BootCurrent: 0001\nTimeout: 1 seconds\nBootOrder: 0003,0001,0009,0003\n"


@pytest.mark.parametrize(
    ("line", "active", "choice"),
    [
        (f"Boot0001* debian\tHD(1,GPT,{GUID},0x800,0x1000)/File(\\EFI\\debian\\shimx64.efi)", True, (GUID, SHIM)),
        (f"Boot0001* debian\tHD(1,GPT,{GUID.upper()},0x800,0x1000)/\\EFI\\debian\\shimx64.efi", True, (GUID, SHIM)),
        (f"Boot0001  debian\tHD(1,GPT,{GUID},0x800,0x1000)/\\EFI\\debian\\shimx64.efi5749", False, (GUID, SHIM)),
        (f"Boot0001* \tPciRoot(0x0)/Pci(0x1d,0x0)/NVMe(0x1,00)/HD(1,GPT,{GUID},0x800,0x1)/File(\\EFI\\debian\\shimx64.efi)RC", True, (GUID, SHIM)),
        ("Boot0001* debian\tHD(1,MBR,0x12345678,0x800,0x1)/\\EFI\\debian\\shimx64.efi", True, ("12345678-01", SHIM)),
        ("Boot0001* debian\tHD(1,MBR,nonsense,0x800,0x1)/\\EFI\\debian\\shimx64.efi", True, None),
        ("Boot0001* UEFI: PXE IPv4\tPciRoot(0x0)/Pci(0x1c,0x0)/MAC(001122334455,0)", True, None),
        ("Boot0001* Setup", True, None),
    ],
)  # fmt: skip
def test_a_line_is_understood(line: str, active: bool, choice: tuple[str, str] | None) -> None:
    (entry,) = parse_boot_list(HEAD + line + "\n      dp: 04 01 2a 00\n").entries
    assert (entry.number, entry.active) == ("0001", active)
    assert entry.choice == (BootChoice(*choice) if choice else None)


def test_the_order_is_that_of_entries_that_are_there() -> None:
    listed = parse_boot_list(HEAD + "Boot0001* one\nBoot0002* two\nBoot0003* three\n")
    assert [entry.number for entry in listed.in_order()] == ["0003", "0001"]
    assert listed.is_first(listed.in_order()[0])
    assert not listed.is_first(listed.in_order()[1])
    assert not parse_boot_list("BootCurrent: 0001\nBoot0001* one\n").in_order()


@pytest.mark.parametrize(
    ("label", "raw", "expected"),
    [
        ("gpt", {}, GUID),
        ("dos", {"id": "0x1234abc"}, "01234abc-0a"),
        ("dos", {"id": "nonsense"}, ""),
        ("dos", {}, ""),
    ],
)
def test_a_partition_is_told_as_the_kernel_does(label: str, raw: dict[str, str], expected: str) -> None:
    partition = Partition(10, "/dev/sda10", 1 << 20, 1 << 20, "ef", GUID.upper())
    assert PartitionTable(label, 512, 1 << 30, (partition,), raw).id_of(partition) == expected
