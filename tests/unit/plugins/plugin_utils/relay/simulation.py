# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulation of many laptops that follow the real rules. Data flows as a fluid, with a delay of one frame at each laptop.

The rate of one port is 1, and sizes are in seconds at that rate.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.rules import CONTROLLER, Fleet, Guide, Member

STEP = 0.1
SILENCE = 2.5
"""How long a laptop waits for an upstream that has died without a reset."""

BUFFER = 0.3
"""How much a laptop receives before it is written."""

SCALE = 1 << 20
"""``Member.missing`` for one second at the rate of a port."""


@dataclass
class Laptop:
    """One simulated laptop. It receives at the rate ``takes``, writes at the rate ``writes`` and sends at the rate ``gives``."""

    start: float
    takes: float = 1.0
    gives: float = 1.0
    writes: float = float("inf")
    dies: float = float("inf")
    resets: bool = True
    """Whether others learn of its death at once."""
    stalls: Sequence[tuple[float, float]] = ()
    """When it does nothing: from and to."""
    cannot_reach: Callable[[int], bool] = lambda number: False
    done: float = 0.0
    """What it has received."""
    written: float = 0.0
    receives: float = 0.0
    """The rate at which a record arrives once it has begun to."""
    finished: float | None = None
    sent: float = 0.0
    """What the controller had sent when it was finished."""
    left: float | None = None
    noticed: float | None = None
    """When it noticed that its upstream is silent."""
    blocked: float = 0.0
    """It receives nothing before then: it connects."""
    number: int = -1
    guide: Guide | None = None
    fed_by: list[int] = field(default_factory=list)


