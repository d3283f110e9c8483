# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of a machine, from real tables of its routes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.laptop import networks
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.networks import own_networks
from ansible_collections.fleet.imaging.plugins.module_utils.run_file import FORMS

IPV4 = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
ppp0	00000000	00000000	0001	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
wlan0	000200C0	00000000	0001	0	0	600	00FFFFFF	0	0	0
eth0	0000FEA9	00000000	0001	0	0	1000	0000FFFF	0	0	0
tun0	010200C0	00000000	0005	0	0	0	FFFFFFFF	0	0	0
br0	000012C6	00000000	0001	0	0	0	00FCFFFF	0	0	0
"""
NONE = "0" * 32
IPV6 = f"""fd000000000000000000000000000000 40 {NONE} 00 {NONE} 00000100 00000001 00000000 00000001     eth0
fd0000000000000000000000000000a7 80 {NONE} 00 {NONE} 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 {NONE} 00 {NONE} 00000100 00000002 00000000 00000001     eth0
{NONE} 00 {NONE} 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
fd000000000000000000000000000002 80 {NONE} 00 {NONE} 00000000 00000003 00000000 80200001     eth0
ff000000000000000000000000000000 08 {NONE} 00 {NONE} 00000100 00000003 00000000 00000001     eth0
{NONE} 00 {NONE} 00 {NONE} ffffffff 00000001 00000000 00200200       lo
"""


@pytest.fixture(autouse=True)
def _little_endian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "little")


def table(ipv4: str, ipv6: str) -> str:
    return own_networks(lambda path: ipv4 if path.name == "route" else ipv6)


def test_networks_are_those_that_are_reached_without_a_gateway() -> None:
    assert table(IPV4, IPV6) == "192.0.2.0/24,198.18.0.0/22,fd00::/64"


@pytest.mark.parametrize("damaged", ["", "eth0", IPV6[:60], "\n\x00\n"])
def test_a_table_that_can_not_be_read_is_left_out(damaged: str) -> None:
    assert table(damaged, IPV6) == "fd00::/64"
    assert table(IPV4, damaged) == "192.0.2.0/24,198.18.0.0/22"


def test_a_kernel_without_tables_tells_of_no_networks() -> None:
    def read(path: Path) -> str:
        raise FileNotFoundError(path)

    assert own_networks(read) == ""


def test_many_networks_fit_into_a_run_file() -> None:
    line = "2001{:04x}000000000000000000000000 7f {} 00 {} 00000100 00000001 00000000 00000001 eth0"
    many = table("", "\n".join(line.format(number, NONE, NONE) for number in range(1000)))
    assert len(many.split(",")) == networks.MAX_NETWORKS
    longest = ",".join(["abcd:" * 7 + "abcd/127"] * networks.MAX_NETWORKS)
    assert FORMS["networks"][1].fullmatch(many) and FORMS["networks"][1].fullmatch(longest)
