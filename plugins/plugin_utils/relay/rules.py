# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules by which the laptops of a run take an image from one another.

Each laptop takes the image from one *upstream*: another laptop, or the controller. A laptop whose upstream is the controller is a *head*. Each
worker decides for its own laptop alone, from what all workers know of theirs. Nothing here waits, reads a clock, or opens a file.

- A new laptop takes from the newest one that nobody takes from yet. So the laptops form a chain in the order in which they come.
- A laptop that loses its upstream takes from the nearest laptop above that one, or becomes a head.
- A slow laptop holds up all below it, at the same rate. So rates say which laptop is slow only where one falls behind another. But a record
  arrives at the speed of the two ports that it crosses, also if its sender mostly waits for others. From how fast records arrive, and from how fast
  it writes, each laptop's *speed* is known, all at the same time.
- A laptop takes from above the slow ones for a moment, in a *trial*, if their speed is what holds it up. If it gets much more there, or records
  arrive much faster, it stays, and those that it has passed over are slow.
- A laptop that falls behind its upstream makes such a trial, too. If that is not much faster, the laptop itself is slow.
- A laptop that gets nothing at all from one that has something to give makes a trial, after which it counts as slow in no case.
- The laptop below a head makes one trial anyway: where every second laptop is slow, all speeds are the same.
- A laptop takes from no slower one. So slow laptops move to the end of the chain, where they hinder nobody, and are a chain of their own there.
- A slow laptop that gets much more than when it was found slow was found so by mistake, because both its neighbours were slow.
- A head joins another head's chain if that one is faster or longer.
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

MAX_TRIALS = 3
"""How many laptops may take from another one in a trial at a time. From the controller, it is one."""

FASTER = 1.5
"""By this factor a laptop must get faster in a trial, or else it goes back to where it was."""

AT_MOST = 2.0
"""A laptop may be held up by one whose speed is at most so many times what it gets. By this factor, one laptop is slower than another one."""

AT_LEAST = 3.0
"""A laptop whose speed is at least so many times what another one gets is not what holds that one up."""

AHEAD = 10.0
"""Nor is a laptop that is ahead of it by more than it gets in so many seconds."""

PAUSE = 15.0
"""Seconds after a trial in vain until a laptop that is held up makes the next one; doubled each time."""

SETTLED = 6.0
"""Seconds in which the speeds of all laptops should be known. Only then one tries a head without a reason."""

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
    limit: float = math.inf
    """The rate, in bytes a second, at which it was found slow. Nobody takes from a laptop that is slower than itself."""
    sends_slowly: bool = False
    """Whether others got little from it although it had more. So how much it gets itself does not matter."""
    receives: float = 0.0
    """Bytes a second at which records arrive from its upstream, or a head's from a server, once they have begun to; 0: not known yet."""
    writes: float = math.inf
    """Bytes a second that its disk and its processors could write."""
    trial: bool = False
    """It takes from above its upstream for a moment."""
    proven: bool = False
    """A trial has shown that this head is not slow."""

    @property
    def slow(self) -> bool:
        """Whether it was found slow."""
        return self.limit < math.inf

    def is_slower(self, other: Member) -> bool:
        """Return whether it was found slower than another one, which must not take from it."""
        return AT_MOST * self.limit < other.limit

    @property
    def is_origin(self) -> bool:
        """Whether this is the laptop that all others become equal to. The controller itself takes from there, so nothing is above it."""
        return self.heard == math.inf


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
        return [each for each in self._below[CONTROLLER] if not each.trial and self.lives(each)]

    def is_head(self, member: Member) -> bool:
        """Return whether nothing but the source of all chunks is above a laptop."""
        return member.upstream == CONTROLLER or self.members[member.upstream].is_origin

    def lives(self, member: Member) -> bool:
        """Return whether a laptop was heard lately."""
        return not member.gone and self.now - member.heard <= MAX_AGE

    def speed(self, member: Member) -> float:
        """Return how fast a laptop could take and give, in bytes a second; 0: not known yet.

        Of the two ports that a record crosses, the slower one determines how fast it arrives. So the faster of its links tells more of a laptop.
        """
        if not member.receives and member.upstream == CONTROLLER:
            return 0.0  # nothing has arrived yet
        return min(member.writes, max([member.receives, *(taker.receives for taker in self.takers(member))]))

    def takers(self, member: Member) -> Sequence[Member]:
        """Return the laptops that take from one and were heard lately."""
        return [each for each in self._below.get(member.number, ()) if self.lives(each)]

    def above(self, number: int) -> Iterator[Member]:
        """Yield the laptops above one, also above one that is gone, from the nearest one."""
        seen: set[int] = set()
        number = self.members[number].upstream
        while number != CONTROLLER and number not in seen:
            seen.add(number)
            yield self.members[number]
            number = self.members[number].upstream

    def holding_up(self, me: Member, rate: float) -> list[Member]:
        """Return the slow laptops right above one that gets ``rate``, if it could get much more from above them.

        Above them is a fast laptop, or the controller, if this laptop is known to be fast itself.
        """
        passed: list[Member] = []
        for each in self.above(me.number):
            if each.is_origin:
                break
            speed = self.speed(each)
            if speed > AT_MOST * rate:
                return passed if speed >= AT_LEAST * rate else []
            if not speed:
                return []
            passed.append(each)
        return passed if self.speed(me) >= AT_LEAST * rate else []

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


