# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Forecasts how long a capture or a restore takes, what limits it, and what would help most, from a trial of some seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..module_utils.engine.stopwatch import BUSY, CPU
from ..module_utils.engine.trial import TRIAL_SECONDS
from ..module_utils.errors import ImagingError
from ..module_utils.quantities import duration
from .progress.bottlenecks import Bottlenecks
from .progress.limits import (
    CONTROLLER_CPU,
    LAPTOP_CPU,
    LIMITS,
    NETWORK,
    SOURCE_READ,
    STORE,
    TARGET_CPU,
    TARGET_READ,
    TARGET_WRITE,
    Shares,
    shares,
)
from .progress.meter import Meter
from .progress.time_left import read_back

BETTER: dict[tuple[str, ...], str] = {
    (SOURCE_READ,): "A disk that is read twice as fast",
    (LAPTOP_CPU, TARGET_CPU): "Twice the processor in the laptop",
    (NETWORK,): "A network twice as fast",
    (CONTROLLER_CPU,): "Twice the processor in the controller",
    (STORE,): "An image store twice as fast",
    (TARGET_WRITE, TARGET_READ): "A disk twice as fast in the laptop",
}
"""The possible improvements, as beginnings of sentences, by the resource that they improve."""

WORTH_SAYING = 0.02
"""A gain below this share of the total is ignored."""

ETHERNET_SHARE = 0.94
"""The share of Ethernet's bit rate that is available to us over TCP: 1448 of 1538 bytes in each packet, minus our own overhead."""

SETTLED = TRIAL_SECONDS / 2
"""Seconds at the end of a trial. The rest of the transfer is assumed to be like them."""

Part = tuple[Shares, float]
"""How busy each resource is in a part of a transfer, and the seconds of that part."""


@dataclass(frozen=True)
class Forecast:
    """The forecast: the streaming first, then the parts that come after it. ``fixed`` are seconds that do not depend on any speed."""

    parts: tuple[Part, ...]
    fixed: float = 0.0

    def bottlenecks(self) -> Bottlenecks:
        """Return how the time is divided among the limits."""
        found = Bottlenecks()
        for how_busy, seconds in self.parts:
            found.charge(how_busy, seconds)
        return found

    @property
    def seconds(self) -> float:
        """The total seconds."""
        return self.fixed + sum(seconds for _busy, seconds in self.parts)

    def shared(self, laptops: int, link_share: float, processors: int) -> Forecast:
        """Return the forecast for each of so many laptops at once.

        ``link_share`` is how busy one laptop keeps the controller's network connection. Each laptop has its own process on the controller, which
        uses one processor. The store is read for one laptop, and the others get the data from memory.
        """
        how_busy, seconds = self.parts[0]
        wanted = dict(how_busy)
        wanted[NETWORK] = max(wanted[NETWORK], link_share * laptops)
        wanted[CONTROLLER_CPU] *= max(1.0, laptops / processors)
        longer = max(1.0, *wanted.values())
        first = ({name: share / longer for name, share in wanted.items()}, seconds * longer)
        return Forecast((first, *self.parts[1:]), self.fixed)

    def to_json(self) -> dict[str, Any]:
        """Return the form of a result."""
        found = self.bottlenecks()
        helps = min(((found.faster(names), names) for names in BETTER), key=lambda pair: pair[0].seconds)
        better, names = helps
        gain = found.seconds - better.seconds
        then = f", and {better.limit} is the limit then" if better.limit != found.limit else ""
        advice = (
            f"{BETTER[names]} would help most: {duration(self.seconds - gain)} instead of {duration(self.seconds)}{then}."
            if gain > WORTH_SAYING * self.seconds
            else "No single part would help by being twice as fast."
        )
        return {
            "seconds": round(self.seconds, 3),
            "limit": found.limit,
            "code": LIMITS[found.limit].code if found.limit else "",
            "resources": {name: round(seconds, 3) for name, seconds in found.resources().items()},
            "advice": advice,
        }


def forecast(meter: Meter, elapsed: float, disk: Mapping[str, Any] | None = None) -> Forecast:
    """Forecast from a trial, which took ``elapsed`` seconds with everything before and after it; raises ImagingError.

    For a restore, ``disk`` says whether the disk is ``rotational``, and its assumed ``write_rate``.
    """
    status = meter.status
    left = meter.time_left.streaming(status, meter.limited_by, SETTLED) if status else None
    if status is None or left is None:
        raise ImagingError("Too little came over the link to forecast anything. Look at the network, then run again.")
    first, last = meter.history.streaming()
    streamed = last.at - first.at
    parts: list[Part] = [(shares(first.usage, last.usage, capturing=disk is None), streamed + left)]
    if disk is not None:
        seconds, how_busy = read_back(status, status.total)
        parts.append((how_busy, seconds))
        if disk["rotational"]:  # others zero ranges almost instantly
            parts.append(({TARGET_WRITE: 1.0}, (status.total - status.data_total) / max(1.0, disk["write_rate"])))
    return Forecast(tuple(parts), max(0.0, elapsed - streamed))


def measured_rates(meter: Meter, capturing: bool) -> dict[str, int | None]:
    """Return the rate of each stage while it was busy, in bytes a second, and the throughput of the link."""
    status, stages = meter.status, meter.stages()
    sent = meter.history.streaming()[1].wire

    def rate(size: int, *names: str, kind: str = BUSY) -> int | None:
        seconds = sum(stages[name][kind] for name in names if name in stages)
        return round(size / seconds) if size and seconds else None

    if status is None:
        return {}
    processed = status.data_done * status.workers
    link = round(meter.history.wire_rate())
    if capturing:
        compress, store = rate(processed, "hash", "compress", kind=CPU), rate(sent, "controller store")
        return {"read": rate(status.done, "read"), "compress": compress, "link": link, "store": store}
    decompress, store = rate(processed, "hash", "decompress", kind=CPU), rate(sent, "controller read store")
    return {"store": store, "link": link, "decompress": decompress, "read": rate(status.scanned, "read")}
