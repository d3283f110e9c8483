# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes each chunk to a source: the first in order that has it and has not failed."""

from __future__ import annotations

from collections import deque
from typing import Callable, Iterable, Sequence

from ..errors import ImagingError
from ..image.record import RecordHeader
from .base import ChunkSource, LastSource, NotSent, SourceFailed

BAD_LIMIT = 3
"""How many wrong records disqualify a source. The last source has rules of its own."""


class _Lane:
    """A source, its requests, and its record so far."""

    def __init__(self, source: ChunkSource) -> None:
        self.source = source
        self.requests: deque[set[int]] = deque()
        """The missing chunks of each unanswered request. For the last source, which no other replaces, the sets are empty."""
        self.bad = 0
        self.failure: str | None = None
        """Why the source is not used any more."""
        self.frame_bytes = 0

    def forget(self, chunks: Iterable[int]) -> None:
        """Note that chunks have arrived, or will not."""
        for request in self.requests:
            request.difference_update(chunks)

    def answered(self) -> None:
        """Note that a request was answered: the oldest one, or one of which nothing is missing."""
        self.requests.remove(next((request for request in self.requests if not request), self.requests[0]))


class Router:
    """Combines several sources into one. Chunks that a source fails to send must be requested again (:meth:`take_lost`).

    One thread requests and receives. Another thread may reject records, and interrupt.
    """

    def __init__(
        self, preferred: Sequence[ChunkSource], last: LastSource, chunk_count: int, warn: Callable[[str], object]
    ) -> None:
        """``last`` provides what none of the ``preferred`` sources has; ``warn`` is called for each source that fails."""
        self._last = last
        self._lanes = [_Lane(source) for source in (*preferred, last)]
        self._warn = warn
        self._sender = bytearray(chunk_count)
        """For each chunk, the number of the source that sent it last."""
        self._first: dict[int, int] = {}
        """For chunks that a source sent wrong, the number of the first source that may be asked now."""
        self._lost: deque[int] = deque()
        self.interrupted = False
        """Whether the unanswered requests were abandoned."""
        self.stage = last.stage
        """The stage of the latest record."""

    def frame_bytes(self) -> dict[str, int]:
        """Return the bytes of frames from each source, by its name."""
        return {lane.source.name: lane.frame_bytes for lane in self._lanes}

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent now."""
        return all(len(lane.requests) < lane.source.max_requests for lane in self._lanes)

    @property
    def in_flight(self) -> bool:
        """Whether there are unanswered requests."""
        return any(lane.requests for lane in self._lanes)

    @property
    def last_in_flight(self) -> bool:
        """Whether the last source has unanswered requests."""
        return bool(self._lanes[-1].requests)

    def request(self, chunks: Sequence[int]) -> None:
        """Request the records of used chunks, in ascending order; raises what the last source raises."""
        rest = chunks
        for number, lane in enumerate(self._lanes):
            mine = self._share(number, lane, rest)
            if not mine:
                continue
            expected = set(mine) if lane.source is not self._last else set()
            lane.requests.append(expected)
            rest = [chunk for chunk in rest if chunk not in expected]

    def _share(self, number: int, lane: _Lane, chunks: Sequence[int]) -> Sequence[int]:
        """Request those of ``chunks`` that a source can provide, and return them."""
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

    def receive(self, buffer: memoryview) -> RecordHeader | None:
        """Receive the next record: return its header, and put its frame at the start of ``buffer``. After None, another request may be possible.

        Raises what the last source raises.
        """
        number = self._next_lane()
        if number is None:
            return None
        lane = self._lanes[number]
        try:
            header = lane.source.receive(buffer) if lane.failure is None else None
        except NotSent as error:
            self._lost.extend(error.chunks)
            lane.forget(error.chunks)
            return None
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
            lane.answered()
            return None
        lane.forget([header.chunk])
        self._sender[header.chunk] = number
        lane.frame_bytes += header.frame_size
        self.stage = lane.source.stage
        return header

    def _next_lane(self) -> int | None:
        """Return from where to receive now.

        The last source is looked at first, because its link breaks when nobody reads from it. But no other source waits for what it has not sent:
        many machines may share its network.
        """
        waiting = [number for number, lane in enumerate(self._lanes) if lane.requests]
        if len(waiting) > 1 and waiting[-1] == len(self._lanes) - 1 and not self._last.ready():
            waiting.pop()
        return waiting[-1] if waiting else None

    def _fail(self, lane: _Lane, reason: str) -> None:
        lane.failure = reason
        left = [other.source.name for other in self._lanes if other.failure is None]
        self._warn(f"{reason} {f'The {left[0]}' if len(left) == 1 else 'Other sources'} sent what was still missing.")

    def reject(self, chunk: int, error: ImagingError) -> None:
        """Let the next source send a chunk whose record contradicts the index; raises what the last source's ``reject`` raises."""
        number = self._sender[chunk]
        lane = self._lanes[number]
        if number == len(self._lanes) - 1:
            self._last.reject(chunk, error)
        self._first[chunk] = number + 1
        self._lost.append(chunk)
        if lane.source.leave_sender(chunk, error):
            return
        lane.bad += 1
        if lane.bad == BAD_LIMIT and lane.failure is None:
            self._fail(
                lane,
                f"The {lane.source.name} sent {lane.bad} records that can't be used, the last one because: {error}",
            )

    def take_lost(self) -> list[int]:
        """Return requested chunks that will not arrive from their source."""
        return [self._lost.popleft() for dummy in range(len(self._lost))]

    def interrupt(self) -> None:
        """Abandon the unanswered requests, and make a blocked :meth:`receive` raise."""
        self.interrupted = True
        for lane in self._lanes:
            # A link without unanswered requests can still carry the reason for the end.
            if lane.requests or lane.source is not self._last:
                lane.source.close()

    def restart(self) -> None:
        """Begin again without unanswered requests."""
        for lane in self._lanes:
            if lane.requests:
                lane.source.close()
                lane.requests.clear()
        self._lost.clear()
        self.interrupted = False
