# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of one worker in a relay: it tells its laptop from which other one to take the image. It waits for no other worker."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import Status
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, LinkError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss, Upstream, unpack_loss

from ..progress.time_left import busy
from .board import Board, Page
from .rules import CONTROLLER, Guide, Member
from .upstreams import Upstreams

REPORTS = 4
"""From how many reports of a laptop its speed of writing is taken."""

MIN_INTERVAL = 0.8
"""Seconds between two decisions. Laptops report once a second, and more often when they begin something new."""


@dataclass(frozen=True)
class Address:
    """Where the other laptops reach a laptop."""

    host: str
    ip: str
    port: int
    site: str = ""
    """Laptops of one site take chunks from one another."""


class Writes:
    """How fast a laptop could write, also while it mostly waits for others."""

    def __init__(self) -> None:
        self._reports: deque[Status] = deque(maxlen=REPORTS)

    def rate(self, status: Status) -> float:
        """Take a report, and return bytes a second: what was written in the time in which the disk or the processors were busy with it."""
        self._reports.append(status)
        before = self._reports[0]

        def spent(*stages: str) -> float:
            return sum(busy(status.stages, stage) - busy(before.stages, stage) for stage in stages)

        seconds = max(spent("write"), spent("decompress", "hash") / max(1, status.workers))
        written = status.written - before.written
        return written / seconds if seconds > 0 and written > 0 else math.inf


class Participant:
    """Takes part for one laptop. No transfer fails because of it: when it can't go on, its laptop takes everything from the controller."""

    def __init__(
        self,
        open_board: Callable[[str], Board],
        warn: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        origin: Address | None = None,
    ) -> None:
        """``open_board`` opens the board of a site. ``warn`` is called when this laptop can't take chunks from others, and when it was sent damage by
        another one.

        ``origin`` is where all chunks come from at last, if that is another laptop and not an image of the controller.
        """
        self.upstreams = Upstreams()
        self._origin = origin
        self._open_board = open_board
        self._board: Board | None = None
        """None before the laptop's first report."""
        self._warn = warn
        self._clock = clock
        self._lock = threading.Lock()
        self._guide: Guide | None = None
        self._number = -1
        self._decided = float("-inf")
        self._upstream: Member | None = None
        """Where the laptop is to take chunks from; None: from the controller."""
        self._told: tuple[Link, int] | None = None
        """The latest link and what the laptop was told over it."""
        self._writes = Writes()
        self._warned = False
        self._ended = False
        """Whether this takes part no more. The board may be closed."""

    def attach(self, link: Link) -> None:
        """Listen for losses on a new link to the laptop."""
        link.handlers[Kind.LOST] = lambda payload: self._lost(link, unpack_loss(payload))

    def progress(self, link: Link, status: Status, address: Address) -> None:
        """Take a report of the laptop, which joins with its first one, and tell it where to take chunks from."""
        with self._lock, self._or_alone(link):
            now, missing = self._clock(), max(0, status.data_total - status.data_done)
            due = now - self._decided >= MIN_INTERVAL or self._told is None or self._told[0] is not link
            if not due:
                return
            self._decided = now
            if not self._ended:
                board = self._board = self._board or self._open_board(address.site)
                with board.locked() as page:
                    members = page.members()
                    if self._guide is None:
                        self._join(page, members, address, missing, now)
                    else:
                        me = members[self._number]
                        members[self._number] = replace(
                            me,
                            missing=missing,
                            heard=now,
                            port=address.port,
                            receives=status.pace,
                            writes=self._writes.rate(status),
                        )
                        self._decide(page, members, now)
            self._tell(link)

    def _join(self, page: Page, members: list[Member], address: Address, missing: int, now: float) -> None:
        if self._origin is not None and not members:
            origin = self._origin
            members.append(
                Member(number=0, name=origin.host, address=origin.ip, port=origin.port, heard=math.inf, proven=True)
            )
            page.write(members)
        guide = Guide(len(members))
        row = Member(
            number=len(members),
            name=address.host,
            address=address.ip,
            port=address.port,
            missing=missing,
            heard=now,
        )
        members.append(guide.join([*members, row], now))
        page.write([members[-1]])
        self._guide, self._number = guide, len(members) - 1
        self._take_from(members)

    def _decide(self, page: Page, members: list[Member], now: float) -> None:
        if self._guide is None:
            raise AssertionError("the laptop has joined")
        changes = self._guide.decide(members, now)
        page.write([members[self._number], *changes])
        for each in changes:
            members[each.number] = each
        self._take_from(members)

    def _take_from(self, members: list[Member]) -> None:
        number = members[self._number].upstream
        self._upstream = members[number] if number != CONTROLLER else None

    def _lost(self, link: Link, loss: Loss) -> None:
        with self._lock, self._or_alone(link):
            self._told = None  # this is answered in any case
            upstream = self._upstream
            if self._board and self._guide and upstream is not None and upstream.name == loss.host:
                with self._board.locked() as page:
                    members, now = page.members(), self._clock()
                    if members[upstream.number].missing or upstream.is_origin or loss.damage:  # else it has just ended
                        self.upstreams.leave(loss)
                    self._guide.lost(upstream.number, now, reached=loss.reached, damage=loss.damage)
                    self._decide(page, members, now)
                self._warn_of(loss, members[self._number].name)
            self._tell(link)

    def _warn_of(self, loss: Loss, host: str) -> None:
        if self._guide is None:
            raise AssertionError("the laptop has joined")
        if loss.damage:
            reason = printable(loss.reason)
            self._warn(
                f"{loss.host} sent damaged data to {host}, which takes nothing from there any more: {reason} The memory or the disk of "
                f"{loss.host} may be failing."
            )
        elif self._guide.alone and not self._warned:
            self._warned = True
            self._warn(
                "Laptops of this run can't connect to one another, and take all from the controller. Let them reach each other on imaging_port, "
                "or set imaging_relay to off."
            )

    def _tell(self, link: Link) -> None:
        upstream = self._upstream
        telling = (link, upstream.number if upstream else CONTROLLER)
        if self._told == telling:
            return
        payload = b""
        if upstream:
            payload = Upstream(upstream.name, upstream.address, upstream.port).pack()
            self.upstreams.name(upstream.name)
        try:
            link.send(Kind.UPSTREAM, payload)
            self._told = telling
        except LinkError:
            self._told = None  # told again over the next link

    @contextlib.contextmanager
    def _or_alone(self, link: Link) -> Iterator[None]:
        """When anything fails, have the laptop take everything from the controller from now on."""
        try:
            yield
        except Exception as error:
            self._ended, self._guide, self._upstream = True, None, None
            self._warn(
                f"This laptop takes all from the controller from now on, because its part in the relay has failed: {error!r}."
            )
            self._tell(link)

    def leave(self) -> None:
        """Let the others know that nothing can be taken from this laptop any more."""
        with self._lock:
            if self._board and self._guide:
                with contextlib.suppress(Exception), self._board.locked() as page:  # others find out by themselves
                    me = page.members()[self._number]
                    self.upstreams.slow = me.slow
                    page.write([replace(me, gone=True)])
            self._ended, self._guide, self._upstream = True, None, None
            if self._board:
                self._board.close()
