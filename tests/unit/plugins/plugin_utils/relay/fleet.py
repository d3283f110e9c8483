# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several laptops and their workers over real sockets. Only Ansible is left out: each laptop and each worker is a thread."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import Status
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.restore import RestoreSink
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import RunFolder
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.target_disk import RestoreRequest
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.board import Board
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.participant import Address, Participant
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.upstreams import Upstreams
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_authority import Authority
from ansible_collections.fleet.imaging.plugins.plugin_utils.shared_disk import SharedDisk, SharedSource
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer import Transfer
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.tcp import Tcp

from ...module_utils.samples import Used, make_image
from ..halves import NO_IDENTITY, StartedModule, no_programs

TIMEOUTS = Timeouts(link_timeout=6.0, first_link=4.0)


def wait_until(true: Callable[[], object], found: Callable[[], object] = str) -> None:
    """Wait for something; fail, and say what was ``found`` instead, when it is not so after half a minute."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, found()
        time.sleep(0.01)


class SlowSource(StoredSource):
    """An image that the controller sends no faster than so many records a second."""

    rate = 100.0

    def records(self, start: int, end: int) -> Any:
        for record in super().records(start, end):
            time.sleep(1 / self.rate)
            yield record


def restore_disk(
    session: Session,
    path: Path,
    root: bytes,
    hold: Callable[[RestoreSink], object] = id,
    rotational: bool = False,
    servers: Mapping[str, HttpLocation] = MappingProxyType({}),
    shared: bool = False,
) -> dict[str, Any]:
    """Run the laptop's half of a restore with a relay; ``hold`` is called with its sink."""
    request = RestoreRequest(
        str(path), root, {}, write=True, read_back=True, relay=True, servers=servers, shared=shared
    )
    with session, RawDisk(str(path), writable=True) as raw:
        target = SimpleNamespace(
            raw=raw,
            disk=SimpleNamespace(rotational=rotational),
            run=no_programs,
            check_fits=lambda header, index: None,
            identity=lambda: NO_IDENTITY,
            table_id=str,
        )
        with contextlib.closing(RestoreSink(target, request, find_zstd(), session)) as sink:  # type: ignore[arg-type]
            hold(sink)
            session.converse(sink.converse)
            return dict(asdict(sink.result()), warnings=sink.outcome.warnings)


class Laptop:
    """One laptop and its worker."""

    def __init__(self, run: Run, number: int, disk: Path) -> None:
        self.name = f"lab-{number:02}"
        self.disk = disk
        self.result: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.error: BaseException | None = None
        self.session: Session
        self.sink: RestoreSink | None = None
        self.upstreams = Upstreams()
        self.link: Link | None = None
        """The worker's link to the laptop."""
        self._run = run
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.name} does not end"

    def _work(self) -> None:
        try:
            self.result = self._transfer()
        except BaseException as error:
            self.error = error

    def _transfer(self) -> dict[str, Any]:
        run = self._run
        image = run.image()
        source = run.source_for(image, self.name)
        meter = Meter(source.watches, lambda: source.frames_sent)
        credentials = run.authority.issue(Name(LAPTOP, self.name))
        folder = RunFolder(str(self.disk.parent / f"run-{self.name}"), run.timeouts)
        session = self.session = Session(
            self.name, str(self.disk), credentials, ("", 0), run.timeouts, folder, relay=True
        )
        laptop = Name(LAPTOP, self.name)
        ends = Transfer(
            None,  # type: ignore[arg-type]
            Tcp("127.0.0.1"),
            run.authority.controller,
            laptop,
            run.timeouts,
            lambda: meter.mark,
        )
        participant = Participant(run.open_board, self.warnings.append, origin=run.origin)
        self.upstreams = participant.upstreams

        def conversation(link: Link) -> None:
            self.link = link
            if isinstance(source, SharedSource):
                source.attach(link)
            participant.attach(link)
            address = Address(self.name, "127.0.0.1", run.port_of(self, session._listener.port), run.site_of(self))

            def progress(payload: bytes) -> None:
                meter.update(payload)
                participant.progress(link, Status.unpack(payload), address)

            serve(link, source, progress)

        shared = isinstance(image, SharedDisk)
        module = StartedModule(lambda: self._module(session, image.root_digest, shared), lambda: session._listener.port)
        ends._module = module  # type: ignore[assignment]
        try:
            return dict(ends.converse(conversation), sent=source.frames_sent)
        finally:
            if isinstance(source, SharedSource):
                source.close()
            participant.leave()
            module.collect(3 * run.timeouts.link_timeout)

    def _module(self, session: Session, root: bytes, shared: bool) -> dict[str, Any]:
        def hold(sink: RestoreSink) -> None:
            self.sink = sink

        return restore_disk(session, self.disk, root, hold, self._run.rotational, self._run.servers, shared)

    @property
    def is_restored(self) -> bool:
        """Whether it has ended well, and its disk holds the image."""
        return self.error is None and not self.result.get("failed") and self.disk.read_bytes() == self._run.content

    @property
    def done(self) -> float:
        """The share of the image that it has."""
        plan = self.sink._job.plan if self.sink is not None else None
        return plan.delta.done / len(self._run.content) if plan is not None else 0.0

    def wait_for_share(self, share: float) -> None:
        """Wait until it has so much of the image, and others can take from it."""
        wait_until(
            lambda: self.done >= share and self.relay._share is not None,
            lambda: f"{self.name} does not get on: {self.error}",
        )

    @property
    def relay(self) -> Any:
        assert self.sink is not None and self.sink._job.relay is not None
        return self.sink._job.relay

    @property
    def left(self) -> list[tuple[str, str]]:
        """The laptops from which it took nothing any more, and why, as the result has it."""
        return [(each["host"], each["code"]) for each in self.upstreams.facts(None)["left"]]

    @property
    def received_from(self) -> dict[str, int]:
        """Bytes from each other laptop."""
        received: dict[str, int] = self.relay.source.received
        return received


