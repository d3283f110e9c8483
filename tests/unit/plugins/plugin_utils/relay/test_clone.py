# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laptops become equal to a reference that shares its disk, over real sockets."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk, ReadError
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import CaptureRequest
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import RunFolder
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.sharing import Described, share_disk
from ansible_collections.fleet.imaging.plugins.module_utils.run_file import CONNECTED, WAITING
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import finish
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.participant import Address
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_authority import run_authority
from ansible_collections.fleet.imaging.plugins.plugin_utils.shared_disk import SharedDisk, Sharing, ask_description
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer import Transfer
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.tcp import Tcp

from ...module_utils.samples import CHUNK, Used, geometry, noise
from ..halves import NO_IDENTITY, StartedModule
from .fleet import TIMEOUTS, Laptop, Run, wait_until

CHUNKS = 200
SIZE = CHUNKS * CHUNK
USED = Used((0, 150 * CHUNK), (170 * CHUNK, SIZE))
DISK = noise(SIZE, 5)
BLANK = bytes(SIZE)
HOST = "reference-01"
NUMBERS = itertools.count()
SHORT = pytest.mark.parametrize("run", [Timeouts(link_timeout=2.0, first_link=2.0)], indirect=True)


class Reference:
    """A reference, its module in a thread, and the controller's work with it."""

    def __init__(self, run: Run, disk: Path) -> None:
        self._run = run
        self.disk = disk
        self.folder = RunFolder(str(disk.parent / f"run-{next(NUMBERS)}"), run.timeouts)
        self.doubts: Callable[[], bool] = lambda: False
        self.checked: Callable[[], bool] = lambda: True
        """Whether all file systems were checked."""
        self.kind = SimpleNamespace(rotational=False)
        self.read: Callable[[int], object] = id
        """Called with each offset before it is read."""
        self.described: Described
        credentials = run.authority.issue(Name(LAPTOP, HOST))
        self.session = Session("reference", str(disk), credentials, ("", 0), run.timeouts, self.folder, relay=True)
        self.module = StartedModule(self._work, lambda: self.session._listener.port)

    def _take_doubts(self) -> bool:
        return self.doubts()

    def _work(self) -> dict[str, Any]:
        with self.session, RawDisk(str(self.disk)) as raw:
            read = raw.read_into

            def read_into(offset: int, view: memoryview) -> None:
                self.read(offset)
                read(offset, view)

            raw.read_into = read_into  # type: ignore[method-assign]
            measures = geometry(raw.size)
            disk: Any = SimpleNamespace(
                raw=raw,
                disk=self.kind,
                geometry=measures,
                used=SimpleNamespace(ranges=USED, partitions_json=list),
                map_used=lambda: None,
                checked=lambda seconds: self.checked(),
                take_doubts=self._take_doubts,
                content=lambda: (raw, USED),
                header=lambda stream, ticket: ImageHeader(measures, stream, "now"),
                identity=lambda: NO_IDENTITY,
            )
            request = CaptureRequest(str(self.disk), "all", 1, False, None, chunk_size=CHUNK)
            self.described = Described(disk, request, None, find_zstd())  # type: ignore[arg-type]
            return asdict(share_disk(disk, self.described, self.session))

    def converse(self, conversation: Callable[[Link], None], then_leave: bool = False) -> dict[str, Any]:
        run = self._run
        laptop = Name(LAPTOP, HOST)
        ends = Transfer(
            self.module,  # type: ignore[arg-type]
            Tcp("127.0.0.1"),
            run.authority.controller,
            laptop,
            run.timeouts,
            lambda: 0,
        )
        return ends.converse(conversation, then_leave)

    def share(self) -> dict[str, Any]:
        """Have the disk described, and all laptops of the run take it from here; returns what the module says if it fails."""
        described: list[bytes] = []

        def ask(link: Link) -> None:
            described[:] = ask_description(link, id)

        failed = self.converse(ask, then_leave=True)
        if not failed:
            port = self.module.wait_for_port()
            sharing = Sharing(
                host=HOST,
                address="127.0.0.1",
                ip="127.0.0.1",
                port=port,
                way={},
                run_id="reference",
                folders=("", ""),
            )
            self._run.image = lambda: SharedDisk.of(sharing, *described)
            self._run.origin = Address(HOST, "127.0.0.1", port)
        return failed

    def hold_hashing(self, chunk: int) -> threading.Event:
        """Hold the reference up when it is about to hash a chunk, until the event is set."""
        go_on, held = threading.Event(), [chunk * CHUNK]

        def read(offset: int) -> None:
            if offset in held:
                held.remove(offset)
                go_on.wait(30)

        self.read = read
        return go_on

    def hash_all(self) -> None:
        """Wait until all is hashed."""
        wait_until(lambda: self.described.hashes.root)

    def end(self) -> dict[str, Any]:
        return self.converse(finish)

    @property
    def state(self) -> str:
        (run,) = self.folder.alive()
        return run.state


