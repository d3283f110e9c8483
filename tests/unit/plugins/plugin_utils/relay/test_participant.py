# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker answers to its laptop, which it can't trust, and what happens when the worker's own part fails."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import STREAMING, Status
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, THE_CONTROLLER, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, SocketChannel
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss, Upstream, unpack_upstream
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.board import SLOT, Board
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.participant import Address, Participant
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.upstreams import DAMAGE, LOST

STATUS = Status(STREAMING, 0, 100, 0, 100, 1.0, {})


class Worker:
    """A worker of a laptop, and the laptop's end of their link."""

    def __init__(self, board: Path, number: int) -> None:
        self.name = f"lab-{number:02}"
        self.warnings: list[str] = []
        self.now = 0.0
        self.participant = Participant(
            lambda _site: Board(str(board), patience=0.3), self.warnings.append, lambda: self.now
        )
        self.connect()

    def connect(self) -> None:
        """Make a new link."""
        near, far = socket.socketpair()
        self.link = Link(SocketChannel(near), Name(LAPTOP, self.name))
        self.laptop = Link(SocketChannel(far), THE_CONTROLLER)
        self.participant.attach(self.link)

    def report(self, missing: int = 100) -> None:
        """Have the laptop report how it gets on."""
        status = replace(STATUS, data_done=STATUS.data_total - missing)
        self.participant.progress(self.link, status, Address(self.name, "198.18.0.10", 19000))

    def told(self) -> str | None:
        """Return where the laptop is told to take chunks from."""
        message = self.laptop.receive()
        assert message.kind == Kind.UPSTREAM
        upstream: Upstream | None = unpack_upstream(message.payload)
        return upstream.host if upstream else None

    def loses(self, host: str, reason: str = "The link broke.", damage: bool = False) -> str | None:
        """Have the laptop say that it can't take chunks from another one, and return what it is told."""
        self.laptop.send(Kind.LOST, Loss(host, reason, reached=True, damage=damage).pack())
        self.laptop.send(Kind.DESCRIBE)
        assert self.link.receive().kind == Kind.DESCRIBE
        return self.told()

    def close(self) -> None:
        """Close both ends."""
        self.link.close()
        self.laptop.close()


@pytest.fixture(name="workers")
def fixture_workers(tmp_path: Path) -> Iterator[list[Worker]]:
    workers = [Worker(tmp_path / "board", number) for number in range(3)]
    for worker in workers:
        worker.report()
    assert [worker.told() for worker in workers] == [None, "lab-00", "lab-01"]
    yield workers
    for worker in workers:
        worker.close()


def test_a_loss_is_answered_also_when_the_laptop_was_told_of_another_one(workers: list[Worker]) -> None:
    assert workers[2].loses("lab-01") == "lab-00"
    assert workers[2].loses("lab-01") == "lab-00"
    assert workers[2].loses("lab-00") is None
    assert workers[2].loses("lab-00") is None


def test_over_a_new_link_a_laptop_is_told_again(workers: list[Worker]) -> None:
    workers[2].close()
    workers[2].connect()
    workers[2].report()
    assert workers[2].told() == "lab-01"


def test_damage_is_told_of_a_laptop_that_this_one_takes_from_only_and_in_words_that_can_be_shown(
    workers: list[Worker],
) -> None:
    workers[2].loses("lab-00", damage=True)
    workers[2].loses("router", damage=True)
    assert workers[2].warnings == []
    workers[2].loses("lab-01", "\x1b[2J\ud800", damage=True)
    (warning,) = workers[2].warnings
    assert "lab-01 sent damaged data to lab-02" in warning and warning.isprintable()
    workers[2].loses("lab-01", damage=True)
    assert len(workers[2].warnings) == 1


def test_a_laptop_is_believed_only_of_those_that_were_named_to_it(workers: list[Worker]) -> None:
    upstreams = workers[2].participant.upstreams
    assert upstreams.facts(None)["taken_from"] == [{"host": "lab-01", "bytes": None}]
    workers[2].loses("lab-01")
    said: list[dict[str, Any]] = [
        {"host": "lab-00", "bytes": 7},
        {"host": "lab-09", "bytes": 8},
        {"host": "lab-01", "bytes": -1},
    ]
    assert upstreams.facts(said)["taken_from"] == [{"host": "lab-00", "bytes": 7}, {"host": "lab-01", "bytes": None}]


def test_the_result_says_which_laptops_were_left_and_why(workers: list[Worker], tmp_path: Path) -> None:
    worker = workers[2]
    worker.loses("router", damage=True)
    worker.loses("lab-01", damage=True)
    worker.loses("lab-00")
    assert worker.participant.upstreams.facts(None)["left"] == [
        {"host": "lab-01", "code": DAMAGE},
        {"host": "lab-00", "code": LOST},
    ]
    with Board(str(tmp_path / "board")).locked() as page:
        page.write([replace(page.members()[2], limit=1.0)])
    worker.participant.leave()
    assert worker.participant.upstreams.facts(None)["slow"]
    workers[0].participant.leave()
    assert not workers[0].participant.upstreams.facts(None)["slow"]


def test_a_laptop_that_has_all_and_ends_is_not_called_lost(workers: list[Worker]) -> None:
    workers[1].now = 1.0
    workers[1].report(missing=0)
    workers[2].loses("lab-01")
    assert workers[2].participant.upstreams.facts(None)["left"] == []


def test_the_board_says_how_fast_records_arrive_and_how_fast_a_laptop_could_write(
    workers: list[Worker], tmp_path: Path
) -> None:
    worker = workers[1]
    for second, written in enumerate((0, 50, 100)):
        worker.now = second + 1.0
        stages = {"write": {"busy": 0.1 * second}, "decompress": {"busy": 0.8 * second}, "hash": {"busy": 0.2 * second}}
        status = replace(STATUS, stages=stages, workers=4, written=written, pace=300.0)
        worker.participant.progress(worker.link, status, Address(worker.name, "198.18.0.10", 19000))
    with Board(str(tmp_path / "board")).locked() as page:
        row = page.members()[1]
    assert row.receives == 300.0 and row.writes == pytest.approx(200.0)


def test_a_worker_whose_part_fails_leaves_its_laptop_to_the_controller(workers: list[Worker], tmp_path: Path) -> None:
    worker = workers[2]
    (tmp_path / "board").write_bytes(b"\xff" * SLOT.size)  # nothing that a worker has written
    worker.now = 1.0
    worker.report()
    assert worker.told() is None
    worker.close()
    worker.connect()
    worker.now = 2.0
    worker.report()
    assert worker.told() is None and worker.loses("lab-01") is None
    worker.participant.leave()
    assert len(worker.warnings) == 1 and "takes all from the controller" in worker.warnings[0]


def test_a_worker_that_is_stopped_while_it_holds_the_board_stops_no_other(
    workers: list[Worker], tmp_path: Path
) -> None:
    worker = workers[2]
    with Board(str(tmp_path / "board")).locked():
        assert worker.loses("lab-01") is None
        worker.participant.leave()
    assert len(worker.warnings) == 1 and "has kept the board" in worker.warnings[0]


def test_what_is_said_after_the_end_changes_nothing(workers: list[Worker], tmp_path: Path) -> None:
    worker = workers[1]
    worker.participant.leave()
    with Board(str(tmp_path / "board")).locked() as page:
        before = page.members()
    assert before[1].gone
    worker.now = 5.0
    worker.report()
    assert worker.told() is None and worker.loses("lab-00") is None
    with Board(str(tmp_path / "board")).locked() as page:
        assert page.members() == before
    assert worker.warnings == []