class Run:
    """One run with an image in a store, and laptops."""

    def __init__(self, folder: Path, store: FolderStore, timeouts: Timeouts = TIMEOUTS) -> None:
        self.store = store
        self.timeouts = timeouts
        self.authority = Authority()
        self.source: Callable[[Any], StoredSource] = SlowSource
        self.image: Callable[[], ImageReader | SharedDisk] = lambda: self.store.open("image")
        self.origin: Address | None = None
        self.port_of: Callable[[Laptop, int], int] = lambda laptop, port: port
        """The port at which others reach a laptop."""
        self.site_of: Callable[[Laptop], str] = lambda laptop: ""
        self.rotational = False
        """Whether the laptops' disks rotate."""
        self.servers: dict[str, HttpLocation] = {}
        """HTTP servers that have the image."""
        self.content = b""
        """What a restored disk holds."""
        self.laptops: list[Laptop] = []
        self._folder = folder

    def open_board(self, site: str) -> Board:
        """The board of a site."""
        return Board(str(self._folder / f"board{site}"))

    def add(self, content: bytes) -> Laptop:
        """Start one more laptop with this content of its disk."""
        number = len(self.laptops)
        disk = self._folder / f"disk-{number:02}"
        disk.write_bytes(content)
        self.laptops.append(Laptop(self, number, disk))
        self.laptops[-1].start()
        return self.laptops[-1]

    def add_in_order(self, *contents: bytes) -> list[Laptop]:
        """Start several laptops, each when the one before has joined, and return them when all have joined."""
        added = []
        for content in contents:
            added.append(self.add(content))
            self._wait_for_members(len(self.laptops))
        return added

    def _wait_for_members(self, count: int) -> None:
        with contextlib.closing(self.open_board("")) as board:

            def joined() -> bool:
                with board.locked() as page:
                    return len(page.members()) >= count

            wait_until(joined, lambda: [laptop.error for laptop in self.laptops])

    def source_for(self, image: ImageReader | SharedDisk, host: str) -> StoredSource | SharedSource:
        """What a worker serves to its laptop."""
        if isinstance(image, ImageReader):
            return self.source(image)
        return SharedSource(image, host, self.timeouts, Tcp("127.0.0.1"))

    def begin(self, content: bytes) -> Laptop:
        """Start a laptop that others will take from, and return it when it has begun."""
        first = self.add(content)
        first.wait_for_share(0.1)
        return first

    def restored(self) -> list[bool]:
        """Of each laptop, whether it is restored."""
        return [laptop.is_restored for laptop in self.laptops]

    def join(self, seconds: float = 60) -> None:
        """Wait for all laptops."""
        for laptop in self.laptops:
            laptop.join(seconds)

    def images(self) -> float:
        """How many images the controller has sent."""
        return float(sum(laptop.result.get("sent", 0) for laptop in self.laptops)) / self.image_size()

    def image_size(self) -> int:
        """Bytes of all frames that a foreign laptop needs."""
        return sum(row.frame_size for row in self.store.open("image").index if not row.flags & 2)


def made_run(folder: Path, content: bytes, timeouts: Timeouts = TIMEOUTS) -> Run:
    """Return a run whose image is of a disk with this content, all of it used."""
    store = FolderStore(str(folder / "store"))
    os.mkdir(store.path)
    make_image(store.image_path("image"), content, Used((0, len(content))))
    run = Run(folder, store, timeouts)
    run.content = content
    return run
