# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source of chunks: whatever can give records of an image to a machine that restores it.

A source need not be trusted. Who takes its records proves their content by the index of the image, which came from the controller.
"""

from __future__ import annotations

from typing import NoReturn, Protocol, Sequence

from ..errors import ImagingError
from ..image.record import RecordHeader


class SourceFailed(ImagingError):
    """A source can't be used any more: the next one has to be asked."""


class ChunkSource(Protocol):
    """Gives records on request, one request after the other, each in its order. All but :meth:`close` are called by one thread at a time.

    All but :meth:`close` raise SourceFailed.
    """

    name: str
    """One word, for results."""

    stage: str
    """The name of the pipeline's stage that :meth:`receive` is."""

    most_requests: int
    """How many requests may be under way at a time."""

    def has(self, chunk: int) -> bool:
        """Whether it has the content of a used chunk."""

    def request(self, chunks: Sequence[int]) -> None:
        """Ask for the records of chunks, in ascending order."""

    def receive(self, room: memoryview) -> RecordHeader | None:
        """The next record: its header, and its frame at the start of ``room``. None when the oldest request is served.

        The frame is not hashed yet, nor is the header compared with the index.
        """

    def close(self) -> None:
        """Drop all requests, and have a call that another thread is blocked in raise. It may be asked again later, beginning with :meth:`has`."""


class LastSource(ChunkSource, Protocol):
    """The source that is asked when all others have failed."""

    def reject(self, chunk: int, error: ImagingError) -> NoReturn:
        """Hear why a record that it sent can't be used; raises what follows from that."""
