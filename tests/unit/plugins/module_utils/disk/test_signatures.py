# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.signatures import BLOCK, HEAD, TAIL, probed_ranges

MIB = 1 << 20


def test_both_ends_and_the_places_between_are_probed() -> None:
    assert probed_ranges(3 * MIB, 100 * MIB) == [
        (3 * MIB, 3 * MIB + HEAD),
        (4 * MIB, 4 * MIB + BLOCK),
        (5 * MIB, 5 * MIB + BLOCK),
        (7 * MIB, 7 * MIB + BLOCK),
        (103 * MIB - TAIL, 103 * MIB),
    ]


@pytest.mark.parametrize("size", [512, 4096, MIB - 512, MIB, MIB + 512, 2 * MIB + 512, 4 * MIB, 4 * MIB + 512, 5 * MIB])
def test_of_a_small_device_nothing_outside_is_probed(size: int) -> None:
    found = probed_ranges(7 * MIB, size)
    assert all(7 * MIB <= start < end <= 7 * MIB + size for start, end in found)
    covered = sum(end - start for start, end in found)
    assert covered >= min(size, HEAD)
