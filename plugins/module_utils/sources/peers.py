# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other laptops of the run as a source of chunks. The controller says which one, and may change it at any time."""

from __future__ import annotations

import queue
import threading
import time
from typing import Callable, Iterable, Sequence

from ..engine.partition_names import merge
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.record import RecordError, RecordHeader
from ..stream.conversation import MAX_WANTS, raise_end, want
from ..stream.link import Kind, Link, LinkError
from ..stream.relaying import Loss, Upstream, unpack_lack
from ..timeouts import DEFAULTS, Timeouts
from .base import NotSent, Pace

PEERS = "peers"

PATIENCE = 0.2
"""Seconds for which :meth:`PeerSource.receive` waits for a record."""

AHEAD = 2
"""Records that are received before they are taken. Not more, because they take memory beside the pipeline's."""

MAX_RANGES = 4096
"""Ranges in one WANT, which takes up to 64 KiB."""


class PeerSource:
    """Takes chunks from the laptop that the controller names (``sources.base.ChunkSource``).

    While the controller has named none, requests wait, but not for ever: see ``Timeouts.peer_named`` and ``Timeouts.peer_idle``. When it has
    said that there is none, or says nothing, this source has no chunks.
    """

    name = PEERS
    stage = "fetch from peers"
    max_requests = MAX_WANTS

    def __init__(
        self,
        connect: Callable[[Upstream], Link],
        header: ImageHeader,
        on_loss: Callable[[Loss], object],
        timeouts: Timeouts = DEFAULTS,
    ) -> None:
        """``connect`` raises LinkError; ``on_loss`` tells the controller that chunks can't be taken from a laptop."""
        self._connect = connect
        self._header = header
        self._on_loss = on_loss
        self._timeouts = timeouts
        self._changed = threading.Condition()
        self._started = self._stopped = False
        self._decided = False
        """Whether the controller has said where to take chunks from, and that still holds."""
        self._since = time.monotonic()
        """When this source began to wait for what it waits for now: to be told of a laptop, or for the next chunk."""
        self._download: _Download | None = None
        self._requests: list[set[int]] = []
        self._lacking: set[int] = set()
        """Chunks that the laptop does not have."""
        self._senders: dict[int, str] = {}
        """The host that sent a chunk."""
        self.received: dict[str, int] = {}
        """Bytes of frames from each host."""

    def start(self) -> None:
        """Begin to have chunks: the controller knows now that this laptop takes part."""
        self._started = True
        self._since = time.monotonic()

    def assign(self, upstream: Upstream | None) -> None:
        """Take chunks from another laptop from now on; None: from no laptop. From any thread."""
        with self._changed:
            before = self._download
            if self._stopped or (self._decided and (before.upstream if before else None) == upstream):
                return
            self._decided = True
            self._since = time.monotonic()
            self._lacking.clear()
            self._download = _Download(self, upstream, self._connect, self._unpack) if upstream else None
            self._changed.notify_all()
        if before:
            before.close()

    def _unpack(self, payload: bytes) -> RecordHeader:
        return RecordHeader.unpack(payload, self._header.geometry, self._header.image_id)

    def wanted(self) -> list[int]:
        """Return the requested chunks that have not arrived."""
        with self._changed:
            return sorted(set().union(*self._requests))

    def has(self, chunk: int) -> bool:
        """Return whether the laptop may have a chunk, or another one may be named that has it."""
        return self._started and chunk not in self._lacking and (self._download is not None or not self._decided)

    @property
    def pace(self) -> Pace | None:
        """How fast records arrive from the laptop; None when there is none."""
        download = self._download
        return download.pace if download else None

    @property
    def unused(self) -> bool:
        """Whether the controller has said that there is no laptop to take chunks from."""
        return self._decided and self._download is None

    def request(self, chunks: Sequence[int]) -> None:
        """Request records. They are requested again from each laptop that is named before they arrive."""
        with self._changed:
            if not any(self._requests) and self._decided:
                self._since = time.monotonic()
            self._requests.append(set(chunks))
            download = self._download
        if download:
            download.want(chunks)

    def receive(self, buffer: memoryview) -> RecordHeader | None:
        """Return the next record, in any order; raises NotSent."""
        with self._changed:
            answered = next((request for request in self._requests if not request), None)
            if answered is not None:
                self._requests.remove(answered)
                return None
            download = self._download
            waited = time.monotonic() - self._since
            if download is None:
                self._decided = self._decided or waited > self._timeouts.peer_named
                if self._decided:
                    raise NotSent(self._drop())
                self._changed.wait(PATIENCE)
                raise NotSent
        item = download.next(PATIENCE)
        if isinstance(item, ImagingError):
            # What a link carries is what its other end has sent. So a record that can't be one is not an accident of the link.
            self._lose(download, item, damage=isinstance(item, RecordError))
            raise NotSent
        if isinstance(item, list):
            lacking = self._without(download, item)
            if lacking:
                raise NotSent(lacking)
        elif item is not None and self._arrived(download, item[0]):
            header, frame = item
            buffer[: len(frame)] = frame
            return header
        # Nothing has come, or nothing that is still wanted: who sends that for ever is left too.
        if waited > self._timeouts.peer_idle:
            reason = f"{download.upstream.host} has sent nothing that it was asked for for {waited:.0f} seconds."
            self._lose(download, LinkError(reason))
        raise NotSent

    def _drop(self) -> list[int]:
        """Give up all requests."""
        chunks = [chunk for request in self._requests for chunk in request]
        for request in self._requests:
            request.clear()
        return chunks

    def _without(self, download: _Download, chunks: Iterable[int]) -> list[int]:
        """Note that a laptop does not have chunks; return those that were requested."""
        with self._changed:
            if self._download is not download:
                return []
            lost = [chunk for chunk in chunks if any(chunk in request for request in self._requests)]
            self._lacking.update(lost)  # and no others, of which there could be any number
            if lost:
                self._since = time.monotonic()
            for request in self._requests:
                request.difference_update(lost)
            return lost

    def _arrived(self, download: _Download, header: RecordHeader) -> bool:
        """Note a record; return whether it was requested. After a change of laptops, a chunk can come twice."""
        with self._changed:
            host = download.upstream.host
            if not any(header.chunk in request for request in self._requests):
                return False
            for request in self._requests:
                request.discard(header.chunk)
            self._since = time.monotonic()
            self._senders[header.chunk] = host
            self.received[host] = self.received.get(host, 0) + header.frame_size
            return True

    def _lose(self, download: _Download, error: ImagingError, damage: bool = False) -> None:
        with self._changed:
            if self._download is not download:
                return
            self._download = None
            self._decided = False
            self._since = time.monotonic()
        download.close()
        host = download.upstream.host
        self._on_loss(Loss(host=host, reason=str(error), reached=download.reached, damage=damage))

    def leave_sender(self, chunk: int, error: ImagingError) -> bool:
        """Leave the laptop that sent a wrong record; return True, because the controller names another one."""
        download = self._download
        if download and download.upstream.host == self._senders.get(chunk):
            self._lose(download, error, damage=True)
        return True

    def close(self) -> None:
        """Drop all requests, and the link. The laptop is asked again with the next request."""
        with self._changed:
            download = self._download
            self._requests.clear()
            if download:
                self._download = _Download(self, download.upstream, self._connect, self._unpack)
        if download:
            download.close()

    def stop(self) -> None:
        """Take nothing any more."""
        self.assign(None)
        self._started = False
        self._stopped = True


