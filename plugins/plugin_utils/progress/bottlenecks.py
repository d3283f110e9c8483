# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of transfers goes, by what limited them: of one that goes on, of one that is forecast, of all of a run.

Whatever takes part in a pipeline is busy for a share of the time (``limits.shares``). The one that is busiest limits. Were it faster, the
time would shrink until the next one limits.
"""

from __future__ import annotations

from collections.abc import Container

from .limits import Shares, limiting

FASTER = 2.0
"""How many times as fast something is made, to see what that would change."""


class Bottlenecks:
    """Seconds by what limited, and how busy everything was meanwhile."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._busy: dict[str, dict[str, float]] = {}

    def charge(self, busy: Shares, seconds: float) -> None:
        """Add a time in which everything was so busy."""
        limit = limiting(busy)
        self._seconds[limit] = self._seconds.get(limit, 0.0) + seconds
        sums = self._busy.setdefault(limit, {})
        for name, share in busy.items():
            sums[name] = sums.get(name, 0.0) + share * seconds

    @property
    def seconds(self) -> float:
        """All of the time."""
        return sum(self._seconds.values())

    @property
    def limit(self) -> str:
        """What limited for most of the time; empty when there is no time."""
        return max(self._seconds, key=lambda name: self._seconds[name], default="")

    def shares(self) -> dict[str, float]:
        """For what share of the time each limited, the largest first."""
        whole = self.seconds
        if not 0 < whole < float("inf"):
            return {}
        ordered = sorted(self._seconds.items(), key=lambda item: -item[1])
        return {name: seconds / whole for name, seconds in ordered if seconds}

    def busy(self) -> dict[str, float]:
        """How busy everything was while :attr:`limit` limited."""
        seconds = self._seconds[self.limit]
        return {name: total / seconds for name, total in self._busy[self.limit].items()}

    def resources(self) -> dict[str, float]:
        """For how many seconds each was busy."""
        result: dict[str, float] = {}
        for sums in self._busy.values():
            for name, seconds in sums.items():
                result[name] = result.get(name, 0.0) + seconds
        return result

    def faster(self, names: Container[str]) -> Bottlenecks:
        """The same work, if these were ``FASTER`` times as fast."""
        result = Bottlenecks()
        for limit, sums in self._busy.items():
            better = {name: total / (FASTER if name in names else 1.0) for name, total in sums.items()}
            most = max(better.values())
            # It takes as much less time as the busiest one has less to do.
            seconds = self._seconds[limit] * most / sums[limit] if most else self._seconds[limit]
            result.charge({name: total / seconds for name, total in better.items()} if seconds else better, seconds)
        return result
