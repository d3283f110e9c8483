# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of one worker in a relay: it tells its laptop from which other one to take the image. It waits for no other worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import Status
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, LinkError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss, Upstream, unpack_loss

from .board import Board
from .rules import CONTROLLER, Guide, Member

MIN_INTERVAL = 0.8
"""Seconds between two decisions. Laptops report once a second, and more often when they begin something new."""


@dataclass(frozen=True)
class Address:
    """Where the other laptops reach a laptop."""

    host: str
    ip: str
    port: int


class Participant:
    """Takes part for one laptop."""

    def __init__(
        self, board: Board, warn: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``warn`` is called when this laptop can't take chunks from others, and when another one sends damage."""
        self._board = board
        self._warn = warn
        self._clock = clock
        self._lock = threading.Lock()
        self._guide: Guide | None = None
        self._number = -1
        self._decided = float("-inf")
        self._told: tuple[Link, int] | None = None
        """The latest link and what the laptop was told over it."""
        self._warned = False

    def attach(self, link: Link) -> None:
        """Listen for losses on a new link to the laptop."""
        link.handlers[Kind.LOST] = lambda payload: self._lost(link, unpack_loss(payload))

    def progress(self, link: Link, status: Status, address: Address) -> None:
        """Take a report of the laptop, which joins with its first one, and tell it where to take chunks from."""
        with self._lock:
            now, missing = self._clock(), max(0, status.data_total - status.data_done)
            due = now - self._decided >= MIN_INTERVAL or self._told is None or self._told[0] is not link
            if not due:
                return
            self._decided = now
            with self._board.locked() as page:
                members = page.members()
                if self._guide is None:
                    self._number = len(members)
                    self._guide = Guide(self._number)
                    row = Member(
                        number=self._number,
                        name=address.host,
                        address=address.ip,
                        port=address.port,
                        missing=missing,
                        heard=now,
                    )
                    members.append(self._guide.join([*members, row], now))
                    page.write([members[-1]])
                else:
                    members[self._number] = replace(
                        members[self._number], missing=missing, heard=now, port=address.port
                    )
                    changes = self._guide.decide(members, now)
                    page.write([members[self._number], *changes])
                    for each in changes:
                        members[each.number] = each
            self._tell(link, members)

    def _lost(self, link: Link, loss: Loss) -> None:
        with self._lock:
            if self._guide is None:
                return
            with self._board.locked() as page:
                members, now = page.members(), self._clock()
                number = members[self._number].upstream
                if number != CONTROLLER and members[number].name == loss.host:
                    self._guide.lost(number, now, reached=loss.reached, damage=loss.damage)
                    changes = self._guide.decide(members, now)
                    page.write(changes)
                    for each in changes:
                        members[each.number] = each
            self._told = None
            self._tell(link, members)
        if loss.damage:
            self._warn(
                f"{loss.host} sent damaged data, and is left out: {loss.reason} Its memory or disk may be failing."
            )
        elif self._guide.alone and not self._warned:
            self._warned = True
            self._warn(
                "Laptops of this run can't connect to one another, and take all from the controller. Let them reach each other on imaging_port, "
                "or set imaging_relay to off."
            )

    def _tell(self, link: Link, members: list[Member]) -> None:
        number = members[self._number].upstream
        if self._told is not None and self._told[0] is link and self._told[1] == number:
            return
        self._told = (link, number)
        payload = b""
        if number != CONTROLLER:
            upstream = members[number]
            payload = Upstream(upstream.name, upstream.address, upstream.port).pack()
        try:
            link.send(Kind.UPSTREAM, payload)
        except LinkError:
            self._told = None  # told again over the next link

    def leave(self) -> None:
        """Let the others know that nothing can be taken from this laptop any more."""
        with self._lock:
            if self._guide is not None:
                with self._board.locked() as page:
                    page.write([replace(page.members()[self._number], gone=True)])
                self._guide = None
        self._board.close()
