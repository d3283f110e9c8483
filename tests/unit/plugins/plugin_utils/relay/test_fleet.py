# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laptops pass an image on over real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk, write_spans
from ansible_collections.fleet.imaging.plugins.module_utils.engine import restore
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import STORE
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.upstreams import DAMAGE

from ...module_utils.range_server import serving
from ...module_utils.samples import CHUNK, Used, noise
from ..halves import Proxy, Spoil
from .fleet import Laptop, Run, SlowSource, made_run

CHUNKS = 300
SIZE = CHUNKS * CHUNK
USED = Used((0, SIZE))
DISK = noise(SIZE, 5)
BLANK = bytes(SIZE)


@pytest.fixture(name="run")
def fixture_run(tmp_path: Path) -> Run:
    return made_run(tmp_path, DISK)


def test_eight_laptops_take_one_image_from_the_controller(run: Run) -> None:
    for _number in range(8):
        run.add(BLANK)
    run.join()
    assert [(laptop.error, laptop.result.get("msg")) for laptop in run.laptops] == [(None, None)] * 8
    assert all(run.restored())
    assert run.images() < 1.2
    # Each laptop but the first takes all from one other laptop.
    assert sorted(len(laptop.received_from) for laptop in run.laptops) == [0] + [1] * 7
    taken = [laptop.upstreams.facts(laptop.result["taken_from"])["taken_from"] for laptop in run.laptops]
    assert taken == [laptop.result["taken_from"] for laptop in run.laptops]
    # Those that have all and end are not lost.
    assert [laptop.left for laptop in run.laptops] == [[]] * 8


def test_four_laptops_take_one_image_from_the_server_of_the_store_and_none_from_the_controller(run: Run) -> None:
    with serving(run.store.path) as server:
        server.spoil = slowly
        run.servers = {STORE: HttpLocation(url=f"{server.url}/image.img.zst")}
        for _number in range(4):
            run.add(BLANK)
        run.join()
    assert run.restored() == [True] * 4
    from_server = [laptop.result["frame_bytes"][STORE] for laptop in run.laptops]
    assert sum(from_server) < 1.2 * run.image_size() and run.images() == 0
    (head,) = [laptop for laptop in run.laptops if laptop.result["frame_bytes"][STORE]]
    assert head.sink is not None and head.sink._job.pace.rate > 0


def at_two_sites(run: Run) -> dict[str, list[Laptop]]:
    """Have six laptops begin that are at two sites by turns."""
    run.site_of = lambda laptop: "west" if int(laptop.name[-2:]) % 2 else "east"
    for _number in range(6):
        run.add(BLANK)
    run.join()
    assert run.restored() == [True] * 6
    sites = {"east": run.laptops[::2], "west": run.laptops[1::2]}
    for laptops in sites.values():
        names = {laptop.name for laptop in laptops}
        assert all(laptop.received_from.keys() < names for laptop in laptops)
    return sites


def test_each_site_takes_one_image_from_the_controller(run: Run) -> None:
    for laptops in at_two_sites(run).values():
        assert sorted(len(laptop.received_from) for laptop in laptops) == [0, 1, 1]
        assert sum(laptop.result["sent"] for laptop in laptops) < 1.2 * run.image_size()


def test_each_site_takes_one_image_from_the_server_of_the_store(run: Run) -> None:
    with serving(run.store.path) as server:
        server.spoil = slowly
        run.servers = {STORE: HttpLocation(url=f"{server.url}/image.img.zst")}
        for laptops in at_two_sites(run).values():
            from_server = [laptop.result["frame_bytes"][STORE] for laptop in laptops]
            assert run.image_size() <= sum(from_server) < 1.2 * run.image_size()
    assert run.images() == 0


def slowly(_offset: int, data: bytes) -> bytes:
    """Have a server send 16 KiB in two milliseconds."""
    time.sleep(0.002)
    return data


def warnings(run: Run) -> list[str]:
    return [warning for laptop in run.laptops for warning in laptop.warnings]


def test_a_laptop_alone_takes_all_from_the_controller(run: Run) -> None:
    laptop = run.add(BLANK)
    run.join()
    assert laptop.is_restored and run.images() == 1.0
    assert laptop.received_from == {} and laptop.result["passed_on"] == 0


