# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters that templates show values with. Each is documented in the YAML file of its name."""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable
from ansible_collections.fleet.imaging.plugins.module_utils.quantities import duration, rate, size


class FilterModule:
    """The filters of this collection."""

    def filters(self) -> Mapping[str, Callable[[Any], str]]:
        """Filters by name."""
        return {
            "size": size,
            "rate": rate,
            "duration": duration,
            "printable": lambda value: printable(str(value)),
        }
