# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller, at the other end of a link, as a source of chunks."""

from __future__ import annotations

from typing import Callable, NoReturn, Sequence

from ..engine.partition_names import merge
from ..engine.restore import DamagedFrame
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.record import RecordHeader
from ..stream.conversation import MAX_WANTS, damaged, receive_record, want
from ..stream.credentials import CONTROLLER
from ..stream.link import Link, LinkError, Message
from .base import Pace

DAMAGED_LIMIT = 3
"""How often one chunk may arrive damaged. More often is not an accident of a single link, and ends the transfer."""


class LinkSource:
    """The image that the controller serves (``sources.base.LastSource``). All methods but :meth:`has` raise LinkError, PeerEnded."""

    name = CONTROLLER
    stage = "receive"
    max_requests = MAX_WANTS

    def __init__(
        self,
        newest: Callable[[], Link],
        header: ImageHeader,
        consequence: Callable[[], str],
        max_requests: int = MAX_WANTS,
        pace: Pace | None = None,
    ) -> None:
        """``newest`` returns the newest link; ``consequence`` describes the state of the disk if the transfer ends now.

        ``pace`` is told how fast records arrive.
        """
        self.max_requests = max_requests
        self._pace = pace or Pace()
        self._newest = newest
        self._header = header
        self._consequence = consequence
        self._link: Link | None = None
        """The link of the latest request."""
        self._begun: Message | None = None
        """The first message of the next record, if it has arrived."""
        self._damaged: dict[int, int] = {}

    def has(self, chunk: int) -> bool:
        """Return True: the controller has every chunk."""
        return True

    def request(self, chunks: Sequence[int]) -> None:
        """Request records; over a new link, first report the chunks that arrived damaged over earlier links."""
        link = self._newest()
        if link is not self._link:
            for chunk in self._damaged:
                damaged(link, chunk)
            self._link, self._begun = link, None
        want(link, merge((chunk, chunk + 1) for chunk in chunks))

    def receive(self, buffer: memoryview) -> RecordHeader | None:
        """Receive the next record."""
        begun, self._begun = self._begun, None
        link = self._link or self._newest()
        header = receive_record(link, self._unpack, buffer, begun=begun)
        if header is not None:
            self._pace.add(header.content_size, link.body_seconds)
        return header

    def ready(self) -> bool:
        """Return whether the next record has begun to arrive."""
        if self._begun is None:
            self._begun = (self._link or self._newest()).poll()
        return self._begun is not None

    def _unpack(self, payload: bytes) -> RecordHeader:
        return RecordHeader.unpack(payload, self._header.geometry, self._header.image_id)

    def leave_sender(self, chunk: int, error: ImagingError) -> bool:
        """Return False: there is one controller, and :meth:`reject` is called instead."""
        return False

    def close(self) -> None:
        """Close the link of the latest request, on which answers would still arrive."""
        if self._link is not None:
            self._link.close()

    def reject(self, chunk: int, error: ImagingError) -> NoReturn:
        """Break the link after a damaged frame. A chunk that is damaged repeatedly, or a record that contradicts the index, ends the transfer."""
        if not isinstance(error, DamagedFrame):
            raise error
        self.close()
        times = self._damaged[chunk] = self._damaged.get(chunk, 0) + 1
        if times >= DAMAGED_LIMIT:
            raise ImagingError(
                f"The frame of chunk {chunk} arrived damaged {times} times: something between the image and this laptop changes data "
                f"(network hardware, memory, or somebody in between). {self._consequence()}; run again when that is fixed."
            ) from error
        raise LinkError(str(error)) from error
