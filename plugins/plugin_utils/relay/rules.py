# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules by which the laptops of a run take an image from one another.

Each laptop takes the image from one *upstream*: another laptop, or the controller. A laptop whose upstream is the controller is a *head*. Each
worker decides for its own laptop alone, from what all workers know of theirs. Nothing here waits, reads a clock, or opens a file.

- A new laptop takes from the newest one that nobody takes from yet. So the laptops form a chain in the order in which they come.
- A laptop that loses its upstream takes from the nearest laptop above that one, or becomes a head.
- A laptop that falls behind its upstream takes from above that one for a moment, in a *trial*. If that is much faster, the upstream was slow, else
  the laptop itself is. Nobody takes from a slow laptop any more, and it moves to the end of the chain, where it hinders nobody.
- A laptop that gets nothing at all from one that has something to give makes a trial too, after which it counts as slow in no case.
- A head has no upstream that it could fall behind. So a laptop below it makes such a trial once without being suspected. If both are slow, this
  finds neither.
- A head joins another head's chain if that one is longer.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

CONTROLLER = -1
"""The number of the controller as an upstream."""

MAX_AGE = 4.0
"""Seconds. Nobody begins to take from a laptop that was not heard for so long. Laptops report once a second."""

AVOIDED = 15.0
"""Seconds for which a laptop does not take from one that it has lost."""

MAX_UNREACHABLE = 3
"""After so many laptops to which it could not even connect, a laptop takes from the controller only: the network keeps laptops apart."""

SPAN = 2.0
"""Seconds over which the rate before a trial is measured."""

SLOW = 0.7
"""A laptop with less than this share of its upstream's rate falls behind."""

MIN_LAG = 1.0
"""Seconds of its upstream's rate by which a slow laptop must be behind."""

SUSPICIONS = 3
"""How many decisions in a row must find that a laptop falls behind."""

STARVED = 4.0
"""Seconds without progress after which a laptop makes a trial."""

TRIAL = 2.0
"""Seconds that a trial takes."""

FASTER = 1.5
"""By this factor a laptop must get faster in a trial, or else it goes back to where it was."""

WORTH_A_TRIAL = 60.0
"""Seconds that a head must still need. A trial of it costs two or three seconds, because both laptops share the controller's network."""


@dataclass(frozen=True)
class Member:
    """A laptop of the run. Times are in seconds of one clock of the controller, ``missing`` is in bytes of content."""

    number: int
    """Its place in the order of arrival, from 0."""
    name: str
    address: str
    port: int
    upstream: int = CONTROLLER
    """The number of the laptop that it takes from, or CONTROLLER."""
    missing: int = 0
    heard: float = 0.0
    """When its worker heard from it last."""
    gone: bool = False
    slow: bool = False
    """Nobody takes from it."""
    trial: bool = False
    """It takes from above its upstream for a moment."""
    proven: bool = False
    """A trial has shown that this head is not slow."""


class Fleet:
    """All laptops of a run at one time."""

    def __init__(self, members: Sequence[Member], now: float) -> None:
        """``members`` are in the order of their numbers."""
        self.members = members
        self.now = now

    @cached_property
    def _below(self) -> Mapping[int, list[Member]]:
        """For each number, the laptops that take from there."""
        below: dict[int, list[Member]] = defaultdict(list)
        for member in self.members:
            if not member.gone:
                below[member.upstream].append(member)
        return below

    def heads(self) -> list[Member]:
        """Return the lasting heads that others may take from."""
        return [each for each in self._below[CONTROLLER] if not each.trial and self.serves(each)]

    def lives(self, member: Member) -> bool:
        """Return whether a laptop was heard lately."""
        return not member.gone and self.now - member.heard <= MAX_AGE

    def serves(self, member: Member) -> bool:
        """Return whether others may begin to take from a laptop."""
        return self.lives(member) and not member.slow

    def takers(self, member: Member) -> Sequence[Member]:
        """Return the laptops that take from one."""
        return self._below.get(member.number, ())

    def above(self, number: int) -> Iterator[Member]:
        """Yield the laptops above one, also above one that is gone, from the nearest one."""
        seen: set[int] = set()
        number = self.members[number].upstream
        while number != CONTROLLER and number not in seen:
            seen.add(number)
            yield self.members[number]
            number = self.members[number].upstream

    def with_all_below(self, number: int) -> set[int]:
        """Return a laptop and all that take from it, also by way of others."""
        found = {number}
        waiting = [number]
        while waiting:
            new = [each.number for each in self._below[waiting.pop()] if each.number not in found]
            found.update(new)
            waiting += new
        return found


