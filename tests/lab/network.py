# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network: a bridge of this machine, and for each laptop a network namespace with one link to it.

Every name begins with a prefix that is made from the lab's folder, so that what is left of a lab is found without a
record of it. The addresses are of 198.18.0.0/15, which RFC 2544 sets aside for test networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from .tools import LabError, run

TEST_NETWORKS = ipaddress.IPv4Network("198.18.0.0/15")
PREFIX_LENGTH = 22
FIRST_LAPTOP = 10
MAX_LAPTOPS = 1000


class Network:
    """The network of the lab in a folder."""

    def __init__(self, folder: Path) -> None:
        self.prefix = "fl" + hashlib.sha256(str(folder).encode()).hexdigest()[:6]
        self.bridge = f"{self.prefix}-br"

    def up(self) -> ipaddress.IPv4Network:
        """Make the bridge, with the first address of a subnet that nobody here uses; return the subnet."""
        with _alone():
            subnet = _free_subnet()
            run("ip", "link", "add", self.bridge, "type", "bridge")
            run("ip", "address", "add", f"{subnet[1]}/{PREFIX_LENGTH}", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        return subnet

    def attach(self, number: int, subnet: ipaddress.IPv4Network, mbit: int | None) -> str:
        """Make the namespace of a laptop, by its number from 0, and its link, limited to Mbit/s; return its address."""
        namespace, port, address = self.namespace(number), self.port(number), str(subnet[FIRST_LAPTOP + number])
        run("ip", "netns", "add", namespace)
        run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run("ip", "link", "set", port, "master", self.bridge, "up")
        inside = ["ip", "-n", namespace]
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{address}/{PREFIX_LENGTH}", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        if mbit:
            self.limit(number, mbit)
        return address

    def limit(self, number: int, mbit: int) -> None:
        """Limit a laptop's link to Mbit/s in both directions, instead of what it was limited to before."""
        _limit(["tc"], self.port(number), mbit)
        _limit(["tc", "-n", self.namespace(number)], "eth0", mbit)

    def namespace(self, number: int) -> str:
        """Return the name of a laptop's network namespace."""
        return f"{self.prefix}-{number}"

    def port(self, number: int) -> str:
        """Return the name of the interface at the bridge's end of a laptop's link."""
        return f"{self.prefix}-{number}"

    def set_link(self, number: int, state: str) -> None:
        """Take a laptop's cable out ("down") or put it in again ("up")."""
        run("ip", "link", "set", self.port(number), state)

    def down(self) -> None:
        """Remove what is there of it."""
        for namespace in _named(run("ip", "-json", "netns", "list")):
            if namespace.startswith(f"{self.prefix}-"):
                run("ip", "netns", "delete", namespace)
        for link in _named(run("ip", "-json", "link", "show"), "ifname"):
            # The kernel removes a link along with the namespace of its other end, at its leisure.
            if link.startswith(f"{self.prefix}-"):
                with contextlib.suppress(LabError):
                    run("ip", "link", "delete", link)
        left = [
            name for name in _named(run("ip", "-json", "link", "show"), "ifname") if name.startswith(f"{self.prefix}-")
        ]
        if left:
            raise LabError(f"could not remove the network interfaces {', '.join(left)}; run this again")


def _named(listed: str, key: str = "name") -> list[str]:
    return [entry[key] for entry in json.loads(listed or "[]")]


def _limit(tc: list[str], interface: str, mbit: int) -> None:
    # A bucket for 10 ms of traffic, and no smaller than the largest packet that a virtual link carries at once.
    burst = max(65536, mbit * 1_000_000 // 8 // 100)
    shape = ["rate", f"{mbit}mbit", "burst", str(burst), "latency", "50ms"]
    run(*tc, "qdisc", "replace", "dev", interface, "root", "tbf", *shape)


def _free_subnet() -> ipaddress.IPv4Network:
    used = [
        ipaddress.IPv4Interface(f"{address['local']}/{address['prefixlen']}").network
        for interface in json.loads(run("ip", "-4", "-json", "address", "show"))
        for address in interface.get("addr_info", [])
    ]
    for subnet in TEST_NETWORKS.subnets(new_prefix=PREFIX_LENGTH):
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise LabError(f"every subnet of {TEST_NETWORKS} is in use here; take a lab down")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one lab at a time choose its subnet. The name of an abstract socket leaves no file, and ends with its process."""
    with socket.socket(socket.AF_UNIX) as lock:
        for _ in range(100):
            try:
                lock.bind("\0fleet.imaging-lab-network")
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise LabError("another lab has been choosing its subnet for 10 s; end it and try again")
        yield
