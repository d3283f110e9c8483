# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk that a laptop shares in this run: its description, and how workers take chunks of it where their laptops can't."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from ansible import constants

from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.hashes import Hashes
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Index, max_index_size
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import max_frame_size
from ansible_collections.fleet.imaging.plugins.module_utils.serving.hashes import answer_hashes
from ansible_collections.fleet.imaging.plugins.module_utils.sources.base import NotSent
from ansible_collections.fleet.imaging.plugins.module_utils.sources.peers import PeerSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import (
    ask_hashes,
    join_index,
    raise_end,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, Message
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss, Upstream
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import connect_tls
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts

from .relay.participant import Address
from .run_authority import run_authority
from .transports.transport import Transport

ROOT = ".root"
"""The end of the name under which the root digest is kept."""

PAUSE = 0.5
"""Seconds between a failure of the link to the reference and the next attempt to make it."""


@dataclass(frozen=True)
class Sharing:
    """The module that shares the disk: where it listens, and what is needed to end it. ``ip`` is empty when other laptops can't reach it.

    ``way`` has the arguments ``transport`` and ``ssh_client``: how the controller reaches it.
    """

    host: str
    address: str
    ip: str
    port: int
    way: dict[str, str]
    run_id: str
    folders: tuple[str, str]


@dataclass(frozen=True)
class SharedDisk:
    """The description of a shared disk: what laptops are made equal to, as an image of the store is (``stored_image.StoredImage``).

    The index has no hashes yet (``image.hashes``).
    """

    sharing: Sharing
    packed_header: bytes
    packed_index: bytes
    header: ImageHeader
    index: Index

    @classmethod
    def of(cls, sharing: Sharing, packed_header: bytes, packed_index: bytes) -> SharedDisk:
        """Check a description that has arrived; raises ImagingError."""
        header = ImageHeader.unpack(packed_header)
        index = Index.unpack(packed_index, packed_header, header.geometry, hashed=False)
        return cls(sharing=sharing, packed_header=packed_header, packed_index=packed_index, header=header, index=index)

    root_digest = b""
    """Nothing: the root digest of the disk's content is known only when all is hashed."""

    @property
    def image_id(self) -> bytes:
        """What tells its records from those of any other disk or image."""
        return self.header.image_id

    @property
    def max_sent(self) -> int:
        """The maximum bytes of frames that are sent to a laptop."""
        return self.index.used_bytes()

    @property
    def origin(self) -> Address | None:
        """Where other laptops reach the one that shares the disk; None when they can't."""
        sharing = self.sharing
        return Address(host=sharing.host, ip=sharing.ip, port=sharing.port) if sharing.ip else None

    def location(self) -> None:
        """Return None: no server has it."""

    def source(
        self, host: str, timeouts: Timeouts, reach: Callable[[Sharing], Transport]
    ) -> contextlib.AbstractContextManager[SharedSource]:
        """Return what serves it to a laptop."""
        return contextlib.closing(SharedSource(self, host, timeouts, reach(self.sharing)))

    def facts(self, _used_bytes: int) -> dict[str, Any]:
        """Return nothing: there is no file to say anything of."""
        return {}

    def hold_to(self, root: bytes) -> None:
        """Hold all laptops of the run to the root digest that the reference says first; raises ImagingError when this is another one."""
        path, found = _path(self.sharing.host, ROOT), root.hex()
        try:
            # A link is made with its content at once, whichever workers do it at the same time.
            with contextlib.suppress(FileExistsError):
                os.symlink(found, path)
            first = os.readlink(path)
        except OSError as error:
            raise ImagingError(f"The root digest of the shared disk can't be kept: {error}.") from error
        if first != found:
            raise ImagingError(
                f"The reference says that its disk has the root digest {found}, and said {first} to another laptop."
            )

    def save(self) -> None:
        """Keep this for the later tasks of the run; raises OSError."""
        rows = (json.dumps(asdict(self.sharing)).encode(), self.packed_header, self.packed_index)
        sizes = " ".join(str(len(row)) for row in rows).encode()
        with open(_path(self.sharing.host), "wb") as file:
            file.write(b"\n".join((sizes, b"".join(rows))))

    @classmethod
    def load(cls, host: str) -> SharedDisk:
        """Return what an earlier task of the run has kept of a host's disk; raises ImagingError when there is nothing."""
        try:
            with open(_path(host), "rb") as file:
                sizes = [int(size) for size in file.readline().split()]
                sharing, header, index = (file.read(size) for size in sizes)
        except OSError as error:
            raise ImagingError(
                f"The disk of {host} is not shared in this run ({error.strerror}): expected a task of image_share on that host before. Run clone.yml."
            ) from error
        values = json.loads(sharing)
        return cls.of(Sharing(**dict(values, folders=tuple(values["folders"]))), header, index)


def _path(host: str, suffix: str = "") -> str:
    """All workers of a run have the same folder for temporary files, which only this user can enter, and which Ansible removes at its end."""
    return os.path.join(constants.DEFAULT_LOCAL_TMP, f"shared-{quote(host, safe='')}{suffix}")


def forget(host: str) -> None:
    """Remove what was kept of a host's disk."""
    for path in (_path(host), _path(host, ROOT)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def ask_description(link: Link, on_progress: Callable[[bytes], object]) -> tuple[bytes, bytes]:
    """Return the packed header and index of a shared disk, once the laptop has made them; raises LinkError, PeerEnded, ImagingError."""

    def receive() -> Message:
        while (message := link.receive()).kind == Kind.PROGRESS:
            on_progress(message.payload)
        return message

    link.send(Kind.DESCRIBE)
    message = receive()
    if message.kind != Kind.HEADER:
        raise_end(message)
    return message.payload, join_index(receive, max_index_size(ImageHeader.unpack(message.payload).geometry))


class SharedSource:
    """A shared disk as a source (``serving.server.Source``) for one laptop, which takes most of it from other laptops.

    The worker keeps a link to the reference as long as its laptop is restored: while there are such links, the reference goes on.
    """

    def __init__(self, disk: SharedDisk, host: str, timeouts: Timeouts, transport: Transport) -> None:
        """``host`` is the laptop that is restored, ``transport`` the controller's way to the reference."""
        self._disk = disk
        self._transport = transport
        self._timeouts = timeouts
        self._name = Name(LAPTOP, f"worker of {host}")
        self._room = memoryview(bytearray(max_frame_size(disk.index.geometry.chunk_size)))
        self._loss: Loss | None = None
        """Why the link to the reference broke."""
        self._ended = ""
        """Why the reference has given up."""
        sharing = disk.sharing
        self._upstream = Upstream(sharing.host, sharing.address, sharing.port)
        self._peer = PeerSource(self._connect, disk.header, self._lost, timeouts)
        self._link: Link | None = None
        self._hashes = Hashes(disk.index)
        self._linked = time.monotonic()
        """When there was last a link, or the laptop has begun to wait for hashes over its own one."""
        self._connecting = True
        self._taking = False
        """Whether records are waited for. Who waits finds out about a broken link."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._peer.assign(self._upstream)
        threading.Thread(target=self._keep_link, name="keep-link", daemon=True).start()
        self.watches = Stopwatches()
        self._watch = self.watches.new()
        self.frames_sent = 0
        self.described = False

    def _connect(self, upstream: Upstream) -> Link:
        self._connecting = True
        try:
            self._link = link = self._make_link(upstream)
        finally:
            self._connecting = False
        link.handlers.update({Kind.END: self._end, Kind.HASHES: self._take_hashes, Kind.ROOT: self._take_root})
        if not self._hashes.root:
            ask_hashes(link, len(self._hashes))
        return link

    def attach(self, link: Link) -> None:
        """Answer the laptop's request for hashes over a new link."""
        self._linked = time.monotonic()
        answer_hashes(link, self._hashes, self._check_reference)

    def _check_reference(self) -> None:
        """Raise ImagingError when no more hashes will come."""
        now = time.monotonic()
        if self._hashes.root or (self._link is not None and not self._link.closed and not self._ended):
            self._linked = now
        elif self._ended or now - self._linked > self._timeouts.link_timeout:
            raise self._failed()

    def _take_hashes(self, payload: bytes) -> None:
        with self._ended_by_contradiction():
            self._hashes.unpack(payload)

    def _take_root(self, payload: bytes) -> None:
        with self._ended_by_contradiction():
            self._disk.hold_to(payload)
            self._hashes.agree(payload)

    @contextlib.contextmanager
    def _ended_by_contradiction(self) -> Iterator[None]:
        try:
            yield
        except ImagingError as error:
            self._ended = str(error)
            raise

    def _make_link(self, upstream: Upstream) -> Link:
        channel = self._transport.open(upstream.port, self._timeouts.connect)
        try:
            context = run_authority().issue(self._name).context(server_side=False)
            reference = Name(LAPTOP, upstream.host)
            return Link(connect_tls(channel, context, reference, self._timeouts.handshake), reference, self._timeouts)
        except BaseException:
            channel.close()
            raise

    def _keep_link(self) -> None:
        """Make a link that broke again while nothing is taken, as when the laptop is compared: a reference without links ends."""
        while not self._closed.wait(self._timeouts.max_pause):
            with self._lock:
                broken = not self._connecting and (self._link is None or self._link.closed)
                if broken and not self._taking and not self._closed.is_set():
                    self._connecting = True
                    self._peer.assign(None)
                    self._peer.assign(self._upstream)

    def _end(self, reason: bytes) -> None:
        self._ended = reason.decode(errors="replace")

    def _lost(self, loss: Loss) -> None:
        if self._loss is None or loss.reached:
            self._loss = loss

    @property
    def chunk_count(self) -> int:
        """Of the whole disk."""
        return self._disk.header.geometry.chunk_count

    def header(self) -> bytes:
        """Return the packed header."""
        return self._disk.packed_header

    def index(self) -> bytes:
        """Return the packed index."""
        self.described = True
        return self._disk.packed_index

    def records(self, start: int, end: int) -> Generator[tuple[bytes, memoryview], None, None]:
        """Yield the records of the used chunks in [start, end) as they come from the reference; raises ImagingError when it sends no more."""
        with self._lock:
            self._taking = True
        try:
            yield from self._records({row.chunk for row in self._disk.index.rows_between(start, end)})
        finally:
            self._taking = False

    def _records(self, missing: set[int]) -> Generator[tuple[bytes, memoryview], None, None]:
        deadline = time.monotonic() + self._timeouts.link_timeout
        self._watch.restart()
        if missing:
            self._peer.request(sorted(missing))
        while missing:
            try:
                header = self._peer.receive(self._room)
            except NotSent as error:
                if error.chunks or self._ended or time.monotonic() > deadline:
                    raise self._failed() from None
                if self._loss is not None:
                    time.sleep(PAUSE)
                    self._peer.assign(self._upstream)
                continue
            if header is None:
                continue
            self._loss = None
            deadline = time.monotonic() + self._timeouts.link_timeout
            missing.discard(header.chunk)
            self._watch.busy("read store")
            yield header.pack(), self._room[: header.frame_size]
            self.frames_sent += header.frame_size
            self._watch.busy("send")

    def _failed(self) -> ImagingError:
        reason = self._ended or (self._loss.reason if self._loss else "it says nothing.")
        return ImagingError(
            f"The reference {self._disk.sharing.host} sends no more of its disk: {reason} Look at the reference, and run again for all laptops that "
            "are not finished: what they have is not sent again."
        )

    def on_damaged(self, chunk: int) -> None:
        """Do nothing: the reference makes each record anew from its disk, and checks it."""

    def close(self) -> None:
        """Close the link to the reference."""
        with self._lock:
            self._closed.set()
            self._peer.stop()
