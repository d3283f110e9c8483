# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both halves of both transfers over a network that fails, and peers that give up."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop import shown
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import RunFolder
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import LINK_BROKEN
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import ask_header
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import connect_tls
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer import Transfer
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports import tcp
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.transport import Unreachable
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.ends import (
    CONTROLLER_CREDENTIALS,
    CREDENTIALS,
    LAB_01,
)
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import CHUNK, make_image, noise

from .halves import (
    HANDSHAKE_SIZE,
    SIZE,
    TIMEOUT,
    TIMEOUTS,
    USED,
    Spoil,
    StartedModule,
    capture,
    cut_at,
    disk_is_restored,
    drop_at,
    first_only,
    flip_at,
    repeat_at,
    restore,
    swap_at,
    untouched,
)


def test_restore_makes_the_disk_equal_and_says_so(laptop: SimpleNamespace) -> None:
    result, ends = restore(laptop)
    assert disk_is_restored(laptop)
    assert (result["verified"], result["disk_state"]) == (True, "verified")
    assert result["links_made"] == ends.links == 1


def test_the_screen_of_the_live_system_shows_both_transfers(
    laptop: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "FOLDER", str(tmp_path))
    for transfer, words in ((restore, "restoring|comparing|verifying"), (capture, "capturing")):
        transfer(laptop)
        found = json.loads((tmp_path / shown.NAME).read_text())
        assert re.fullmatch(words, found["doing"]) and 0 <= found["done"] <= found["total"] > 0
        (tmp_path / shown.NAME).unlink()


def digest_of(laptop: SimpleNamespace) -> bytes:
    """The root digest of an image of what the disk holds."""
    other = FolderStore(laptop.store.path + "2")
    os.mkdir(other.path)
    return make_image(other.image_path("x"), laptop.disk.read_bytes(), USED)[0]


def test_capture_stores_what_the_disk_holds(laptop: SimpleNamespace) -> None:
    capture(laptop)
    assert laptop.store.open("captured").root_digest == digest_of(laptop)


AFTER_HANDSHAKE = HANDSHAKE_SIZE + 700
"""A place in the first messages of either end."""

SPOILS = {
    "altered handshake": flip_at(20),
    "altered at once": flip_at(AFTER_HANDSHAKE),
    "altered": flip_at(200_000),
    "dropped": drop_at(300_000),
    "repeated": repeat_at(300_000),
    "reordered": swap_at(300_000),
    "cut": cut_at(400_000),
}


@pytest.mark.parametrize("name", SPOILS)
def test_a_disturbed_restore_goes_on_over_a_new_link(laptop: SimpleNamespace, name: str) -> None:
    result, ends = restore(laptop, to_laptop=first_only(SPOILS[name]))
    assert disk_is_restored(laptop)
    assert result["verified"] is True
    assert laptop.proxies[0].connections == 2
    assert ends.links <= 2


@pytest.mark.parametrize("name", SPOILS)
def test_a_disturbed_capture_goes_on_over_a_new_link(laptop: SimpleNamespace, name: str) -> None:
    capture(laptop, to_controller=first_only(SPOILS[name]))
    content = laptop.disk.read_bytes()
    other = FolderStore(laptop.store.path + "2")
    os.mkdir(other.path)
    assert laptop.store.open("captured").root_digest == make_image(other.image_path("x"), content, USED)[0]
    assert laptop.proxies[0].connections == 2


def test_whoever_alters_every_message_only_prevents_the_transfer(laptop: SimpleNamespace) -> None:
    before = laptop.disk.read_bytes()
    with pytest.raises(ImagingError, match="could not be kept"):
        restore(laptop, to_laptop=lambda: flip_at(AFTER_HANDSHAKE))
    assert laptop.disk.read_bytes() == before
    with pytest.raises(ImagingError, match="could not be kept") as caught:
        capture(laptop, to_controller=lambda: flip_at(AFTER_HANDSHAKE))
    assert caught.value.facts["codes"] == [LINK_BROKEN]
    assert laptop.store.names() == ["image"]
    assert os.listdir(laptop.store.path) == ["image.img.zst"]