class _Rates:
    """The rates of a laptop and of its upstream, in bytes of content a second."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()
        self._above = CONTROLLER
        """The upstream of the upstream at the latest sample."""
        self._began = 0.0
        """The time of the first sample with these two."""
        self._progress = (-1, 0.0)
        """What was missing at the latest progress, and when that was."""
        self._usual = 0.0
        """The laptop's latest rate above 0."""

    def restart(self, now: float) -> None:
        """Begin with another upstream."""
        self._samples.clear()
        self._progress = (-1, now)

    def add(self, now: float, me: Member, upstream: Member) -> None:
        """Take what both lack now."""
        if self._above != upstream.upstream:
            self._above = upstream.upstream
            self._samples.clear()
        if not self._samples:
            self._began = now
        self._samples.append(_Sample(now, me.missing, upstream.missing))
        while len(self._samples) > 1 and now - self._samples[1].time >= SPAN:
            self._samples.popleft()
        if me.missing != self._progress[0]:
            self._progress = (me.missing, now)
        if len(self._samples) > 1:
            self._usual = self._since(-2)[0] or self._usual

    @property
    def latest(self) -> _Sample:
        """The latest sample."""
        return self._samples[-1]

    @property
    def stalled(self) -> float:
        """The seconds without progress of the laptop."""
        return self.latest.time - self._progress[1]

    @property
    def settled(self) -> bool:
        """Whether the upstream, and the one above it, have been the same for a while."""
        return self.latest.time - self._began >= SETTLED

    @property
    def known(self) -> bool:
        """Whether the rates are those of the whole span."""
        return self.latest.time - self._samples[0].time >= SPAN

    @property
    def behind(self) -> bool:
        """Whether the laptop falls behind its upstream."""
        if len(self._samples) == 1:
            return False
        own, theirs = self._since(-2)
        return own < SLOW * theirs and self.lag > MIN_LAG * theirs

    @property
    def lag(self) -> int:
        """The bytes that the laptop lacks and its upstream has."""
        return self.latest.own - self.latest.upstream

    @property
    def waits(self) -> bool:
        """Whether the upstream has something that the laptop lacks."""
        return self.lag > MIN_LAG * self._usual

    @property
    def own(self) -> float:
        """The laptop's rate."""
        return self._since(0)[0]

    def _since(self, first: int) -> tuple[float, float]:
        since, last = self._samples[first], self._samples[-1]
        seconds = max(last.time - since.time, 1e-3)
        return (since.own - last.own) / seconds, (since.upstream - last.upstream) / seconds