class Simulation:
    """A run: ``size`` is that of the image, ``frame`` that of one frame, ``read_back`` how long a laptop stays after it has everything."""

    def __init__(
        self,
        laptops: Sequence[Laptop],
        size: float,
        frame: float = 0.018,
        read_back: float = 20.0,
        controller: float = 1.0,
        seed: int = 1,
    ) -> None:
        self.laptops = laptops
        self.size = size
        self.frame = frame
        self.read_back = read_back
        self.controller = controller
        self.sent = 0.0
        """What the controller has sent."""
        self.now = 0.0
        self.members: list[Member] = []
        self.order: list[Laptop] = []
        self._random = random.Random(seed)

    def run(self, limit: float) -> None:
        """Run until all living laptops are finished; raises AssertionError after ``limit`` seconds."""
        step = 0
        while any(each.finished is None and self.now < each.dies for each in self.laptops):
            assert self.now < limit, [(each.number, each.done) for each in self.laptops if each.finished is None][:8]
            self.now = step * STEP
            self._arrive()
            self._flow()
            self._report(step)
            step += 1

    def _alive(self, laptop: Laptop) -> bool:
        return self.now < laptop.dies and laptop.left is None

    def _works(self, laptop: Laptop) -> bool:
        return self._alive(laptop) and not any(begin <= self.now < end for begin, end in laptop.stalls)

    def _arrive(self) -> None:
        for laptop in self.laptops:
            if laptop.number < 0 and laptop.start <= self.now:
                laptop.number = len(self.members)
                laptop.guide = Guide(laptop.number)
                row = Member(
                    number=laptop.number,
                    name=str(laptop.number),
                    address="",
                    port=0,
                    missing=round(self.size * SCALE),
                    heard=self.now,
                )
                self.members.append(laptop.guide.join([*self.members, row], self.now))
                self.order.append(laptop)
                laptop.fed_by.append(self.members[-1].upstream)

    def _flow(self) -> None:
        takers: dict[int, list[Laptop]] = {}
        for laptop in self.order:
            if self._works(laptop) and laptop.finished is None and laptop.blocked <= self.now:
                takers.setdefault(self.members[laptop.number].upstream, []).append(laptop)
        sources = [CONTROLLER]
        for source in sources:  # from above, so that a frame gets on in each step
            sources += [each.number for each in takers.get(source, [])]
        known = set(sources)
        for source in [*sources, *(number for number in takers if number not in known)]:
            self._send(source, takers.get(source, []))
        for laptop in self.order:
            if self._works(laptop) and laptop.finished is None:
                laptop.written = min(laptop.done, laptop.written + laptop.writes * STEP)
                if laptop.written >= self.size - 1e-9:
                    laptop.done, laptop.finished, laptop.sent = self.size, self.now, self.sent

    def _send(self, source: int, takers: list[Laptop]) -> None:
        if source == CONTROLLER:
            capacity, has = self.controller * STEP, self.size
        else:
            giver = self.order[source]
            if not self._works(giver):
                return
            capacity = giver.gives * STEP
            has = giver.done if giver.done >= self.size else giver.done - self.frame
        wanted = {
            each.number: min(
                each.takes * STEP * self._random.uniform(0.8, 1.0),
                max(0.0, has - each.done),
                each.written + max(BUFFER, each.writes * STEP) - each.done,
            )
            for each in takers
            if source == CONTROLLER or not each.cannot_reach(source)
        }
        for rank, each in enumerate(
            sorted((each for each in takers if each.number in wanted), key=lambda t: wanted[t.number])
        ):
            given = min(wanted[each.number], capacity / (len(wanted) - rank))
            others = [want for number, want in wanted.items() if number != each.number]
            left = capacity - sum(min(want, capacity / len(wanted)) for want in others)
            if given:
                self._arrives(each, max(given, left) / STEP)
            each.done += given
            capacity -= given
            if source == CONTROLLER:
                self.sent += given

    def _arrives(self, laptop: Laptop, offered: float) -> None:
        """Note how fast a record arrives, as a laptop measures it: not exactly, and as a mean of the latest ones."""
        rate = min(laptop.takes, offered) * self._random.uniform(0.8, 1.3)
        laptop.receives = 0.7 * laptop.receives + 0.3 * rate if laptop.receives else rate

    def _report(self, step: int) -> None:
        for laptop in self.order:
            row = self.members[laptop.number]
            if not self._alive(laptop):
                if not row.gone and (laptop.resets or laptop.left is not None):
                    self.members[laptop.number] = replace(row, gone=True)
                continue
            if laptop.finished is not None and self.now > laptop.finished + self.read_back:
                laptop.left = self.now
                continue
            if not self._works(laptop) or laptop.finished is not None:
                continue
            lost = self._loses(laptop, row)
            if (step + laptop.number) % round(1 / STEP) == 0 or lost:
                self.members[laptop.number] = replace(
                    row,
                    missing=round((self.size - laptop.written) * SCALE),
                    heard=self.now,
                    receives=laptop.receives * SCALE,
                    writes=laptop.writes * SCALE * self._random.uniform(0.8, 1.3),
                )
                self._decide(laptop)
        for laptop in self.order:
            if laptop.finished is not None and laptop.left is None and self._works(laptop):
                self.members[laptop.number] = replace(self.members[laptop.number], missing=0, heard=self.now)

    def _loses(self, laptop: Laptop, row: Member) -> bool:
        """Whether a laptop gives its upstream up now."""
        if row.upstream == CONTROLLER:
            return False
        giver = self.order[row.upstream]
        silent = not self._works(giver) or laptop.cannot_reach(row.upstream)
        if not silent:
            laptop.noticed = None
            return False
        if not self._alive(giver) and (giver.resets or giver.left is not None):
            laptop.noticed = self.now - SILENCE
        laptop.noticed = self.now if laptop.noticed is None else laptop.noticed
        if self.now - laptop.noticed < SILENCE:
            return False
        laptop.noticed = None
        assert laptop.guide is not None
        laptop.guide.lost(row.upstream, self.now, reached=not laptop.cannot_reach(row.upstream))
        return True

    def _decide(self, laptop: Laptop) -> None:
        assert laptop.guide is not None
        before = self.members[laptop.number].upstream
        for row in laptop.guide.decide(self.members, self.now):
            self.members[row.number] = row
        after = self.members[laptop.number].upstream
        assert laptop.number not in (each.number for each in Fleet(self.members, self.now).above(laptop.number)), (
            "a circle"
        )
        if after != before:
            laptop.fed_by.append(after)
            laptop.blocked = self.now + STEP
            laptop.receives = 0.0

    def own_times(self) -> dict[int, float]:
        """Return how long each laptop took that has finished, by its number: from its own start, as a multiple of one alone."""
        alone = self.size / 0.9  # the mean of what ``_send`` draws
        return {each.number: (each.finished - each.start) / alone for each in self.order if each.finished is not None}

    def images(self, *without: int) -> float:
        """Return how many images the controller had sent when all laptops but these were finished."""
        return max(each.sent for each in self.order if each.number not in without) / self.size