@pytest.fixture(name="run")
def fixture_run(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    run = Run(tmp_path, FolderStore(str(tmp_path / "store")), getattr(request, "param", TIMEOUTS))
    run.authority = run_authority()  # by which workers connect to the reference
    return run


@pytest.fixture(name="reference")
def fixture_reference(run: Run, tmp_path: Path) -> Iterator[Reference]:
    disk = tmp_path / "reference"
    disk.write_bytes(DISK)
    reference = Reference(run, disk)
    yield reference
    reference.module.collect(3 * run.timeouts.link_timeout)


def does_not_boot(laptop: Laptop) -> bool:
    return laptop.disk.read_bytes()[:512] == bytes(512)


def done(laptop: Laptop) -> int:
    """How many chunks it has."""
    plan = laptop.sink and laptop.sink._job.plan
    return plan.delta.done // CHUNK if plan else 0


def is_equal(laptop: Laptop) -> bool:
    found = laptop.disk.read_bytes()
    return all(found[start:end] == DISK[start:end] for start, end in USED.ranges)


def failure(laptop: Laptop) -> str:
    return f"{laptop.error or ''} {laptop.result.get('msg', '')}"


def test_all_become_equal_and_the_reference_sends_its_disk_once(run: Run, reference: Reference) -> None:
    assert reference.share() == {}
    for _number in range(6):
        run.add(BLANK)
    run.join()
    assert [failure(laptop).strip() for laptop in run.laptops] == [""] * 6
    assert all(map(is_equal, run.laptops))
    givers = [giver for laptop in run.laptops for giver in laptop.received_from]
    assert len(givers) == len(set(givers)) == 6 and HOST in givers, givers
    assert [laptop.result["sent"] for laptop in run.laptops] == [0] * 6
    shared = reference.end()
    (first,) = [laptop for laptop in run.laptops if HOST in laptop.received_from]
    assert shared["passed_on"] == first.received_from[HOST]
    assert shared["bytes_read"] == 2 * shared["used_bytes"] == 2 * 180 * CHUNK
    assert reference.disk.read_bytes() == DISK


def test_one_laptop_of_each_site_takes_from_the_reference(run: Run, reference: Reference) -> None:
    reference.share()
    run.site_of = lambda laptop: laptop.name[-1]
    for _number in range(2):
        run.add(BLANK)
    run.join()
    assert [laptop.received_from.keys() for laptop in run.laptops] == [{HOST}] * 2
    assert all(map(is_equal, run.laptops)) and [laptop.result["sent"] for laptop in run.laptops] == [0] * 2
    reference.end()


def test_a_larger_disk_becomes_equal_too_and_passes_on(run: Run, reference: Reference) -> None:
    reference.share()
    run.add_in_order(BLANK + b"old" * CHUNK * 3, BLANK)
    run.join()
    assert [failure(laptop).strip() for laptop in run.laptops] == [""] * 2
    assert all(map(is_equal, run.laptops))
    # What is patched on a disk of another size is needed before anything is taken from laptops.
    assert run.laptops[0].result["sent"] < CHUNK and run.laptops[1].result["sent"] == 0
    assert {HOST} | {"lab-00"} == {giver for laptop in run.laptops for giver in laptop.received_from}
    reference.end()


def test_nothing_travels_to_equal_laptops(run: Run, reference: Reference) -> None:
    reference.share()
    for _number in range(2):
        run.add(DISK)
    run.join()
    assert [(laptop.result["changed"], laptop.received_from) for laptop in run.laptops] == [(False, {})] * 2
    assert reference.end()["passed_on"] == 0


def test_where_the_laptops_cannot_reach_the_reference_the_controller_stands_between(
    run: Run, reference: Reference
) -> None:
    reference.share()
    run.origin = Address(HOST, "127.0.0.1", 1)
    laptop = run.add(BLANK)
    run.join()
    assert is_equal(laptop) and laptop.received_from == {}, failure(laptop)
    assert laptop.result["sent"] == reference.end()["passed_on"] > 0


def test_a_reference_that_changes_is_refused_and_no_disk_boots(run: Run, reference: Reference) -> None:
    reference.share()
    reference.hash_all()
    with open(reference.disk, "r+b") as disk:
        disk.seek(149 * CHUNK)
        disk.write(b"changed")
    laptops = [run.add(BLANK), run.add(BLANK)]
    run.join()
    for laptop in laptops:
        assert "Chunk 149 of the reference's disk is not what it was" in failure(laptop)
        assert does_not_boot(laptop)
    assert "Chunk 149" in reference.end()["msg"]


@pytest.mark.parametrize("run", [Timeouts(link_timeout=4.0, first_link=4.0)], indirect=True)
def test_when_the_reference_dies_the_laptops_say_so_and_the_next_run_goes_on(run: Run, reference: Reference) -> None:
    reference.share()
    reference.hash_all()
    died, reads = threading.Event(), itertools.count()
    reference.read = lambda _offset: died.wait(30) if next(reads) >= 100 else None
    laptops = [run.add(BLANK), run.add(BLANK)]
    wait_until(lambda: min(map(done, laptops)) >= 90)
    cut_off(reference)
    run.join()
    died.set()
    for laptop in laptops:
        assert "The reference reference-01 sends no more of its disk" in failure(laptop), failure(laptop)
        assert does_not_boot(laptop)
    reference.module.collect(30)
    again = Reference(run, reference.disk)
    again.share()
    laptop = run.add(laptops[0].disk.read_bytes())
    run.laptops[-1].join(30)
    assert is_equal(laptop) and laptop.result["equal_chunks"] >= 80, failure(laptop)
    again.end()


def cut_off(reference: Reference) -> None:
    """Nobody reaches it any more."""
    listener = reference.session._listener
    listener.close()
    for link in list(listener._taken.values()):
        link.close()


@pytest.mark.parametrize("rotational", [False, True])
def test_laptops_take_what_is_hashed_while_the_reference_hashes(
    run: Run, reference: Reference, rotational: bool
) -> None:
    go_on = reference.hold_hashing(101)
    run.rotational = rotational
    reference.share()
    laptops = [run.add(BLANK), run.add(BLANK)]
    wait_until(lambda: min(map(done, laptops)) >= 90)
    assert not reference.described.hashes.root and all(map(does_not_boot, laptops))
    # A new link brings what the last one did not.
    assert laptops[0].link is not None
    laptops[0].link.close()
    go_on.set()
    run.join()
    assert all(map(is_equal, laptops)), [failure(laptop) for laptop in laptops]
    shared = reference.end()
    assert {laptop.result["root_digest"] for laptop in laptops} == {shared["root_digest"]} != {""}


def test_what_a_laptop_has_is_recognised_while_the_reference_hashes(run: Run, reference: Reference) -> None:
    go_on = reference.hold_hashing(121)
    reference.share()
    laptop = run.add(bytes(100 * CHUNK) + DISK[100 * CHUNK :])
    wait_until(lambda: done(laptop) >= 110)
    go_on.set()
    run.join()
    assert is_equal(laptop) and 70 <= laptop.result["equal_chunks"] <= 80, failure(laptop)
    assert reference.end()["passed_on"] > 0


@pytest.mark.parametrize("content", [BLANK, DISK])
@pytest.mark.parametrize("run", [Timeouts(link_timeout=4.0, first_link=4.0)], indirect=True)
def test_a_reference_that_dies_while_it_hashes_leaves_no_disk_that_boots_and_was_changed(
    run: Run, reference: Reference, content: bytes
) -> None:
    go_on = reference.hold_hashing(101)
    reference.share()
    laptops = [run.add(content), run.add(content)]
    wait_until(lambda: min(map(done, laptops)) >= 90)
    cut_off(reference)
    run.join()
    go_on.set()
    for laptop in laptops:
        assert "The reference reference-01 sends no more of its disk" in failure(laptop), failure(laptop)
        assert does_not_boot(laptop) if content is BLANK else laptop.disk.read_bytes() == DISK


def test_a_disk_that_cannot_be_read_is_said_to_all_laptops(run: Run, reference: Reference) -> None:
    go_on = reference.hold_hashing(101)
    reference.share()
    laptops = [run.add(BLANK), run.add(DISK)]
    wait_until(lambda: min(map(done, laptops)) >= 90)
    bad = 149 * CHUNK

    def read(offset: int) -> None:
        if bad <= offset < bad + CHUNK:
            raise ReadError("reading failed")

    reference.read = read
    go_on.set()
    run.join()
    for laptop in laptops:
        assert f"{CHUNK} used bytes can't be read" in failure(laptop), failure(laptop)
    assert does_not_boot(laptops[0]) and laptops[1].disk.read_bytes() == DISK
    assert f"{CHUNK} used bytes can't be read" in reference.end()["msg"]


def test_a_root_digest_that_is_not_that_of_the_hashes_is_refused_and_no_disk_boots(
    run: Run, reference: Reference
) -> None:
    go_on = reference.hold_hashing(101)
    reference.share()
    laptops = [run.add(BLANK), run.add(DISK)]
    wait_until(lambda: min(map(done, laptops)) >= 90)
    hashes = reference.described.hashes
    hashes.agree = lambda root: setattr(hashes, "root", root[::-1])  # type: ignore[method-assign]
    go_on.set()
    run.join()
    for laptop in laptops:
        assert "have the root digest" in failure(laptop), failure(laptop)
    assert does_not_boot(laptops[0]) and laptops[1].disk.read_bytes() == DISK
    reference.end()


def test_a_reference_that_says_another_root_digest_to_another_laptop_is_refused(run: Run, reference: Reference) -> None:
    reference.share()
    first = run.add(BLANK)
    run.join()
    assert is_equal(first), failure(first)
    root = tmp_root(reference)
    root.unlink()
    root.symlink_to("00" * 32)
    second = run.add(BLANK)
    run.join()
    assert f"and said {'00' * 32} to another laptop" in failure(second) and does_not_boot(second), failure(second)
    reference.end()


def tmp_root(reference: Reference) -> Path:
    """Where the controller keeps the root digest that the reference has said."""
    (root,) = reference.disk.parent.glob("shared-*.root")
    return root


def test_a_rotating_disk_is_hashed_before_it_is_read_for_others(run: Run, reference: Reference) -> None:
    reference.kind.rotational = True
    reference.share()
    assert not reference.described.hashes.index.missing
    laptop = run.add(BLANK)
    run.join()
    assert is_equal(laptop), failure(laptop)
    reference.end()


def test_more_used_space_than_was_thought_has_the_disk_read_again(run: Run, reference: Reference) -> None:
    doubts = iter([False] * 50 + [True])
    asked = [0]

    def doubt() -> bool:
        asked[0] += 1
        return next(doubts, False)

    reference.doubts, reference.checked = doubt, lambda: asked[0] > 50
    reference.share()
    laptop = run.add(BLANK)
    run.join()
    assert is_equal(laptop), failure(laptop)
    assert reference.end()["used_chunks"] == 180


@SHORT
def test_a_reference_that_nobody_takes_from_ends_by_itself(run: Run, reference: Reference) -> None:
    reference.share()
    wait_until(lambda: reference.state == WAITING)
    began = time.monotonic()
    said = reference.module.collect(3 * run.timeouts.link_timeout)
    assert said["failed"] and time.monotonic() - began < run.timeouts.link_timeout + 2


@pytest.mark.parametrize("run", [replace(TIMEOUTS, max_pause=0.1)], indirect=True)
def test_a_link_that_breaks_while_nothing_is_taken_is_made_again(run: Run, reference: Reference) -> None:
    reference.share()
    source = run.source_for(run.image(), "lab-00")
    links = reference.session._listener._taken
    worker = Name(LAPTOP, "worker of lab-00")
    wait_until(lambda: worker in links)
    before = links[worker]
    before.close()
    wait_until(lambda: links[worker] is not before)
    assert len(list(source.records(0, 3))) == 3
    source.close()  # type: ignore[union-attr]
    assert reference.end()["passed_on"] > 0


@SHORT
def test_a_reference_in_use_needs_no_controller(run: Run, reference: Reference) -> None:
    reference.share()
    source = run.source_for(run.image(), "lab-00")
    wait_until(lambda: reference.state == CONNECTED)
    time.sleep(run.timeouts.link_timeout + 1)
    assert reference.state == CONNECTED
    source.close()  # type: ignore[union-attr]
    wait_until(lambda: reference.state == WAITING)
    # The controller's word may come late.
    assert reference.module.collect(3 * run.timeouts.link_timeout)["passed_on"] == 0