@dataclass(frozen=True)
class _Sample:
    time: float
    own: int
    upstream: int


@dataclass(frozen=True)
class _Trial:
    upstream: int
    """Where the laptop took from before."""
    suspected: bool
    """Whether the laptop itself is slow if its upstream is not."""
    rate: float
    """The laptop's rate before."""
    began: _Sample


class Guide:
    """Decides for one laptop."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._avoided: dict[int, float] = {}
        """Until when the laptop does not take from another one."""
        self._unreachable: set[int] = set()
        self._samples: deque[_Sample] = deque()
        self._suspicions = 0
        self._above = CONTROLLER
        """The upstream of the upstream at the latest sample."""
        self._trial: _Trial | None = None
        self._progress = (-1, 0.0)
        """What was missing at the latest progress, and when that was."""
        self._usual_rate = 0.0
        """The latest rate above 0."""

    def lost(self, number: int, now: float, reached: bool = True, damage: bool = False) -> None:
        """Note that the laptop could not take from another one, whether it could at least connect to it, and whether it was sent damage."""
        self._avoided[number] = math.inf if damage else now + AVOIDED
        if reached:
            self._unreachable.clear()
        else:
            self._unreachable.add(number)

    @property
    def alone(self) -> bool:
        """Whether the laptop takes from the controller only."""
        return len(self._unreachable) >= MAX_UNREACHABLE

    def join(self, members: Sequence[Member], now: float) -> Member:
        """Return the row of the laptop, the last of ``members``, with its first upstream."""
        return replace(members[-1], upstream=self._choose(Fleet(members, now), members[-1]))

    def decide(self, members: Sequence[Member], now: float) -> list[Member]:
        """Return the rows that change: usually none, or the laptop's own, or that of the upstream that was tried."""
        fleet = Fleet(members, now)
        me = members[self._number]
        upstream = members[me.upstream] if me.upstream != CONTROLLER else None
        if upstream is not None and self._must_leave(fleet, upstream):
            changes = [replace(me, trial=False, upstream=self._choose(fleet, me))]
        elif me.trial:
            changes = self._end_trial(fleet, me)
        elif upstream is None:
            changes = self._as_head(fleet, me)
        else:
            changes = self._below(fleet, me, upstream)
        if any(each.number == me.number and each.upstream != me.upstream for each in changes):
            self._samples.clear()
            self._suspicions = 0
            self._progress = (-1, now)
        return changes

    def _must_leave(self, fleet: Fleet, upstream: Member) -> bool:
        return upstream.gone or upstream.slow or self._avoids(upstream, fleet.now)

    def _as_head(self, fleet: Fleet, me: Member) -> list[Member]:
        """Join a longer chain; a slow head joins any other one."""
        mine = (len(fleet.with_all_below(me.number)), -me.number)
        for head in fleet.heads():
            if head.number == me.number or self._avoids(head, fleet.now):
                continue
            if me.slow or (len(fleet.with_all_below(head.number)), -head.number) > mine:
                return [replace(me, upstream=self._choose(fleet, me))]
        return []

    def _below(self, fleet: Fleet, me: Member, upstream: Member) -> list[Member]:
        if self._above != upstream.upstream:
            self._above = upstream.upstream
            self._samples.clear()
        self._samples.append(_Sample(fleet.now, me.missing, upstream.missing))
        while len(self._samples) > 1 and fleet.now - self._samples[1].time >= SPAN:
            self._samples.popleft()
        if self._crowds(fleet, me, upstream):
            end = self._end(fleet, me)
            if end is not None:
                return [replace(me, upstream=end)]
        if me.missing != self._progress[0]:
            self._progress = (me.missing, fleet.now)
        # An upstream that lacks as much starves itself, and is not to blame unless it is a head.
        lag = me.missing - upstream.missing
        to_blame = lag > MIN_LAG * self._usual_rate or upstream.upstream == CONTROLLER
        if me.missing and to_blame and fleet.now - self._progress[1] >= STARVED:
            self._suspicions = 0
            return self._begin_trial(fleet, me, upstream, 0.0)
        if me.slow or len(self._samples) == 1:
            return []
        own, theirs = self._rates(self._samples[-2])
        self._usual_rate = own or self._usual_rate
        behind = own < SLOW * theirs and lag > MIN_LAG * theirs
        self._suspicions = self._suspicions + 1 if behind else 0
        own, theirs = self._rates(self._samples[0])
        if self._suspicions >= SUSPICIONS:
            return self._begin_trial(fleet, me, upstream, own)
        known = fleet.now - self._samples[0].time >= SPAN
        untried = upstream.upstream == CONTROLLER and not upstream.proven
        if untried and known and not behind and me.missing > own * WORTH_A_TRIAL > 0:
            return self._begin_trial(fleet, me, upstream, own)
        return []

    def _crowds(self, fleet: Fleet, me: Member, upstream: Member) -> bool:
        """Return whether another laptop that needs the upstream more takes from it too."""
        mine = (not me.slow, len(fleet.with_all_below(me.number)), -me.number)
        others = [
            each
            for each in fleet.takers(upstream)
            if each.number != me.number and fleet.serves(each) and not each.trial
        ]
        return any((True, len(fleet.with_all_below(each.number)), -each.number) > mine for each in others)

    def _rates(self, since: _Sample) -> tuple[float, float]:
        """Return the rates of the laptop and of its upstream since a sample."""
        last = self._samples[-1]
        seconds = max(last.time - since.time, 1e-3)
        return (since.own - last.own) / seconds, (since.upstream - last.upstream) / seconds

    def _begin_trial(self, fleet: Fleet, me: Member, upstream: Member, rate: float) -> list[Member]:
        above = upstream.upstream
        if above != CONTROLLER and (
            not fleet.serves(fleet.members[above]) or self._avoids(fleet.members[above], fleet.now)
        ):
            return []
        if any(each.trial and each.upstream == above and fleet.lives(each) for each in fleet.members):
            return []
        self._trial = _Trial(me.upstream, self._suspicions >= SUSPICIONS, rate, self._samples[-1])
        return [replace(me, upstream=above, trial=True)]

    def _end_trial(self, fleet: Fleet, me: Member) -> list[Member]:
        trial = self._trial
        if trial is None:
            return [replace(me, trial=False)]
        seconds = fleet.now - trial.began.time
        if seconds < TRIAL:
            return []
        tried = fleet.members[trial.upstream]
        if (trial.began.own - me.missing) / seconds > FASTER * trial.rate:
            return [replace(me, trial=False), replace(tried, slow=True)]
        me = replace(me, trial=False, slow=me.slow or trial.suspected)
        # Meanwhile that laptop may have lost its upstream, and take from this one: going back would close a circle.
        back = trial.upstream if tried in self._usable(fleet, me) else self._choose(fleet, me)
        return [replace(me, upstream=back), *([] if trial.suspected else [replace(tried, proven=True)])]

    def _avoids(self, member: Member, now: float) -> bool:
        return now < self._avoided.get(member.number, now)

    def _choose(self, fleet: Fleet, me: Member) -> int:
        """Return the upstream that a laptop takes from now."""
        if self.alone:
            return CONTROLLER
        usable = self._usable(fleet, me)
        if not me.slow:
            for each in fleet.above(me.number):
                if each in usable:
                    return each.number
        end = self._end(fleet, me)
        if end is not None:
            return end
        return min(usable, key=lambda each: (len(fleet.takers(each)), -each.number)).number if usable else CONTROLLER

    def _end(self, fleet: Fleet, me: Member) -> int | None:
        """Return the newest laptop that nobody takes from, apart from slow laptops, which need little; None when there is none."""
        free = (
            each.number
            for each in self._usable(fleet, me)
            if not any(me.slow or not taker.slow for taker in fleet.takers(each))
        )
        return max(free, default=None)

    def _usable(self, fleet: Fleet, me: Member) -> list[Member]:
        """Return the laptops that one could take from, without a circle."""
        below = fleet.with_all_below(me.number)
        return [
            each
            for each in fleet.members
            if fleet.serves(each) and each.number not in below and not self._avoids(each, fleet.now)
        ]
