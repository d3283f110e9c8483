# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which source is asked for which chunk: in their order, as far as they have it and are to be believed."""

from __future__ import annotations

from collections import deque
from typing import Callable, Sequence

from ..errors import ImagingError
from ..image.record import RecordHeader
from .base import ChunkSource, LastSource, SourceFailed

BAD_LIMIT = 3
"""How many records of a source may turn out to be wrong before it is not asked any more. The last source has rules of its own."""


class _Lane:
    """A source, what it was asked for, and what became of that."""

    def __init__(self, source: ChunkSource) -> None:
        self.source = source
        self.requests: deque[set[int]] = deque()
        """What is still to come of each request under way; of the last source, from which nobody takes over, only how many there are."""
        self.bad = 0
        self.failure: str | None = None
        """Why it is not asked any more."""
        self.frame_bytes = 0


class Router:
    """Asks several sources as if they were one. What one of them fails to send is to be asked for anew (:meth:`take_lost`).

    One thread asks and receives. Another one may reject what came, and interrupt.
    """

    def __init__(
        self, preferred: Sequence[ChunkSource], last: LastSource, chunk_count: int, warn: Callable[[str], object]
    ) -> None:
        """``last`` is asked for what none of the ``preferred`` has; ``warn`` hears of each that fails."""
        self._last = last
        self._lanes = [_Lane(source) for source in (*preferred, last)]
        self._warn = warn
        self._sender = bytearray(chunk_count)
        """The number of the source that sent each chunk last."""
        self._first: dict[int, int] = {}
        """The number of the first source that is to be asked for a chunk, where that is not the first one."""
        self._lost: deque[int] = deque()
        self.interrupted = False
        """Whether nobody waits for what is under way."""
        self.stage = last.stage
        """The stage of the record that came last."""

    def frame_bytes(self) -> dict[str, int]:
        """How many bytes of frames came from each source, by its name."""
        return {lane.source.name: lane.frame_bytes for lane in self._lanes}

    @property
    def has_room(self) -> bool:
        """Whether more may be asked for now."""
        return all(len(lane.requests) < lane.source.most_requests for lane in self._lanes)

    @property
    def under_way(self) -> bool:
        """Whether anything was asked for that has not been answered."""
        return any(lane.requests for lane in self._lanes)

    @property
    def last_under_way(self) -> bool:
        """Whether the last source has anything to answer."""
        return bool(self._lanes[-1].requests)

    def request(self, chunks: Sequence[int]) -> None:
        """Ask for the records of used chunks, in ascending order; raises what the last source raises."""
        rest = chunks
        for number, lane in enumerate(self._lanes):
            mine = self._share(number, lane, rest)
            if not mine:
                continue
            expected = set(mine) if lane.source is not self._last else set()
            lane.requests.append(expected)
            rest = [chunk for chunk in rest if chunk not in expected]

    def _share(self, number: int, lane: _Lane, chunks: Sequence[int]) -> Sequence[int]:
        """Which of ``chunks`` a source was asked for."""
        if lane.failure is not None:
            return ()
        try:
            mine = [chunk for chunk in chunks if number >= self._first.get(chunk, 0) and lane.source.has(chunk)]
            if mine:
                lane.source.request(mine)
        except SourceFailed as error:
            if self.interrupted:
                raise
            self._fail(lane, str(error))
            return ()
        return mine

    def receive(self, room: memoryview) -> RecordHeader | None:
        """The next record: its header, and its frame at the start of ``room``. After None there may be room for another request.

        The last source goes first: what waits on a link that is not read from would break it. Raises what that source raises.
        """
        number = next((number for number in reversed(range(len(self._lanes))) if self._lanes[number].requests), None)
        if number is None:
            return None
        lane = self._lanes[number]
        try:
            header = lane.source.receive(room) if lane.failure is None else None
        except SourceFailed as error:
            if self.interrupted:
                raise
            self._fail(lane, str(error))
            header = None
        if lane.failure is not None:
            for request in lane.requests:
                self._lost.extend(request)
            lane.requests.clear()
            lane.source.close()
            return None
        if header is None:
            lane.requests.popleft()
            return None
        lane.requests[0].discard(header.chunk)
        self._sender[header.chunk] = number
        lane.frame_bytes += header.frame_size
        self.stage = lane.source.stage
        return header

    def _fail(self, lane: _Lane, reason: str) -> None:
        lane.failure = reason
        self._warn(f"{reason} The {self._last.name} sent what was still missing.")

    def reject(self, chunk: int, error: ImagingError) -> None:
        """Have a chunk whose record is not what the index says sent by the next source; raises what the last source makes of it."""
        number = self._sender[chunk]
        lane = self._lanes[number]
        if number == len(self._lanes) - 1:
            self._last.reject(chunk, error)
        lane.bad += 1
        self._first[chunk] = number + 1
        self._lost.append(chunk)
        if lane.bad == BAD_LIMIT and lane.failure is None:
            self._fail(
                lane,
                f"The {lane.source.name} sent {lane.bad} records that can't be used, the last one because: {error}",
            )

    def take_lost(self) -> list[int]:
        """Chunks that were asked for, and will not come from whoever was asked."""
        return [self._lost.popleft() for dummy in range(len(self._lost))]

    def interrupt(self) -> None:
        """Have a blocked :meth:`receive` raise: what is under way is not waited for any more."""
        self.interrupted = True
        for lane in self._lanes:
            # A link on which nothing is under way can still say why all ends.
            if lane.requests or lane.source is not self._last:
                lane.source.close()

    def restart(self) -> None:
        """Ask anew: nothing is under way any more."""
        for lane in self._lanes:
            if lane.requests:
                lane.source.close()
                lane.requests.clear()
        self._lost.clear()
        self.interrupted = False
