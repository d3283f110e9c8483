# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text forms of numbers for the report."""

from collections.abc import Callable
from typing import Any

from ...module_utils import quantities

SPACE = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"


def _kept_together(form: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a text form of quantities without line breaks."""

    def shown(value: Any) -> str:
        return NOTHING if quantities.number(value) is None else form(value).replace(" ", SPACE)

    return shown


size = _kept_together(quantities.size)
rate = _kept_together(quantities.rate)
duration = _kept_together(quantities.duration)


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{share * 100:.0f}{SPACE}%" if share >= 0.005 or share == 0 else f"<{SPACE}1{SPACE}%"


def laptops(count: int) -> str:
    """Return a number of laptops in words."""
    return f"{count} laptop{'' if count == 1 else 's'}"