def test_a_late_laptop_takes_all_from_one_that_has_nearly_all(run: Run) -> None:
    first = run.add(BLANK)
    first.wait_for_share(0.7)
    late = run.add(BLANK)
    run.join()
    assert run.restored() == [True, True]
    assert late.received_from["lab-00"] > 0
    assert run.images() < 1.8


def test_a_rotating_disk_is_not_read_for_others_and_what_came_is_kept_from_the_beginning(run: Run) -> None:
    run.rotational = True
    first = run.add(BLANK)
    first.wait_for_share(0.4)
    second = run.add(BLANK)
    run.join()
    assert run.restored() == [True, True]
    assert second.received_from["lab-00"] > 0.7 * run.image_size()
    assert run.images() < 1.3


def test_what_is_equal_is_served_from_the_disk(run: Run) -> None:
    # The first half of one disk is equal already. It is not in memory, and the other laptop lacks it.
    half = SIZE // 2
    first = run.add(DISK[:half] + bytes(SIZE - half))
    first.wait_for_share(0.6)
    second = run.add(BLANK)
    run.join()
    assert run.restored() == [True, True]
    assert second.received_from["lab-00"] > 0.9 * run.image_size()
    assert run.images() < 0.7


def test_all_equal_need_nothing(run: Run) -> None:
    for _number in range(3):
        run.add(DISK)
    run.join()
    assert run.restored() == [True] * 3
    assert run.images() == 0


def test_of_laptops_that_are_equal_already_the_others_take_nothing_twice(run: Run) -> None:
    for content in (DISK, BLANK, DISK, BLANK):
        run.add(content)
    run.join()
    assert run.restored() == [True] * 4
    assert [laptop.result["changed"] for laptop in run.laptops] == [False, True, False, True]
    assert run.images() < 1.2


class Proxies:
    """Between laptops: what is sent to one can be held up, or its connections cut."""

    def __init__(self, run: Run) -> None:
        self.frozen: set[str] = set()
        self.closed: set[str] = set()
        self.proxies: dict[str, Proxy] = {}
        run.port_of = self.port_of

    def port_of(self, laptop: Laptop, port: int) -> int:
        name = laptop.name

        def spoil() -> Spoil:
            def hold_up(_position: int, data: bytes) -> bytes:
                while name in self.frozen:
                    time.sleep(0.05)
                return b"" if name in self.closed else data

            return hold_up

        self.proxies[name] = Proxy(port, spoil, spoil)
        return self.proxies[name].port

    def close(self) -> None:
        self.frozen.clear()
        for proxy in self.proxies.values():
            proxy.close()


@pytest.fixture(name="proxies")
def fixture_proxies(run: Run) -> Iterator[Proxies]:
    proxies = Proxies(run)
    yield proxies
    proxies.close()


@pytest.mark.parametrize("place", [0, 2])
def test_a_laptop_whose_connections_break_is_left(run: Run, proxies: Proxies, place: int) -> None:
    laptops = run.add_in_order(*[BLANK] * 5)
    laptops[-1].wait_for_share(0.3)
    proxies.closed.add(laptops[place].name)
    run.join()
    assert run.restored() == [True] * 5
    # There can be two heads for a second, in which the controller sends a third of this image.
    assert run.images() < 1.5


class SlowerSource(SlowSource):
    """With this one, the other laptops are still there when the silence is noticed."""

    rate = 40.0


def test_a_laptop_that_falls_silent_is_left_after_a_moment(run: Run, proxies: Proxies) -> None:
    run.source = SlowerSource
    laptops = run.add_in_order(*[BLANK] * 4)
    laptops[-1].wait_for_share(0.3)
    silent = laptops[1]
    below = next(laptop for laptop in laptops if silent.name in laptop.received_from)
    begin = time.monotonic()
    proxies.frozen.add(silent.name)
    below.join(30)
    assert time.monotonic() - begin < 0.7 * CHUNKS / SlowerSource.rate + run.timeouts.peer_silence + 3.0
    # The silent one may need the rest from the controller later, when the others have ended.
    assert run.images() < 1.2
    proxies.frozen.clear()
    run.join()
    assert run.restored() == [True] * 4


