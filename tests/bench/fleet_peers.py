# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How else one file gets to many laptops: one multicast stream of udpcast, or one stream of nc for each laptop.

The laptops throw away what they get. So these peers need not write it, read it back or verify it, as ours does.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ..lab.network import Network
from .peers import FIRST_PORT, LISTEN_SECONDS, PeerFailed

SENDER = 0
"""The number of the controller's namespace; laptops have the numbers from 1."""


def seconds_of_multicast(folder: Path, file: Path, mbits: list[int]) -> list[float]:
    """Return the seconds that each laptop takes to get a file by udpcast; ``mbits`` are the rates of the links, the sender's first."""
    return _seconds(folder, mbits, lambda network, addresses: _start_multicast(network, file, len(addresses)))


def seconds_of_unicast(folder: Path, file: Path, mbits: list[int]) -> list[float]:
    """Return the seconds that each laptop takes to get a file by nc."""
    return _seconds(folder, mbits, lambda network, addresses: _start_unicast(network, file, addresses))


Process = subprocess.Popen[bytes]


def _seconds(
    folder: Path, mbits: list[int], start: Callable[[Network, list[str]], tuple[list[Process], list[Process]]]
) -> list[float]:
    network = Network(folder / "peers-network")
    subnet = network.up()
    try:
        addresses = [network.attach(number, subnet, mbit) for number, mbit in enumerate(mbits)]
        receivers, senders = start(network, addresses[1:])
        began, found = time.monotonic(), [0.0] * len(receivers)
        while not all(found):
            for number, receiver in enumerate(receivers):
                if not found[number] and receiver.poll() is not None:
                    found[number] = time.monotonic() - began
            time.sleep(0.05)
        for process in (*receivers, *senders):
            if process.wait():
                raise PeerFailed(f"{process.args!r} ended with status {process.returncode}.")
        return found
    finally:
        network.down()


def _start(network: Network, number: int, *command: str, file: Path | None = None) -> Process:
    inside = ["ip", "netns", "exec", network.namespace(number), *command]
    with (file or Path("/dev/null")).open("rb") as stdin:
        return subprocess.Popen(inside, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _start_multicast(network: Network, file: Path, count: int) -> tuple[list[Process], list[Process]]:
    options = ("--nokbd", "--interface", "eth0")
    receivers = [
        _start(network, number, "udp-receiver", *options, "--file", "/dev/null") for number in range(1, count + 1)
    ]
    sender = _start(
        network, SENDER, "udp-sender", *options, "--min-receivers", str(count), "--full-duplex", "--file", str(file)
    )
    return receivers, [sender]


def _start_unicast(network: Network, file: Path, addresses: list[str]) -> tuple[list[Process], list[Process]]:
    port = str(FIRST_PORT)
    receivers = [
        _start(network, number, "nc.openbsd", "-l", address, port) for number, address in enumerate(addresses, start=1)
    ]
    for number in range(1, len(addresses) + 1):
        _wait_until_listening(network.namespace(number), port)
    return receivers, [_start(network, SENDER, "nc.openbsd", "-N", address, port, file=file) for address in addresses]


def _wait_until_listening(namespace: str, port: str) -> None:
    deadline = time.monotonic() + LISTEN_SECONDS
    command = ["ip", "netns", "exec", namespace, "ss", "-Hltn", f"sport = :{port}"]
    while not subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout:
        if time.monotonic() > deadline:
            raise PeerFailed(f"No nc listens in {namespace} after {LISTEN_SECONDS:.0f} s.")
        time.sleep(0.05)
