# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter that gives templates the outcome of a restore. It is documented in the YAML file of its name."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ansible_collections.fleet.imaging.plugins.plugin_utils.outcome import COMPARE, RESTORE, Failure, Laptop, Transfer


def restore_outcome(
    result: Any, comparison: Any = None, failed: bool = False, check_mode: bool = False
) -> dict[str, Any]:
    """Return the code of the outcome of a laptop, and whether a later step failed."""
    found = result if isinstance(result, Mapping) else {}
    if not failed and not (isinstance(found.get("device"), str) and isinstance(found.get("changed"), bool)):
        return {"code": "invalid", "then_failed": False}
    laptop = Laptop(name="", failures=[Failure("", "")] if failed else [])
    for kind, values in ((COMPARE if check_mode else RESTORE, found), (COMPARE, comparison)):
        if isinstance(values, Mapping) and values:
            laptop.transfers.append(Transfer(began=datetime.now(UTC), kind=kind, result=dict(values)))
    return asdict(laptop.outcome(check_mode))


class FilterModule:
    """The filter of this file."""

    def filters(self) -> Mapping[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"restore_outcome": restore_outcome}
