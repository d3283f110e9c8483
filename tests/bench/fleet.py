# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long many laptops take that pass an image on, against one laptop alone, and what the controller sends.

Each laptop is a process in a network namespace of its own, with the laptop's half of a restore. All workers are threads of one process in one more
namespace. Ansible is left out, which is what allows for so many. All links, also the controller's, have the same rate, which is so low that they are
the limit and not the processors of this machine.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import STORE

from ..lab.network import Network
from .fleet_peers import seconds_of_multicast, seconds_of_unicast
from .speed import Say
from .state import Bar

CHUNK = 256 << 10
MBIT = 8
COUNTS = (8, 16, 32)
SECONDS = 60.0
"""About how long one laptop alone takes, so that seconds weigh as little as on a real image."""

SECONDS_BESIDE_PEERS = 30.0
"""The same beside peers, of which unicast takes as long for each laptop."""

LIMIT = 400.0
FAULTY = 8
"""The number of laptops in the cases with a fault."""

RUN = "ansible_collections.fleet.imaging.tests.bench.fleet_run"


@dataclass(frozen=True)
class Fault:
    """What happens to the laptop at a place in the order of arrival, when it has a share of the image."""

    kind: str
    """``kill``, ``stop`` (SIGSTOP), ``cut`` (its link goes down) or ``slow`` (its link is slow from the beginning)."""
    place: int
    share: float = 0.5
    mbit: int = max(1, MBIT // 10)
    """The rate of a slow link."""
    count: int = 1
    """How many neighbours it happens to; more than one only where their links are slow."""

    @property
    def places(self) -> range:
        """The places of all that it happens to."""
        return range(self.place, self.place + self.count)

    def __str__(self) -> str:
        others = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.kind} of laptop {self.place + 1}{others} at {self.share:.0%}"


