# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a laptop's answer is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible.module_utils._internal._errors import EventFactory
from ansible.module_utils._internal._messages import ErrorSummary

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import (
    checked_answer,
    documented_fields,
    required_outside_check_mode,
)

FIELDS = yaml.safe_load("""
device: {type: str, returned: success}
size: {type: int, returned: success}
rate: {type: float, returned: when it was measured}
verified: {type: bool, returned: success}
changes:
  type: list
  elements: dict
  returned: success
  contains:
    start: {type: int}
    partition: {type: str, returned: when it lies in one}
names: {type: list, elements: str, returned: success}
state: {type: str, returned: always}
""")
ANSWER = {"device": "/dev/sda", "size": 1, "verified": True, "changes": [{"start": 5}], "names": ["a"], "changed": True}


def checked(**more: Any) -> dict[str, Any]:
    return checked_answer({**ANSWER, **more}, FIELDS, "image_restore")


def test_what_is_documented_comes_through() -> None:
    assert checked() == ANSWER
    assert checked(rate=None)["rate"] is None


ACTED_ON = (
    "ansible_facts add_host add_group ansible_stats _ansible_notify skipped unreachable exception invocation deprecations results "
    "failed_when_result include _ansible_no_log attempts diff"
)


@pytest.mark.parametrize("name", ACTED_ON.split())
def test_what_ansible_would_act_on_is_dropped(name: str) -> None:
    assert checked(**{name: {"imaging_confirm_erase": True}}) == ANSWER
    failed = checked(**{name: 5}, failed=True, msg="no")
    assert set(failed) == {"changed", "failed", "msg"}


def test_what_lies_deeper_and_is_not_documented_is_dropped_as_well() -> None:
    assert checked(changes=[{"start": 5, "ansible_facts": 1, "partition": None}])["changes"] == [
        {"start": 5, "partition": None}
    ]


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("device", 5),
        ("device", None),
        ("size", "1"),
        ("size", True),
        ("size", 1 << 70),
        ("rate", float("nan")),
        ("rate", float("inf")),
        ("verified", 1),
        ("changes", {}),
        ("changes", [5]),
        ("changes", [{"start": None}]),
        ("names", [["a"]]),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, odd: Any) -> None:
    with pytest.raises(ImagingError, match=f"image_restore: {name}.* expected"):
        checked(**{name: odd})


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(ImagingError, match="size is missing"):
        checked_answer({name: value for name, value in ANSWER.items() if name != "size"}, FIELDS, "image_restore")


def test_what_is_missing_in_check_mode_only_is_refused_otherwise() -> None:
    fields = {"digest": {"type": "str", "returned": "success, not in check mode"}}
    assert checked_answer({}, fields, "image_capture") == {"changed": False}
    with pytest.raises(ImagingError, match="digest is missing"):
        checked_answer({}, required_outside_check_mode(fields), "image_capture")


def test_changed_is_true_or_false() -> None:
    assert checked(changed="no")["changed"] is False
    assert checked(changed=[1])["changed"] is False


def test_a_failure_keeps_its_message_and_what_was_printed() -> None:
    said = checked(failed="yes", msg=5, module_stderr="python3:  not\nfound", module_stdout="x" * 9999)
    assert said["failed"] is True and "failed without a message" in said["msg"] and len(said["msg"]) < 600
    assert checked(failed=True, msg="It broke.")["msg"] == "It broke."


@pytest.mark.parametrize("with_traceback", [False, True])
def test_a_crash_is_told_by_the_last_line_of_its_traceback(with_traceback: bool) -> None:
    """As Ansible sends it, and as text, which other versions and hostile laptops send."""
    with pytest.raises(ValueError, match="room") as crash:
        raise ValueError("one line\nno \x1b[31m room.")
    summary = ErrorSummary(event=EventFactory.from_exception(crash.value, with_traceback))
    expected = "The module on this laptop crashed: no \\x1b[31m room."
    assert checked(failed=True, exception=summary)["msg"] == expected
    text = "Traceback (most recent call last):\n  ...\nKeyError: 'size'\n"
    assert checked(failed=True, exception=text)["msg"] == "The module on this laptop crashed: KeyError: 'size'."
    assert (
        checked(failed=True, exception=[text], msg="")["msg"] == "The module on this laptop failed without a message."
    )
    assert len(checked(failed=True, exception="x" * 9999)["msg"]) < 600


def test_a_failure_keeps_what_is_documented_to_come_with_one() -> None:
    assert checked(failed=True, msg="no", state="unknown", size=5) == {
        "changed": True,
        "failed": True,
        "msg": "no",
        "state": "unknown",
    }
    with pytest.raises(ImagingError, match="state"):
        checked(failed=True, state=5)


def test_warnings_that_are_no_text_are_dropped() -> None:
    assert checked(warnings=["a", {"msg": 5}, []])["warnings"] == ["a"]
    assert "warnings" not in checked(warnings=5)


@pytest.mark.parametrize(
    "module",
    ["disk_info", "disk_release", "source_info", "partition_grow", "uefi_boot", "image_capture", "image_restore"],
)
def test_every_documented_field_has_a_type_that_can_be_checked(module: str) -> None:
    def walk(fields: dict[str, Any]) -> None:
        for field in fields.values():
            assert field["type"] in ("str", "int", "float", "bool", "list", "dict")
            scalar = field["type"] not in ("list", "dict")
            assert not (scalar and "null" in str(field["description"])) or field["returned"] != "success"
            walk(field.get("contains", {}))

    walk(json.loads(json.dumps(documented_fields(module))))
