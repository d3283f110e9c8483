# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The promises of everything that faces the outside, on input that is nearly right."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.fleet.imaging.tests.fuzz.targets import TARGETS, attempt

MEMORY = 48 << 20
"""Bytes that a parser may take whatever it is given: the largest chunk, and the largest message, twice."""

MEMORY_FOR_A_BYTE = 64

Edit = tuple[str, float, bytes]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """A change somewhere in some bytes; the place is a share of their length."""
    kind = draw(st.sampled_from(["replace", "insert", "delete", "cut", "repeat"]))
    data = draw(
        st.one_of(
            st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, b"\xff" * 8, bytes(8), b"-1", b"9" * 30])
        )
    )
    return kind, draw(st.floats(0, 1)), data


def edited(data: bytes, changes: list[Edit]) -> bytes:
    """Carry the changes out."""
    for kind, share, new in changes:
        place = int(share * len(data))
        before, after = data[:place], data[place:]
        if kind == "replace":
            data = before + new + after[len(new) :]
        elif kind == "insert":
            data = before + new + after
        elif kind == "delete":
            data = before + after[len(new) :]
        elif kind == "cut":
            data = before
        else:
            data = before + after[:64] + after
    return data


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_nearly_right_input_is_taken_or_refused_in_little_memory(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    seed = data.draw(st.one_of(st.sampled_from(target.seeds()), st.binary(max_size=300)))
    changed = edited(seed, data.draw(st.lists(edits(), max_size=4)))
    tracemalloc.start()
    try:
        attempt(target, changed)
        assert tracemalloc.get_traced_memory()[1] < MEMORY + MEMORY_FOR_A_BYTE * len(changed)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in TARGETS if not name.startswith(("handshake", "link"))])
def test_what_is_right_is_taken(name: str) -> None:
    assert any(attempt(TARGETS[name], seed) for seed in TARGETS[name].seeds())