class Damaging(StoredSource):
    """Sends the first frame with a wrong bit, as from memory that fails after the image was checked."""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, memoryview], None, None]:
        for number, (header, frame) in enumerate(super().records(start, end)):
            if start or number:
                yield header, frame
            else:
                yield header, memoryview(bytes([frame[0] ^ 1]) + frame[1:])


def test_a_frame_that_is_damaged_each_time_ends_the_restore_and_the_disk_does_not_boot(laptop: SimpleNamespace) -> None:
    result, ends = restore(laptop, source=Damaging)
    assert "chunk 0 arrived damaged 3 times" in result["msg"]
    assert ends.links == 3
    assert not disk_is_restored(laptop)
    assert not any(laptop.disk.read_bytes()[:512])


def test_a_frame_that_is_damaged_before_anything_is_written_leaves_the_disk_alone(laptop: SimpleNamespace) -> None:
    with laptop.disk.open("ab") as file:
        file.write(bytes(CHUNK))  # of another size than the image, which is looked into first
    before = laptop.disk.read_bytes()
    result, _ends = restore(laptop, source=Damaging)
    assert "chunk 0 arrived damaged 3 times" in result["msg"]
    assert "Nothing was written" in result["msg"]
    assert "does not boot" not in result["msg"]
    assert laptop.disk.read_bytes() == before


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97, 0.999])
def test_cut_anywhere_the_disk_does_not_boot_and_the_next_link_finishes(laptop: SimpleNamespace, share: float) -> None:
    size = os.path.getsize(laptop.store.image_path("image"))
    before: list[bytes] = []

    def make() -> Spoil:
        if before:
            return untouched()
        before.append(b"")

        def spoil(position: int, data: bytes) -> bytes:
            if position + len(data) < size * share:
                return data
            time.sleep(0.3)  # what went through is written meanwhile
            before[0] = laptop.disk.read_bytes()
            return b""

        return spoil

    result, _ends = restore(laptop, to_laptop=make)
    assert not any(before[0][:1024]) and not any(before[0][-512:])
    assert result["verified"] is True
    assert disk_is_restored(laptop)


