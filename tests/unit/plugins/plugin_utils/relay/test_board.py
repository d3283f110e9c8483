# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board, and who takes part in a relay."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from ansible import constants

from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.board import SLOT, Board
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.joining import (
    make_participant,
    network_of,
    open_board,
    shared_ip,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.rules import Member

FIRST = Member(
    number=0,
    name="läb-01",
    address="fd00::1234:5678:9abc:def0",
    port=65535,
    upstream=-1,
    missing=1 << 50,
    heard=123.5,
    gone=True,
    limit=1.5e6,
    trial=True,
    proven=True,
    sends_slowly=True,
    receives=1e8,
    writes=2.5e8,
)


def test_members_are_read_as_they_were_written(tmp_path: Path) -> None:
    second = Member(number=1, name="x" * 255, address="198.18.0.1", port=1, upstream=0)
    for board in (Board(str(tmp_path / "board")), Board(str(tmp_path / "board"))):
        with board.locked() as page:
            page.write([second, FIRST])
        with board.locked() as page:
            assert page.members() == [FIRST, second]
        board.close()


def test_a_row_that_was_cut_is_none(tmp_path: Path) -> None:
    board = Board(str(tmp_path / "board"))
    with board.locked() as page:
        page.write([FIRST])
        (tmp_path / "board").write_bytes((tmp_path / "board").read_bytes() + b"\0" * (SLOT.size - 1))
        assert page.members() == [FIRST]


def _join(path: str, times: int) -> None:
    board = Board(path)
    for _time in range(times):
        with board.locked() as page:
            page.write([replace(FIRST, number=len(page.members()))])


def test_processes_that_join_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_join, args=(str(tmp_path / "board"), 50)) for _number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with Board(str(tmp_path / "board")).locked() as page:
        assert len(page.members()) == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1", "0.0.0.0", "no such host.invalid", ""])
def test_an_address_that_means_another_machine_elsewhere_is_not_shared(address: str) -> None:
    assert shared_ip(address) is None


@pytest.mark.parametrize("address", ["198.18.0.10", "fd00::7"])
def test_other_addresses_are(address: str) -> None:
    assert shared_ip(address) == address


NETWORKS = "192.0.2.0/25,198.18.0.0/15,198.18.0.0/22,fd00::/64,172.17.0.0/16"


@pytest.mark.parametrize(
    ("address", "network"), [("198.18.0.10", "198.18.0.0/22"), ("fd00::7", "fd00::/64"), ("203.0.113.9", "")]
)
def test_a_laptop_belongs_to_the_smallest_of_its_networks_with_its_address(address: str, network: str) -> None:
    assert network_of(address, NETWORKS) == network


@pytest.mark.parametrize(
    "said", ["", "198.18.0.10/22", "198.18.0.0/33", "0", "/", ",", "::/", "../../etc", "198.18.0.0/22/1"]
)
def test_what_is_no_network_is_left_out(said: str) -> None:
    assert network_of("198.18.0.10", said) == ""
    assert network_of("198.18.0.10", f"{said},198.18.0.0/24,{said}") == "198.18.0.0/24"


def test_each_site_and_each_image_has_a_board_whatever_the_site_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    for image in (b"00", b"11"):
        for site in ("", "../Wien/Süd", "x" * 5000, "198.18.0.0/22", "../Wien/Süd"):
            open_board(image, site).close()
    assert len(list(tmp_path.iterdir())) == 8


def test_a_name_that_does_not_fit_is_left_out_with_a_warning() -> None:
    warnings: list[str] = []
    assert make_participant("ä" * 128, b"00", warnings.append) is None
    assert "longer than 255 bytes" in warnings[0]
