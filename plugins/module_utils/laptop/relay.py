# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A laptop's part in a relay: it takes chunks from one other laptop, and passes them on to others while it writes them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Callable, Iterator

from ..engine.delta_scan import EQUAL, REQUESTED, UNKNOWN, WANTED, WRITTEN
from ..image.header import ImageHeader
from ..image.record import RecordHeader
from ..serving.peers import DiskRecords, Place, Share, Window, window_size
from ..sources.peers import PeerSource
from ..stream.credentials import LAPTOP, Name
from ..stream.link import Kind, Link, LinkError, TcpChannel
from ..stream.listener import ControllerGone
from ..stream.relaying import Loss, Upstream, unpack_upstream
from ..stream.tls import connect_tls
from ..zstd import Zstd
from .restore_plan import RestorePlan
from .session import Session
from .target_disk import TargetDisk

ACCEPT = 0.5
"""Seconds after which the thread that accepts other laptops looks whether it is to end."""


class Relay:
    """Takes chunks of one image from other laptops, and passes them on. When passing on fails, the restore goes on."""

    def __init__(self, session: Session, header: ImageHeader, warn: Callable[[str], object]) -> None:
        """``warn`` is called, once, when nothing more can be passed on."""
        self._session = session
        self._header = header
        self._warn = warn
        self.source = PeerSource(self._connect, header, self._report, session.timeouts)
        self._share: Share | None = None
        self._closed = threading.Event()
        session.handlers[Kind.UPSTREAM] = self._assign

    def _assign(self, payload: bytes) -> None:
        self.source.assign(unpack_upstream(payload))

    def _connect(self, upstream: Upstream) -> Link:
        timeouts, name = self._session.timeouts, Name(LAPTOP, upstream.host)
        try:
            raw = socket.create_connection((upstream.address, upstream.port), timeouts.peer_connect)
        except OSError as error:
            raise LinkError(f"No connection to {name} could be made: {error}.") from error
        try:
            channel = TcpChannel(raw)
            context = self._session.credentials.context(server_side=False)
            return Link(connect_tls(channel, context, name, timeouts.peer_connect), name, timeouts.between_laptops)
        except BaseException:
            raw.close()
            raise

    def _report(self, loss: Loss) -> None:
        # Over a broken link nothing is reported. The controller names a laptop again over each new link.
        with contextlib.suppress(LinkError):
            self._session.link.send(Kind.LOST, loss.pack())

    def start(self, plan: RestorePlan, disk: TargetDisk, zstd: Zstd) -> None:
        """Begin to take chunks, and to pass them on; again after a broken link."""
        if self._share is None:
            self._share = self._make_share(plan, disk, zstd)
            with self._or_alone(self._share):
                threading.Thread(target=self._accept, args=(self._share,), name="accept-peers", daemon=True).start()
        self.source.start()

    def _make_share(self, plan: RestorePlan, disk: TargetDisk, zstd: Zstd) -> Share:
        index, rotational = plan.image.index, disk.disk.rotational

        def place(chunk: int) -> Place:
            return _place(plan, chunk, rotational)

        def disk_records() -> DiskRecords:
            return DiskRecords(disk.raw, index, self._header.image_id, zstd)

        window = Window(window_size(), plan.guards.chunks())
        return Share(index, window, place, disk_records, keep=rotational)

    def checked(self, header: RecordHeader, frame: memoryview) -> None:
        """Pass on a record that was checked."""
        if self._share is not None:
            with self._or_alone(self._share):
                self._share.add(header, frame)

    def _accept(self, share: Share) -> None:
        while not self._closed.is_set():
            with self._or_alone(share), contextlib.suppress(ControllerGone):
                share.serve(self._session.next_peer(ACCEPT))

    @contextlib.contextmanager
    def _or_alone(self, share: Share) -> Iterator[None]:
        """Pass on nothing more when anything fails, such as an allocation of memory. Other laptops then find another one."""
        try:
            yield
        except Exception as error:
            if not share.ended:
                self._warn(
                    f"This laptop passes the image on to no other one any more, because that has failed: {error!r}."
                )
            share.end()

    def take_leave(self, poll: Callable[[], object]) -> None:
        """Pass on for a moment what other laptops have asked for, so that they need not get it from the controller; ``poll`` is called meanwhile."""
        timeouts = self._session.timeouts
        deadline = time.monotonic() + timeouts.peer_farewell
        while (
            self._share is not None and time.monotonic() < deadline and not self._share.wait_for_takers(timeouts.poll)
        ):
            poll()

    @property
    def sent(self) -> int:
        """Bytes of frames that were passed on."""
        return self._share.sent if self._share else 0

    def close(self) -> None:
        """End all links to other laptops before the disk is closed."""
        self._closed.set()
        self.source.stop()
        if self._share is not None:
            self._share.close()


def _place(plan: RestorePlan, chunk: int, rotational: bool) -> Place:
    """Return where a chunk is that is not in memory.

    A rotating disk is not read for others, because it can't read and write at once. A chunk that differs from the image on purpose is nowhere.
    """
    states = plan.delta.states
    state = states[chunk] if chunk < len(states) and not plan.goal.patched(chunk) else None
    if state in (EQUAL, WRITTEN):
        return Place.NOWHERE if rotational else Place.DISK
    return Place.COMING if state in (UNKNOWN, WANTED, REQUESTED) else Place.NOWHERE
