# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source of chunks provides records of an image to a machine that restores it.

A source need not be trusted. The restoring end checks all content against the index of the image, which comes from the controller.
"""

from __future__ import annotations

from typing import Iterable, NoReturn, Protocol, Sequence

from ..errors import ImagingError
from ..image.record import RecordHeader


class SourceFailed(ImagingError):
    """A source can't be used any more; the router asks the next one."""


class NotSent(ImagingError):
    """Nothing has arrived now, and some requested chunks, if any, will not arrive from this source."""

    def __init__(self, chunks: Iterable[int] = ()) -> None:
        super().__init__("The source has nothing to send now.")
        self.chunks = list(chunks)


class Pace:
    """How fast records arrive once they have begun to, also while their sender mostly waits for others itself."""

    KEPT = 0.8
    """The weight of all earlier records, from one record to the next."""

    def __init__(self) -> None:
        self._size = self._seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Take a record with ``size`` bytes of content, whose frame took ``seconds`` to arrive."""
        self._size = self.KEPT * self._size + size
        self._seconds = self.KEPT * self._seconds + seconds

    @property
    def rate(self) -> float:
        """Bytes of content a second; 0 before the first record."""
        return self._size / self._seconds if self._seconds else 0.0


class ChunkSource(Protocol):
    """Provides records on request: requests are answered one after the other, each in its order. Only :meth:`close` may be called by any thread.

    All but :meth:`close` raise SourceFailed.
    """

    name: str
    """One word that names the source in results."""

    stage: str
    """The pipeline stage to which the time in :meth:`receive` is charged."""

    max_requests: int
    """Maximum number of unanswered requests."""

    def has(self, chunk: int) -> bool:
        """Return whether the source has the content of a used chunk."""

    def request(self, chunks: Sequence[int]) -> None:
        """Request the records of chunks, in ascending order."""

    def receive(self, buffer: memoryview) -> RecordHeader | None:
        """Receive the next record: return its header, and put its frame at the start of ``buffer``. None when the oldest request is answered.

        The frame is not hashed yet, and the header is not compared with the index. A source that may have to wait for others raises NotSent
        after a moment, and need not answer in order.
        """

    def leave_sender(self, chunk: int, error: ImagingError) -> bool:
        """Leave the machine that sent a record that can't be used because of ``error``; return False when there is no other one to take from."""

    def close(self) -> None:
        """Drop all requests, and make a blocked call of another thread raise. The source can be used again later, beginning with :meth:`has`."""


class LastSource(ChunkSource, Protocol):
    """The source that is used when all others have failed."""

    def ready(self) -> bool:
        """Return whether :meth:`receive` need not wait for the next record to begin."""

    def reject(self, chunk: int, error: ImagingError) -> NoReturn:
        """Handle a record of this source that can't be used because of ``error``; may raise to end the link or the transfer."""
