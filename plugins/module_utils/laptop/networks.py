# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks that this machine is part of, from the kernel's tables of routes."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Callable, Iterator, Union

Network = Union[IPv4Network, IPv6Network]

MAX_NETWORKS = 32
"""A machine with many containers is part of many networks."""

UP, GATEWAY, REJECT, ANYCAST, LOCAL = 0x1, 0x2, 0x200, 0x100000, 0x80000000
"""Flags of a route. Source: linux/route.h and linux/ipv6_route.h."""


def own_networks(read: Callable[[Path], str] = Path.read_text) -> str:
    """Return the networks of this machine in the form 198.51.100.0/24, separated by commas. ``read`` returns the content of a file.

    These are the networks that it reaches without a gateway: an address of DHCPv6 does not tell its network.
    """
    found: list[Network] = []
    for path, parse in (("/proc/net/route", _ipv4), ("/proc/net/ipv6_route", _ipv6)):
        try:
            found += parse(read(Path(path)))
        except (OSError, ValueError, LookupError):  # a kernel without IPv6 has no such file
            continue
    shared = [str(each) for each in found if 0 < each.prefixlen < each.max_prefixlen and not each.is_link_local]
    return ",".join(list(dict.fromkeys(shared))[:MAX_NETWORKS])


def _ipv4(table: str) -> Iterator[Network]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        if _is_direct(int(fields[3], 16)):
            address, mask = (IPv4Address(int(field, 16).to_bytes(4, sys.byteorder)) for field in (fields[1], fields[7]))
            yield IPv4Network(f"{address}/{mask}")


def _ipv6(table: str) -> Iterator[Network]:
    for line in table.splitlines():
        fields = line.split()
        network = IPv6Network(f"{IPv6Address(int(fields[0], 16))}/{int(fields[1], 16)}")
        if _is_direct(int(fields[8], 16)) and not network.is_multicast:
            yield network


def _is_direct(flags: int) -> bool:
    """Return whether a route leads to machines that are reached without a gateway."""
    return flags & UP != 0 and not flags & (GATEWAY | REJECT | ANYCAST | LOCAL)