def test_what_reads_back_differently_does_not_boot(laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses a write, and says nothing."""
    write = RawDisk.write_from

    def lossy(self: RawDisk, offset: int, view: memoryview) -> None:
        if offset != 5 * CHUNK:
            write(self, offset, view)

    monkeypatch.setattr(RawDisk, "write_from", lossy)
    result, _ends = restore(laptop)
    assert (result["verified"], result["differing_chunks"], result["disk_state"]) == (False, 1, "incomplete")
    found = laptop.disk.read_bytes()
    assert not any(found[:1024]) and not any(found[-512:])


def test_a_damaged_image_is_named_as_the_cause(laptop: SimpleNamespace) -> None:
    path = laptop.store.image_path("image")
    row = laptop.store.open("image").index.find(12)
    with open(path, "r+b") as file:
        file.seek(row.frame_offset + 100)
        file.write(b"damage")
    with pytest.raises(ImagingError, match=r"image\.img\.zst: the frame of chunk 12 is damaged"):
        restore(laptop)
    assert not any(laptop.disk.read_bytes()[:512])


def replace_by_another(image: Path) -> None:
    other = image.with_name("other")
    make_image(str(other), noise(SIZE, 9), USED)
    os.replace(other, image)


def write_another_over_it(image: Path) -> None:
    other = image.with_name("other")
    make_image(str(other), noise(SIZE, 9), USED)
    image.write_bytes(other.read_bytes())


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "removed": (os.unlink, True),
    "renamed": (lambda image: image.rename(image.with_name("moved")), True),
    "replaced": (replace_by_another, True),
    "overwritten": (write_another_over_it, False),
    "cut": (lambda image: os.truncate(image, image.stat().st_size // 2), False),
    "emptied": (lambda image: os.truncate(image, 0), False),
}
"""What may become of an image in the midst of a restore, and whether the restore still gets what it was to get."""


@pytest.mark.parametrize("change", list(CHANGES))
def test_an_image_that_changes_while_it_is_restored_is_never_mixed_with_another(
    laptop: SimpleNamespace, change: str
) -> None:
    work, finishes = CHANGES[change]
    image = Path(laptop.store.image_path("image"))

    class Changing(StoredSource):
        """Changes it once the tenth chunk is on its way, no matter in how many requests."""

        sent = 0

        def records(self, start: int, end: int) -> Generator[tuple[bytes, memoryview], None, None]:
            for record in super().records(start, end):
                yield record
                self.sent += 1
                if self.sent == 10:
                    work(image)

    if finishes:
        result, _ends = restore(laptop, source=Changing)
        assert result["verified"] and disk_is_restored(laptop)
    else:
        with pytest.raises(ImagingError, match=re.escape(str(image))):
            restore(laptop, source=Changing)
        assert not disk_is_restored(laptop)
        assert laptop.disk.read_bytes()[:512] == bytes(512), "it boots"


def test_a_store_that_is_full_keeps_what_it_has_and_the_next_capture_goes_on_from_it(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter

    append = ImageWriter.append

    def full(self: ImageWriter, header: Any, *more: Any) -> None:
        if header.chunk == 9:
            raise OSError(28, "No space left on device")
        append(self, header, *more)

    monkeypatch.setattr(ImageWriter, "append", full)
    with pytest.raises(ImagingError, match="No space left on device"):
        capture(laptop)
    assert sorted(os.listdir(laptop.store.path)) == ["captured.img.zst.partial", "image.img.zst"]
    monkeypatch.setattr(ImageWriter, "append", append)
    result, _ends = capture(laptop)
    assert result["kept"] == len([row for row in laptop.store.open("captured").index if row.chunk < 9])
    assert sorted(os.listdir(laptop.store.path)) == ["captured.img.zst", "image.img.zst"]


def test_nobody_at_the_port_is_said_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    module: Any = SimpleNamespace(wait_for_port=lambda: port, has_ended=lambda: False)
    with pytest.raises(
        ImagingError, match=f"127.0.0.1 port {port} failed: Connection refused.*Nothing was transferred"
    ) as caught:
        Transfer(
            module, tcp.Tcp("127.0.0.1"), CONTROLLER_CREDENTIALS, LAB_01, Timeouts(first_link=0.3), lambda: 0
        ).converse(lambda link: None)
    assert caught.value.facts["codes"] == [LINK_BROKEN]


def test_a_firewall_that_drops_is_guessed_from_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        waiting = []
        for _number in range(4):  # fill the backlog: further connection requests are dropped, as a firewall would
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(address)
        with pytest.raises(Unreachable, match=r"firewall.*imaging_port"):
            tcp.Tcp("127.0.0.1").open(address[1], 0.3)
        for connection in waiting:
            connection.close()


def test_a_name_that_nobody_knows_is_said() -> None:
    with pytest.raises(Unreachable, match="ansible_host"):
        tcp.Tcp("no-such-laptop.invalid").open(19000, 5)


def test_the_module_ends_when_the_controller_says_why(laptop: SimpleNamespace) -> None:
    class Stop(BaseException):
        pass

    def conversation(link: Link) -> None:
        raise Stop("the run was interrupted on the controller")

    outcome: list[str] = []

    def work(session: Session) -> dict[str, Any]:
        try:
            session.converse(lambda link: serve(link, SimpleNamespace()))
        except ImagingError as error:
            outcome.append(str(error))
        return {}

    began = time.monotonic()
    with pytest.raises(Stop):
        laptop.run(work, conversation, lambda: 0)
    assert outcome == ["the run was interrupted on the controller"]
    assert time.monotonic() - began < 2


def test_a_laptop_that_gave_up_is_not_shown_as_about_to_finish(laptop: SimpleNamespace) -> None:
    def give_up(_link: Link) -> None:
        raise ImagingError("the disk is failing")

    def work(session: Session) -> dict[str, Any]:
        session.converse(give_up)
        return {}

    result, ends = laptop.run(work, ask_header, lambda: 0)
    assert (result["msg"], ends.condition, ends.over) == ("the disk is failing", "failed", False)


def test_the_counter_of_a_broken_link_stops_at_its_limit() -> None:
    ends = Transfer(None, tcp.Tcp("127.0.0.1"), CONTROLLER_CREDENTIALS, LAB_01, Timeouts(link_timeout=20), lambda: 0)  # type: ignore[arg-type]
    ends._listening, ends.links, ends._failing_since = True, 1, time.monotonic() - 33
    assert (ends.condition, ends.waited) == ("reconnecting", "20/20 s")


def test_a_laptop_that_was_reached_once_is_not_behind_a_firewall(
    laptop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tcp.Tcp.open

    def vanish(self: tcp.Tcp, port: int, seconds: float) -> Any:
        if laptop.proxies[0].connections:
            raise Unreachable("Open TCP port 19000 in the firewall.")
        return opened(self, port, seconds)

    monkeypatch.setattr(tcp.Tcp, "open", vanish)
    with pytest.raises(ImagingError, match=r"was connected before, and has not answered since \d\d:\d\d") as caught:
        restore(laptop, to_laptop=lambda: cut_at(300_000))
    assert "firewall" not in str(caught.value)


def test_a_lost_last_word_loses_no_capture(laptop: SimpleNamespace) -> None:
    """The link breaks just as the controller says that it has everything."""
    sizes: list[int] = []

    def count(position: int, data: bytes) -> bytes:
        sizes.append(position + len(data))
        return data

    capture(laptop, to_laptop=first_only(count))
    os.unlink(laptop.store.image_path("captured"))
    result, ends = capture(laptop, to_laptop=first_only(cut_at(max(sizes) - 5)))
    assert "failed" not in result
    assert ends.links == 2
    assert laptop.store.names() == ["captured", "image"]


class Cable:
    """One that is pulled out of the first connection once so much has passed to one end, for so long; in both directions."""

    def __init__(self, after: int, seconds: float) -> None:
        self._after = after
        self._seconds = seconds
        self._plugged = threading.Event()
        self._plugged.set()
        self.pulled = False

    def counted(self) -> Spoil:
        """Towards the end that gets the data."""

        def spoil(position: int, data: bytes) -> bytes:
            if position > self._after and not self.pulled:
                self.pulled = True
                self._plugged.clear()
                threading.Timer(self._seconds, self._plugged.set).start()
            return self.held(position, data)

        return spoil

    def held(self, _position: int, data: bytes) -> bytes:
        """What comes through, late."""
        self._plugged.wait()
        return data


@pytest.mark.parametrize(("silence", "breaks"), [(3.2, False), (0.8, True)])
@pytest.mark.parametrize("transfer", [restore, capture])
def test_a_link_that_is_down_for_a_while_loses_nothing(
    laptop: SimpleNamespace, transfer: Callable[..., Any], silence: float, breaks: bool
) -> None:
    """Whether that is shorter than the silence after which a link counts as broken, or longer."""
    cable = Cable(SIZE // 4, 1.6)
    ways = {"to_laptop": first_only(cable.counted()), "to_controller": first_only(cable.held)}
    if transfer is capture:
        ways = {"to_laptop": first_only(cable.held), "to_controller": first_only(cable.counted())}
    timeouts = replace(TIMEOUTS, min_silence=silence, max_silence=silence)
    _result, ends = transfer(laptop, timeouts=timeouts, **ways)
    assert cable.pulled and (ends.links > 1) is breaks
    if transfer is restore:
        assert disk_is_restored(laptop)
    else:
        assert laptop.store.open("captured").root_digest == digest_of(laptop)


def test_a_slow_link_is_not_a_silent_one(laptop: SimpleNamespace) -> None:
    """It carries each piece within the silence, and all of them in many times that."""

    def slow(_position: int, data: bytes) -> bytes:
        time.sleep(len(data) / RATE)
        return data

    silence = 0.8
    began = time.monotonic()
    _result, ends = restore(
        laptop, to_laptop=lambda: slow, timeouts=replace(TIMEOUTS, min_silence=silence, max_silence=silence)
    )
    assert disk_is_restored(laptop) and ends.links == 1
    assert time.monotonic() - began > 4 * silence


RATE = 250_000
"""Bytes a second."""


def test_a_path_that_swallows_the_data_is_given_up(laptop: SimpleNamespace) -> None:
    """Handshakes and small messages pass, bulk does not: a network with a too small MTU somewhere."""

    def swallow() -> Spoil:
        def spoil(position: int, data: bytes) -> bytes:
            if position + len(data) > 6000:
                time.sleep(1)
                return b""
            return data

        return spoil

    began = time.monotonic()
    with pytest.raises(ImagingError, match="nothing got through"):
        restore(laptop, to_laptop=swallow, timeouts=replace(TIMEOUTS, min_silence=0.5))
    assert time.monotonic() - began < 6 * TIMEOUT


def test_an_end_during_the_comparison_is_heard_over_a_new_link(laptop: SimpleNamespace, tmp_path: Path) -> None:
    session = Session(
        "attended",
        str(laptop.disk),
        CREDENTIALS[LAB_01],
        ("", 0),
        Timeouts(link_timeout=1),
        RunFolder(str(tmp_path / "run2")),
    )
    outcome: list[str] = []

    def conversation(link: Link) -> None:
        attendance = session.monitor(link)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            attendance.check()
            time.sleep(0.05)

    def work() -> dict[str, Any]:
        with session:
            try:
                session.converse(conversation)
            except ImagingError as error:
                outcome.append(str(error))
        return {}

    module = StartedModule(work, lambda: session._listener.port)
    first = link_to(module.wait_for_port())
    time.sleep(0.2)
    first.close()
    time.sleep(0.3)
    link_to(module.wait_for_port()).end("the controller gives up")
    module.collect(3)
    assert outcome == ["the controller gives up"]


def test_why_a_laptop_gives_up_is_said_on_the_newest_link(laptop: SimpleNamespace, tmp_path: Path) -> None:
    session = Session(
        "attended", str(laptop.disk), CREDENTIALS[LAB_01], ("", 0), TIMEOUTS, RunFolder(str(tmp_path / "run2"))
    )

    def conversation(link: Link) -> None:
        attendance = session.monitor(link)
        deadline = time.monotonic() + 10
        while attendance.link is link and time.monotonic() < deadline:
            attendance.check()
            time.sleep(0.02)
        raise ImagingError("the disk is gone")

    def work() -> dict[str, Any]:
        with session, contextlib.suppress(ImagingError):
            session.converse(conversation)
        return {}

    module = StartedModule(work, lambda: session._listener.port)
    first = link_to(module.wait_for_port())
    time.sleep(0.2)
    first.close()
    second = link_to(module.wait_for_port())
    assert second.receive().payload == b"the disk is gone"
    second.close()
    module.collect(3)


def test_stopwatches_add_up_over_threads() -> None:
    watches = Stopwatches()

    def work() -> None:
        watch = watches.new()
        time.sleep(0.05)
        watch.busy("stage")
        time.sleep(0.02)
        watch.wait("stage")

    threads = [threading.Thread(target=work) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = watches.stages()["stage"]
    assert 0.15 <= times["busy"] < 0.6
    assert 0.06 <= times["wait"] < 0.5


def link_to(port: int) -> Link:
    channel = tcp.Tcp("127.0.0.1").open(port, 5)
    return Link(connect_tls(channel, CONTROLLER_CREDENTIALS.context(server_side=False), LAB_01), LAB_01)
