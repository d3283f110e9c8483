# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the controller's part share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from .halves import made_laptop


@pytest.fixture(name="laptop")
def fixture_laptop(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A laptop with a disk, a store with an image of another disk, and a place for a man in the middle."""
    with made_laptop(tmp_path) as laptop:
        yield laptop
