# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""However a module ends, its result says why."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.imaging.plugins.module_utils.ending import run_module
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import MOUNTED, SWAP, Refusal, refuse_for

from ..modules.results import printed


def ended(work: Callable[[], dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a module prints that does this."""
    return printed(lambda: run_module(AnsibleModule(argument_spec={}), work), {}, capsys)


def refused() -> dict[str, Any]:
    refuse_for([Refusal(MOUNTED, "It is mounted."), Refusal(SWAP, "It is swapped on.")], "It can't be read:")
    raise ImagingError("Nothing was refused.")


def odd() -> dict[str, Any]:
    sizes: dict[str, int] = {}
    return {"size": sizes["missing"]}


def test_a_result_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(lambda: {"changed": True, "size": 5}, capsys)["size"] == 5


def test_a_failure_has_its_message_and_its_codes(capsys: pytest.CaptureFixture[str]) -> None:
    result = ended(refused, capsys)
    assert result["failed"] is True
    assert (result["msg"], result["codes"]) == ("It can't be read: It is mounted. It is swapped on.", [MOUNTED, SWAP])


def test_what_the_system_refused_is_no_error_of_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    said = ended(lambda: {"size": open("/proc/no/such/file").fileno()}, capsys)["msg"]
    assert "failed: FileNotFoundError: [Errno 2]" in said and "dmesg" in said and "report" not in said


def test_a_crash_says_what_its_traceback_would_end_with_and_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    result = ended(odd, capsys)
    assert "crashed: KeyError: 'missing' (test_ending.py, line " in result["msg"] and result["codes"] == []