class MuchSlowerSource(SlowSource):
    """With this one, an image takes long enough for slow laptops to be found."""

    rate = 25.0


def test_two_slow_disks_at_the_head_hold_up_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.source = MuchSlowerSource
    slow = {"disk-00", "disk-01"}

    def write_slowly(disk: RawDisk, *arguments: Any) -> int:
        if Path(disk.path).name in slow:
            time.sleep(0.4)
        return write_spans(disk, *arguments)

    monkeypatch.setattr(restore, "write_spans", write_slowly)
    laptops = run.add_in_order(*[BLANK] * 5)
    for laptop in laptops[2:]:
        laptop.join(90)
    assert all(laptop.is_restored for laptop in laptops[2:])
    assert max(laptop.done for laptop in laptops[:2]) < 0.6
    slow.clear()
    monkeypatch.setattr(MuchSlowerSource, "rate", 1000.0)
    run.join()
    assert run.restored() == [True] * 5
    assert run.images() < 2.3


def test_laptops_that_can_not_reach_each_other_take_all_from_the_controller_and_say_so(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    run.port_of = lambda laptop, port: closed
    for _number in range(5):
        run.add(BLANK)
    run.join()
    assert run.restored() == [True] * 5
    assert run.images() == 5.0
    # The words are the same for all, because Ansible shows the same words once.
    assert len(set(warnings(run))) == 1 and "can't connect to one another" in warnings(run)[0]
    assert all(len(laptop.warnings) <= 1 for laptop in run.laptops)


@pytest.mark.parametrize(
    "frame", [lambda frame: bytes(len(frame)), lambda frame: frame[:-1] + b"\0"], ids=["zeros", "tail"]
)
def test_a_laptop_that_sends_damage_is_named_and_left(run: Run, frame: Callable[[bytes], bytes]) -> None:
    first = run.add(BLANK)
    first.wait_for_share(0.05)
    share = first.relay._share
    honest = share.find

    def find(chunk: int, disk: Any) -> Any:
        record = honest(chunk, disk)
        return record and (record[0], frame(record[1]))

    share.find = find
    second, third = run.add(BLANK), run.add(BLANK)
    run.join()
    assert run.restored() == [True] * 3
    assert second.received_from.get("lab-00", 0) < 0.2 * run.image_size()
    assert any("lab-00 sent damaged data" in warning for warning in warnings(run))
    assert ("lab-00", DAMAGE) in second.left + third.left
    assert third.received_from.get("lab-00", 0) < 0.2 * run.image_size()


def test_a_laptop_that_promises_and_never_sends_is_left(run: Run) -> None:
    first = run.add(BLANK)
    first.wait_for_share(0.05)
    first.relay._share.find = lambda chunk, disk: time.sleep(1000)
    second = run.add(BLANK)
    second.join(40)
    assert second.is_restored


def test_two_runs_at_once_do_not_meet(run: Run, tmp_path: Path) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = made_run(other_folder, DISK)
    for _number in range(2):
        run.add(BLANK)
        other.add(BLANK)
    run.join()
    other.join()
    assert run.restored() == other.restored() == [True, True]
    assert run.images() < 1.2 and other.images() < 1.2


def test_a_worker_that_is_gone_leaves_its_laptop_to_the_others(run: Run) -> None:
    laptops = [run.add(BLANK) for _number in range(4)]
    laptops[-1].wait_for_share(0.2)
    head = next(laptop for laptop in laptops if not laptop.received_from)
    assert head.link is not None
    head.link.close()  # it connects again, and the laptops below go on meanwhile
    run.join()
    assert run.restored() == [True] * 4
    assert run.images() < 1.3


def test_a_laptop_whose_relay_fails_restores_its_own_disk_and_says_so_once(run: Run) -> None:
    first = run.add(BLANK)
    first.wait_for_share(0.05)

    def add(_header: object, _frame: object) -> None:
        raise MemoryError

    first.relay._share.add = add
    second = run.add(BLANK)
    run.join()
    assert run.restored() == [True, True]
    (warning,) = first.result["warnings"]
    assert "passes the image on to no other one any more" in warning
    assert second.received_from.get("lab-00", 0) < 0.2 * run.image_size()
