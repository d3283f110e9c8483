# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of a relay, from ends that can't be trusted."""

from __future__ import annotations

import json

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import (
    MAX_NAME,
    Loss,
    Upstream,
    unpack_lack,
    unpack_loss,
    unpack_upstream,
)

LAPTOP = {"host": "lab-01", "address": "198.18.0.10", "port": 19000}
LOSS = {"host": "lab-01", "reason": "The link broke.", "reached": True, "damage": False}


def packed(values: object) -> bytes:
    return json.dumps(values).encode()


@pytest.mark.parametrize("address", ["198.18.0.10", "fd00::7"])
def test_a_laptop_to_take_chunks_from_is_told_as_it_is(address: str) -> None:
    upstream = Upstream("läb 01", address, 1)
    assert unpack_upstream(upstream.pack()) == upstream


def test_nothing_is_the_controller() -> None:
    assert unpack_upstream(b"") is None


def test_a_loss_is_told_as_it_is_but_for_a_long_reason() -> None:
    loss = Loss(host="lab-01", reason="x" * 5000, reached=True, damage=False)
    assert unpack_loss(loss.pack()).reason == "x" * MAX_NAME


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"\xff",
        b"[" * 5000,
        packed({}),
        packed({**LAPTOP, "port": 0}),
        packed({**LAPTOP, "port": 65536}),
        packed({**LAPTOP, "port": True}),
        packed({**LAPTOP, "port": "19000"}),
        packed({**LAPTOP, "host": ""}),
        packed({**LAPTOP, "host": "x" * (MAX_NAME + 1)}),
        packed({**LAPTOP, "address": "lab-01"}),
        packed({**LAPTOP, "address": 3323068426}),
    ],
)
def test_a_laptop_that_can_not_be_is_refused(payload: bytes) -> None:
    with pytest.raises(ImagingError):
        unpack_upstream(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        packed({}),
        packed({**LOSS, "reached": 1}),
        packed({**LOSS, "damage": None}),
        packed({**LOSS, "host": 7}),
        packed({**LOSS, "reason": ""}),
        packed({**LOSS, "reason": "x" * (MAX_NAME + 1)}),
    ],
)
def test_a_loss_that_can_not_be_is_refused(payload: bytes) -> None:
    with pytest.raises(ImagingError):
        unpack_loss(payload)


def test_lacking_chunks_come_in_whole_numbers() -> None:
    assert unpack_lack(b"\1\0\0\0\xff\xff\xff\xff") == [1, (1 << 32) - 1]
    with pytest.raises(ImagingError):
        unpack_lack(b"\1\0\0")