@dataclass(frozen=True)
class _Trial:
    passed: Sequence[Member]
    """The laptops between this one and the one that is tried; first where it took from before."""
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
        self._rates = _Rates()
        self._suspicions = 0
        self._trial: _Trial | None = None
        self._again = -math.inf
        """When a laptop that is held up may make a trial again."""
        self._pause = PAUSE

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
        if upstream is not None and self._must_leave(fleet, me, upstream):
            changes = [replace(me, trial=False, upstream=self._choose(fleet, me))]
        elif me.trial:
            changes = self._end_trial(fleet, me)
        elif upstream is None:
            changes = self._as_head(fleet, me)
        else:
            changes = self._below(fleet, me, upstream)
        if any(each.number == me.number and each.upstream != me.upstream for each in changes):
            self._rates.restart(now)
            self._suspicions = 0
            changes = [replace(each, receives=0.0) if each.number == me.number else each for each in changes]
        return changes

    def _must_leave(self, fleet: Fleet, me: Member, upstream: Member) -> bool:
        return upstream.gone or upstream.is_slower(me) or self._avoids(upstream, fleet.now)

    def _as_head(self, fleet: Fleet, me: Member) -> list[Member]:
        """Join a faster chain, or a longer one."""

        def rank(head: Member) -> tuple[bool, float, int, int]:
            return head.is_origin, head.limit, len(fleet.with_all_below(head.number)), -head.number

        mine = rank(me)
        if any(rank(head) > mine and not self._avoids(head, fleet.now) for head in fleet.heads()):
            return [replace(me, upstream=self._choose(fleet, me))]
        return []

    def _below(self, fleet: Fleet, me: Member, upstream: Member) -> list[Member]:
        rates = self._rates
        rates.add(fleet.now, me, upstream)
        if self._crowds(fleet, me, upstream):
            end = self._end(fleet, me)
            if end is not None:
                return [replace(me, upstream=end)]
        head = fleet.is_head(upstream)
        # An upstream that lacks as much starves itself, and is not to blame unless it is a head.
        if me.missing and (rates.waits or head) and rates.stalled >= STARVED:
            self._suspicions = 0
            return self._begin_trial(fleet, me, [upstream], 0.0)
        expected = me.is_slower(upstream)
        suspect = rates.behind and not expected and len(fleet.takers(upstream)) == 1
        self._suspicions = self._suspicions + 1 if suspect else 0
        own = rates.own
        if self._suspicions >= SUSPICIONS:
            return self._begin_trial(fleet, me, [upstream], own)
        if not rates.known or not own:
            return []
        if own > AT_MOST * me.limit and not me.sends_slowly:
            return [replace(me, limit=math.inf)]
        passed = fleet.holding_up(me, own)
        if passed and fleet.now >= self._again and me.missing > own * TRIAL:
            return self._begin_trial(fleet, me, passed, own)
        untried = head and rates.settled and not upstream.proven
        if untried and not expected and not rates.behind and me.missing > own * WORTH_A_TRIAL:
            return self._begin_trial(fleet, me, [upstream], own)
        return []

    def _crowds(self, fleet: Fleet, me: Member, upstream: Member) -> bool:
        """Return whether another laptop that needs the upstream more takes from it too."""

        def rank(taker: Member) -> tuple[float, int, int]:
            return taker.limit, len(fleet.with_all_below(taker.number)), -taker.number

        mine = rank(me)
        return any(rank(each) > mine for each in fleet.takers(upstream) if not each.trial)

    def _begin_trial(self, fleet: Fleet, me: Member, passed: Sequence[Member], rate: float) -> list[Member]:
        above = passed[-1].upstream
        if passed[-1].is_origin:
            return []
        if above != CONTROLLER and (
            not self._may_take(fleet, me, fleet.members[above]) or self._avoids(fleet.members[above], fleet.now)
        ):
            return []
        trials = [each for each in fleet.members if each.trial and each.upstream == above and fleet.lives(each)]
        if len(trials) >= (1 if above == CONTROLLER else MAX_TRIALS):
            return []
        suspected = self._suspicions >= SUSPICIONS
        self._trial = _Trial(passed, suspected, rate, self._rates.latest)
        return [replace(me, upstream=above, trial=True)]

    def _end_trial(self, fleet: Fleet, me: Member) -> list[Member]:
        trial = self._trial
        if trial is None:
            return [replace(me, trial=False)]
        seconds = fleet.now - trial.began.time
        if seconds < TRIAL:
            return []
        passed = [fleet.members[each.number] for each in trial.passed]
        rate = (trial.began.own - me.missing) / seconds
        certain = trial.suspected or not trial.rate
        # One that starves itself gives no more than before, but what it gives arrives fast.
        fast = me.upstream != CONTROLLER and min(me.receives, me.writes) >= AT_LEAST * trial.rate and not certain
        if fast or rate > FASTER * trial.rate:
            slow = [
                replace(
                    each,
                    limit=min(each.limit, trial.rate if certain else fleet.speed(each)),
                    sends_slowly=each.sends_slowly or certain,
                )
                for each, before in zip(passed, trial.passed, strict=True)
                if certain or self._is_to_blame(fleet, trial, before, each)
            ]
            limit = math.inf if fast or rate > AT_MOST * me.limit else me.limit
            return [replace(me, trial=False, limit=limit), *slow]
        self._again, self._pause = fleet.now + self._pause, 2 * self._pause
        me = replace(me, trial=False, limit=min(me.limit, trial.rate) if trial.suspected else me.limit)
        # Meanwhile that laptop may have lost its upstream, and take from this one: going back would close a circle.
        back = passed[0].number if passed[0] in self._usable(fleet, me) else self._choose(fleet, me)
        return [replace(me, upstream=back), *([] if trial.suspected else [replace(passed[-1], proven=True)])]

    @staticmethod
    def _is_to_blame(fleet: Fleet, trial: _Trial, before: Member, now: Member) -> bool:
        """Return whether a laptop that was passed in a trial held up the laptop that made it, and is still as slow."""
        in_step = trial.began.own - before.missing <= AHEAD * trial.rate
        in_place = before is trial.passed[0] or now.upstream == before.upstream
        return in_step and in_place and 0 < fleet.speed(now) <= AT_MOST * trial.rate

    def _avoids(self, member: Member, now: float) -> bool:
        return now < self._avoided.get(member.number, now)

    def _choose(self, fleet: Fleet, me: Member) -> int:
        """Return the upstream that a laptop takes from now."""
        if self.alone:
            return CONTROLLER
        usable = self._usable(fleet, me)
        for each in fleet.above(me.number):
            if each in usable:
                return each.number
        end = self._end(fleet, me)
        if end is not None:
            return end
        return min(usable, key=lambda each: (len(fleet.takers(each)), -each.number)).number if usable else CONTROLLER

    def _end(self, fleet: Fleet, me: Member) -> int | None:
        """Return the slowest, else the newest laptop that nobody takes from, apart from slower laptops; None when there is none."""

        def rank(other: Member) -> tuple[float, bool, int]:
            return -other.limit, fleet.speed(me) <= AT_LEAST * fleet.speed(other), other.number

        free = [each for each in self._usable(fleet, me) if all(taker.is_slower(me) for taker in fleet.takers(each))]
        return max(free, key=rank).number if free else None

    def _usable(self, fleet: Fleet, me: Member) -> list[Member]:
        """Return the laptops that one could take from, without a circle."""
        below = fleet.with_all_below(me.number)
        return [
            each
            for each in fleet.members
            if self._may_take(fleet, me, each) and each.number not in below and not self._avoids(each, fleet.now)
        ]

    def _may_take(self, fleet: Fleet, me: Member, other: Member) -> bool:
        """Return whether a laptop may begin to take from another one."""
        return fleet.lives(other) and not other.is_slower(me)
