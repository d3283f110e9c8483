# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Divides the time of transfers among their bottlenecks: of a running transfer, of a forecast, and of a whole run.

Each resource of a pipeline is busy for a share of the time (``limits.shares``). The busiest one is the bottleneck. If it were faster, the time
would shrink until another resource becomes the bottleneck.
"""

from __future__ import annotations

from collections.abc import Container

from .limits import Shares, limiting

FASTER = 2.0
"""By which factor a resource is made faster, to find out how that changes the time."""


class Bottlenecks:
    """Seconds for each limit, and how busy each resource was during them."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._busy: dict[str, dict[str, float]] = {}

    def charge(self, busy: Shares, seconds: float) -> None:
        """Add seconds during which the resources were so busy."""
        limit = limiting(busy)
        self._seconds[limit] = self._seconds.get(limit, 0.0) + seconds
        sums = self._busy.setdefault(limit, {})
        for name, share in busy.items():
            sums[name] = sums.get(name, 0.0) + share * seconds

    @property
    def seconds(self) -> float:
        """The total of all seconds."""
        return sum(self._seconds.values())

    @property
    def limit(self) -> str:
        """The limit of most of the time; empty when there is no time."""
        return max(self._seconds, key=lambda name: self._seconds[name], default="")

    def shares(self) -> dict[str, float]:
        """Return for which share of the time each resource was the limit, the largest first."""
        whole = self.seconds
        if not 0 < whole < float("inf"):
            return {}
        ordered = sorted(self._seconds.items(), key=lambda item: -item[1])
        return {name: seconds / whole for name, seconds in ordered if seconds}

    def busy(self) -> dict[str, float]:
        """Return how busy each resource was while :attr:`limit` was the limit."""
        seconds = self._seconds[self.limit]
        return {name: total / seconds for name, total in self._busy[self.limit].items()}

    def resources(self) -> dict[str, float]:
        """Return for how many seconds each resource was busy."""
        result: dict[str, float] = {}
        for sums in self._busy.values():
            for name, seconds in sums.items():
                result[name] = result.get(name, 0.0) + seconds
        return result

    def faster(self, names: Container[str]) -> Bottlenecks:
        """Return the times of this work if the given resources were ``FASTER`` times as fast."""
        result = Bottlenecks()
        for limit, sums in self._busy.items():
            better = {name: total / (FASTER if name in names else 1.0) for name, total in sums.items()}
            most = max(better.values())
            # The time shrinks as much as that of the busiest resource.
            seconds = self._seconds[limit] * most / sums[limit] if most else self._seconds[limit]
            result.charge({name: total / seconds for name, total in better.items()} if seconds else better, seconds)
        return result
