# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both halves of both transfers over real sockets, with somebody in between.

Only Ansible is left out: a thread stands where it would start the module on a laptop.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult, MissingTool
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import CaptureSource
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.restore import RestoreSink
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import RunFolder
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.target_disk import RestoreRequest
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve, serve_live
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.modules.image_restore import check_end
from ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink import CaptureSink
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer import Transfer
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.tcp import Tcp
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.ends import (
    CONTROLLER_CREDENTIALS,
    CREDENTIALS,
    LAB_01,
)
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import (
    CHUNK,
    Used,
    geometry,
    make_image,
    noise,
)

SIZE = 40 * CHUNK
USED = Used((0, 25 * CHUNK), (30 * CHUNK, 30 * CHUNK + 4096), (39 * CHUNK, SIZE))
DISK = noise(SIZE, 5)
TIMEOUT = 3.0
TIMEOUTS = Timeouts(link_timeout=TIMEOUT, first_link=1.5)
HANDSHAKE_SIZE = 1310
"""Bytes that each end sends in the handshake of a link at the most: 1294 to 1305 were measured."""
NO_IDENTITY = {"model": "", "serial": "", "wwn": ""}
PARTITIONS = [{"number": 1, "start": CHUNK, "size": 9 * CHUNK, "content": "ntfs", "label": "Windows"}]

Spoil = Callable[[int, bytes], bytes]
"""What the man in the middle does with the bytes at a position of the stream; an empty answer cuts the link."""


class Proxy:
    """Stands between controller and laptop, or another server, at its address, for as many connections as come."""

    def __init__(
        self,
        port: int,
        to_laptop: Callable[[], Spoil],
        to_controller: Callable[[], Spoil],
        address: str = "127.0.0.1",
    ) -> None:
        self._target = (address, port)
        self._makers = (to_laptop, to_controller)
        self._server = socket.create_server((address, 0))
        self.port: int = self._server.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._server.accept()
                self.connections += 1
                far = socket.create_connection(self._target)
                for source, target, make in ((near, far, self._makers[0]), (far, near, self._makers[1])):
                    threading.Thread(target=self._pump, args=(source, target, make()), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, spoil: Spoil) -> None:
        position = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                changed = spoil(position, data)
                if not changed:
                    break
                target.sendall(changed)
                position += len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()  # who is blocked in sending, because nothing is taken any more, hears only of this

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


class StartedModule:
    """The module of a laptop, in a thread instead of behind Ansible."""

    def __init__(self, work: Callable[[], dict[str, Any]], port: Callable[[], int]) -> None:
        self._port = port
        self._outcome: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], dict[str, Any]]) -> None:
        try:
            self._outcome = work()
        except ImagingError as error:
            self._outcome = {"failed": True, "msg": str(error), **error.facts}

    def wait_for_port(self) -> int:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(AttributeError):
                port: int = self._port()
                return port
            time.sleep(0.01)
        raise AssertionError("the module did not listen")

    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def collect(self, within: float) -> dict[str, Any]:
        self._thread.join(within)
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread.is_alive() else None
        assert frame is None, "".join(["the module does not end, but is here:\n", *traceback.format_stack(frame)])
        return self._outcome


def untouched() -> Spoil:
    return lambda _position, data: data


def flip_at(where: int) -> Spoil:
    def spoil(position: int, data: bytes) -> bytes:
        if position <= where < position + len(data):
            changed = bytearray(data)
            changed[where - position] ^= 1
            return bytes(changed)
        return data

    return spoil


def cut_at(where: int) -> Spoil:
    return lambda position, data: data if position + len(data) < where else b""


def drop_at(where: int) -> Spoil:
    return lambda position, data: data[:-7] if position <= where < position + len(data) else data


def repeat_at(where: int) -> Spoil:
    return lambda position, data: data + data if position <= where < position + len(data) else data


def swap_at(where: int) -> Spoil:
    return lambda position, data: data[::-1] if position <= where < position + len(data) else data


def first_only(spoil: Spoil) -> Callable[[], Spoil]:
    """Spoils one connection and leaves the ones after it alone."""
    pending = [spoil]
    return lambda: pending.pop() if pending else untouched()


def hold(
    device: str,
    folder: Path,
    work: Callable[[Session], dict[str, Any]],
    conversation: Callable[[Link], None],
    progress: Callable[[], int],
    through: Callable[[int], int] = lambda port: port,
    timeouts: Timeouts = TIMEOUTS,
) -> tuple[dict[str, Any], Transfer]:
    """Hold a transfer: the laptop's ``work`` on a disk, and the controller's ``conversation``, which reaches it ``through`` another port.

    Returns the module's result, and the controller's end.
    """
    ends = Transfer(None, Tcp("127.0.0.1"), CONTROLLER_CREDENTIALS, LAB_01, timeouts, progress)  # type: ignore[arg-type]
    session = Session("run", device, CREDENTIALS[LAB_01], ("", 0), timeouts, RunFolder(str(folder), timeouts))

    def entered() -> dict[str, Any]:
        with session:
            return work(session)

    module = StartedModule(entered, lambda: through(session._listener.port))
    ends._module = module  # type: ignore[assignment]
    try:
        return ends.converse(conversation), ends
    finally:
        module.collect(3 * timeouts.link_timeout)


