# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.fleet.imaging.plugins.module_utils.disk.consistency import CHECKERS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems import CHECKS, MAPPED
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partclone import PROGRAMS
from ansible_collections.fleet.imaging.plugins.module_utils.disk.sizes import SIZES


def test_every_file_system_that_is_mapped_has_a_map_a_check_and_a_size() -> None:
    assert set(CHECKERS) == set(PROGRAMS) == MAPPED
    assert set(CHECKS) <= set(SIZES)
