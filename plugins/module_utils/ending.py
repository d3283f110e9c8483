# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module on a laptop ends: with its result, or with the message of what went wrong."""

from __future__ import annotations

import os
import traceback
from typing import Any, Callable

from .errors import ImagingError


def run_module(module: Any, work: Callable[[], dict[str, Any]]) -> None:
    """Run ``work`` and end an AnsibleModule with its result, or with the message of what went wrong."""
    try:
        result = work()
    except ImagingError as error:
        module.fail_json(msg=str(error), **error.facts)
    except Exception as error:
        module.fail_json(msg=crash(error), codes=[])
    module.exit_json(**result)


def crash(error: Exception) -> str:
    """What is said of an exception that nobody expected: what its traceback would end with, and where it was raised."""
    last = traceback.format_exception_only(type(error), error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, OSError):
        return f"The module on this laptop failed: {last}{where}. The kernel's log there (dmesg) may say why."
    return f"The module on this laptop crashed: {last}{where}. This is an error of the module: please report it."