@contextlib.contextmanager
def made_laptop(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A laptop with a disk, a store with an image of another disk, and a place for a man in the middle."""
    store = FolderStore(str(tmp_path / "store"))
    os.mkdir(store.path)
    root, _masked = make_image(store.image_path("image"), DISK, USED)
    disk = tmp_path / "disk"
    disk.write_bytes(noise(SIZE, 6))
    proxies: list[Proxy] = []

    def run(
        work: Callable[[Session], dict[str, Any]],
        conversation: Callable[[Link], None],
        progress: Callable[[], int],
        **spoil: Any,
    ) -> Any:
        def through(port: int) -> int:
            proxies.append(Proxy(port, spoil.get("to_laptop", untouched), spoil.get("to_controller", untouched)))
            return proxies[-1].port

        return hold(str(disk), tmp_path / "run", work, conversation, progress, through, spoil.get("timeouts", TIMEOUTS))

    yield SimpleNamespace(run=run, store=store, root=root, disk=disk, proxies=proxies)
    for proxy in proxies:
        proxy.close()


def no_programs(command: Sequence[str]) -> CommandResult:
    """What runs programs on a laptop that has none."""
    raise MissingTool(command[0])


def restore(laptop: SimpleNamespace, *, rotating: bool = False, **options: Any) -> Any:
    """Restore the image; options are a request's, or what the man in the middle does, or another source or conversation of the controller's,
    or what runs programs on the laptop, or ``timeouts``. In ``end`` of the result is what says whether the module fails.
    """
    spoil = {name: options.pop(name) for name in ("to_laptop", "to_controller", "timeouts") if name in options}
    image = laptop.store.open("image")
    source = options.pop("source", StoredSource)(image)
    meter = Meter(source.watches, lambda: source.frames_sent, frames=image.stored_bytes)
    conversation = options.pop("conversation", lambda link: serve(link, source, meter.update))
    run = options.pop("run", no_programs)
    request = RestoreRequest(str(laptop.disk), laptop.root, {}, **{"write": True, "read_back": True, **options})

    def work(session: Session) -> dict[str, Any]:
        with RawDisk(str(laptop.disk), writable=request.write) as raw:
            disk = SimpleNamespace(rotational=rotating)
            target = SimpleNamespace(
                raw=raw,
                disk=disk,
                run=run,
                check_fits=lambda header, index: None,
                identity=lambda: NO_IDENTITY,
                table_id=str,
            )
            with contextlib.closing(RestoreSink(target, request, find_zstd(), session)) as sink:  # type: ignore[arg-type]
                session.converse(sink.converse)
                result = sink.result()
                end = partial(check_end, sink, request, result)
                return dict(asdict(result), end=end, warnings=sink.outcome.warnings)

    result, ends = laptop.run(work, conversation, lambda: meter.mark, **spoil)
    return dict(result, sent=ends.sent), ends


def capture(
    laptop: SimpleNamespace,
    *,
    used: Used = USED,
    zero_bad: bool = False,
    sink_type: type[CaptureSink] = CaptureSink,
    doubt: Callable[[SimpleNamespace], bool] = lambda disk: False,
    **spoil: Any,
) -> Any:
    """Capture the disk, or bring its image up to date. ``doubt`` is asked for doubts about what is used, which it may change."""
    store = laptop.store
    sink = sink_type(store, store.stage("captured"), store.existing("captured", update=True), chunk_size=CHUNK)
    sent = 0

    def work(session: Session) -> dict[str, Any]:
        def conversation(link: Link) -> None:
            nonlocal sent
            try:
                serve_live(link, source)
            finally:
                sent += link.bytes_sent

        with RawDisk(str(laptop.disk)) as raw:
            measures = geometry(raw.size)
            disk = SimpleNamespace(
                raw=raw,
                request=SimpleNamespace(device="disk", level=3, zero_bad_sectors=zero_bad),
                geometry=measures,
                used=SimpleNamespace(ranges=used, partitions_json=lambda: PARTITIONS),
                map_used=lambda: None,
                checked=lambda seconds: True,
                header=lambda stream, ticket: ImageHeader(measures, stream, "now"),
            )
            disk.take_doubts = lambda: doubt(disk)
            disk.content = lambda: (raw, disk.used.ranges)
            source = CaptureSource(disk, None, find_zstd())  # type: ignore[arg-type]
            session.converse(conversation)
            assert source.capture is not None
            root = source.capture.index.root_digest().hex()
            return {"root_digest": root, "used_bytes": 1, "bad_ranges": source.bad_ranges()}

    try:
        result, ends = laptop.run(work, sink.converse, sink.progress, **spoil)
        if not result.get("failed"):
            sink.conclude(result)
        return dict(result, kept=sink.kept, changed=sink.changed, sent=sent), ends
    finally:
        sink.release()


def disk_is_restored(laptop: SimpleNamespace) -> bool:
    """Whether every used byte of the laptop's disk is the image's."""
    found = laptop.disk.read_bytes()
    return all(found[start:end] == DISK[start:end] for start, end in USED.ranges)