FAULTS = [
    *(Fault(kind, place) for kind in ("kill", "cut", "stop", "slow") for place in (0, 3, FAULTY - 1)),
    Fault("slow", 0, mbit=MBIT // 4, count=2),
]


@dataclass(frozen=True)
class Fleet:
    """One run: seconds of each laptop from its own start, in the order of arrival (None: it failed), and images that the controller sent.

    The images are those that it had sent when all laptops were done but those with a fault.
    """

    seconds: list[float | None]
    images: float
    taken_from: list[list[str]] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)
    """When a laptop was told to take chunks from where, and why it left another one."""
    warnings: list[str] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Processor seconds of each laptop."""
    images_of_store: float = 0.0
    """Images that the server of the image store sent, if there is one."""

    @property
    def slowest(self) -> float:
        """Seconds of the slowest laptop; ``LIMIT`` if one failed."""
        return max(each or LIMIT for each in self.seconds)


StoreServer = Callable[[Sequence[str], str], contextlib.AbstractContextManager[HttpLocation]]
"""Serves the image at an address, in the namespace that the beginning of a command enters."""


def measure_fleet(folder: Path, say: Say) -> list[Bar]:
    """Measure all counts and faults."""
    image = make_image(folder)
    alone = run_fleet(folder, image, 1)
    one = alone.seconds[0]
    assert one is not None
    say(f"fleet: one laptop takes {one:.1f} s")
    bars = []
    for count in COUNTS:
        found = run_fleet(folder, image, count)
        slowest = max((each for each in found.seconds if each is not None), default=LIMIT)
        details = asdict(found) | {"alone": one}
        bars.append(Bar(f"fleet-{count}", f"{count} laptops against one", slowest / one, 1.1, details=details))
        bars.append(Bar(f"fleet-{count}", f"images sent to {count} laptops", found.images, 1.2, "images"))
        say(f"fleet: {count} laptops take {slowest / one:.2f} x, {found.images:.2f} images")
    for fault in FAULTS:
        found = run_fleet(folder, image, FAULTY, fault)
        others = [each for place, each in enumerate(found.seconds) if place not in fault.places]
        slowest = max(each or LIMIT for each in others)
        details = asdict(found) | {"alone": one}
        allowed = 1.2 + (3 / one if fault.kind != "slow" else 0)
        bars.append(Bar(f"fleet-{fault.kind}", f"the others, {fault}", slowest / one, allowed, details=details))
        bars.append(Bar(f"fleet-{fault.kind}", f"images sent, {fault}", found.images, 1.3, "images"))
        say(f"fleet: {fault}: the others take {slowest / one:.2f} x, {found.images:.2f} images")
    return bars + _compare(folder, say)


def _compare(folder: Path, say: Say) -> list[Bar]:
    """Measure the same beside multicast and unicast, without and with a laptop whose link has a quarter of the rate."""
    slow = Fault("slow", FAULTY // 2, mbit=MBIT // 4)
    store = make_image(folder, SECONDS_BESIDE_PEERS)
    file = next(store.iterdir())
    bars = []
    for fault in (None, slow):
        mbits = [MBIT] * (FAULTY + 1)
        if fault is not None:
            mbits[fault.place + 1] = fault.mbit
        places = [place for place in range(FAULTY) if fault is None or place != fault.place]
        ours = run_fleet(folder, store, FAULTY, fault).seconds
        peers = {"multicast": seconds_of_multicast(folder, file, mbits)}
        if fault is None:
            peers["unicast"] = seconds_of_unicast(folder, file, mbits)
        slowest = max(ours[place] or LIMIT for place in places)
        for name, seconds in peers.items():
            theirs = max(seconds[place] for place in places)
            what = f"{FAULTY} laptops, of {name}" + (", one link slow, the others" if fault else "")
            details = {"ours": ours, name: seconds}
            bars.append(Bar("fleet-peers", what, slowest / theirs, 1.1, details=details))
            say(f"fleet: {what}: {slowest:.1f} s, {name} {theirs:.1f} s")
    return bars


def make_image(folder: Path, seconds: float = SECONDS) -> Path:
    """Make an image that takes about so many seconds to send at ``MBIT``; return its store."""
    from ..unit.plugins.module_utils import samples

    store = folder / f"fleet-store-{seconds:.0f}"
    store.mkdir(mode=0o700)
    size = int(seconds * MBIT * 1e6 / 8) // CHUNK * CHUNK
    content = random.Random(5).randbytes(size)
    samples.make_image(str(store / "fleet.img.zst"), content, samples.Used((0, size)), CHUNK)
    return store


def run_fleet(
    folder: Path, store: Path, count: int, fault: Fault | None = None, server: StoreServer | None = None
) -> Fleet:
    """Run a fleet in namespaces, which are removed afterwards. ``server``, if there is one, has a link of its own, as fast as the others."""
    network = Network(folder / "fleet-network")
    subnet = network.up()
    with contextlib.ExitStack() as stack:
        stack.callback(network.down)
        addresses = [network.attach(number, subnet, MBIT) for number in range(count + 1)]
        if fault is not None and fault.kind == "slow":
            for place in fault.places:
                network.limit(place + 1, fault.mbit)
        plan = {
            "store": str(store),
            "folder": str(folder),
            "namespaces": [network.namespace(number) for number in range(1, count + 1)],
            "addresses": addresses[1:],
            "fault": None if fault is None else asdict(fault) | {"places": [*fault.places]},
            "limit": LIMIT * (10 if fault is not None and fault.kind == "slow" else 1),
            "servers": {},
        }
        sent_by_store = Path("/sys/class/net", network.port(count + 1), "statistics/rx_bytes")
        if server is not None:
            address = network.attach(count + 1, subnet, None)
            location = stack.enter_context(server(_inside(network, count + 1), address))
            network.limit(count + 1, MBIT)
            plan["servers"] = {STORE: asdict(location)}
        before = int(sent_by_store.read_text()) if server is not None else 0
        command = [*_inside(network, 0), sys.executable, "-m", RUN, "controller", json.dumps(plan)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=Path(__file__).parents[5])
        sent = int(sent_by_store.read_text()) - before if server is not None else 0
        values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return Fleet(**values, images_of_store=sent / next(store.iterdir()).stat().st_size)


def _inside(network: Network, number: int) -> list[str]:
    return ["ip", "netns", "exec", network.namespace(number)]