class _Download:
    """A link to one laptop, which a thread reads."""

    def __init__(
        self,
        source: PeerSource,
        upstream: Upstream,
        connect: Callable[[Upstream], Link],
        unpack: Callable[[bytes], RecordHeader],
    ) -> None:
        self.upstream = upstream
        self.reached = False
        """Whether the laptop could be connected to."""
        self.pace = Pace()
        self._source = source
        self._connect = connect
        self._unpack = unpack
        self._items: queue.Queue[tuple[RecordHeader, bytearray] | list[int] | ImagingError] = queue.Queue(AHEAD)
        self._wants: queue.SimpleQueue[Sequence[int] | None] = queue.SimpleQueue()
        """Requests that were not sent yet; None at the end."""
        self._link: Link | None = None
        self._closed = False
        self._lock = threading.Lock()
        try:
            threading.Thread(target=self._run, name="peer", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads at the moment
            self._items.put_nowait(LinkError(str(error)))

    def _run(self) -> None:
        try:
            self._receive_all()
        except ImagingError as error:
            self._put(error)
        except Exception as error:  # whatever fails here must not fail the transfer
            self._put(LinkError(f"{type(error).__name__}: {error}"))

    def _receive_all(self) -> None:
        link = self._connect(self.upstream)
        try:
            self.reached = True
            with self._lock:
                self._link = link
                closed = self._closed
            if closed:
                return
            threading.Thread(target=self._send_wants, args=(link,), name="peer-wants", daemon=True).start()
            self.want(self._source.wanted())
            while not self._closed:
                self._put(self._receive(link))
        finally:
            link.close()
            self._wants.put(None)

    def _receive(self, link: Link) -> tuple[RecordHeader, bytearray] | list[int]:
        message = link.receive()
        if message.kind == Kind.LACK:
            return unpack_lack(message.payload)
        if message.kind != Kind.RECORD:
            raise_end(message)
        header = self._unpack(message.payload)
        if header.frame_size != message.body_size:
            raise RecordError("A record arrived whose frame does not have the size that its header says.")
        frame = bytearray(header.frame_size)
        link.receive_body(memoryview(frame))
        self.pace.add(header.content_size, link.body_seconds)
        return header, frame

    def _put(self, item: tuple[RecordHeader, bytearray] | list[int] | ImagingError) -> None:
        while not self._closed:
            try:
                self._items.put(item, timeout=PATIENCE)
                return
            except queue.Full:
                continue

    def next(self, seconds: float) -> tuple[RecordHeader, bytearray] | list[int] | ImagingError | None:
        """Return a record, chunks that the laptop does not have, or the error that ended the link; None after so many seconds."""
        try:
            return self._items.get(timeout=seconds)
        except queue.Empty:
            return None

    def want(self, chunks: Sequence[int]) -> None:
        """Request chunks, unless the link is still being made: they are requested then."""
        with self._lock:
            if self._link is not None and not self._closed:
                self._wants.put(chunks)

    def _send_wants(self, link: Link) -> None:
        """Send requests in a thread of its own: the one that makes them also listens to the controller, and waits for no other laptop."""
        while True:
            chunks = self._wants.get()
            if chunks is None:
                return
            ranges = list(merge((chunk, chunk + 1) for chunk in chunks))
            try:
                for start in range(0, len(ranges), MAX_RANGES):
                    want(link, ranges[start : start + MAX_RANGES])
            except LinkError:
                return  # the thread that reads finds out

    def close(self) -> None:
        """Close the link."""
        with self._lock:
            self._closed = True
            link = self._link
        if link:
            link.close()
