# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a laptop's answer is believed: the keys that its module documents, with values of the documented types.

Ansible acts on many keys of a module's result: ``ansible_facts`` become variables, ``add_host`` and ``add_group`` change the inventory,
``skipped`` and ``unreachable`` decide what comes next, ``ansible_stats``, ``_ansible_*``, ``exception`` and ``diff`` go elsewhere. Whoever has
a laptop can add them to any answer. So a result is built anew here, and what is not documented is dropped.
"""

import functools
import importlib
from collections.abc import Collection, Mapping
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from ..module_utils.errors import ImagingError
from ..module_utils.printable import printable, printable_all, printable_lines

ALWAYS = "success"
"""``returned`` of a value that is always there. One with another ``returned`` may be missing, or null."""

NOT_IN_CHECK_MODE = "success, not in check mode"
"""``returned`` of a value that is always there but in check mode."""

ON_FAILURE = ("always", "failure")
"""``returned`` of what a failed result has as well."""

TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}
"""Types of values in a module's RETURN, and of what JSON makes of them."""

MAX_NUMBER = float(1 << 64)
"""No number that a module returns is as large: sizes are in bytes."""

CODES = {"codes": {"returned": "failure", "type": "list", "elements": "str"}}
"""A field of all modules, documented by the fragment ``common``."""

SHOWN = 400
"""Characters that are shown of an answer which can't be understood."""


@functools.cache
def documented_fields(module: str) -> Mapping[str, Any]:
    """Return the documented fields of the result of a module of this collection, in the form of RETURN."""
    found = importlib.import_module(f"ansible_collections.fleet.imaging.plugins.modules.{module}")
    return {**CODES, **(yaml_load(found.RETURN) or {})}


def required_outside_check_mode(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a result that is not of check mode."""
    return {
        name: {**field, "returned": ALWAYS} if field.get("returned") == NOT_IN_CHECK_MODE else field
        for name, field in fields.items()
    }


def checked_answer(
    answer: Mapping[str, Any], fields: Mapping[str, Any], module: str, not_of_laptop: Collection[str] = ()
) -> dict[str, Any]:
    """A module's result, built from its answer; ``not_of_laptop`` are the fields that the controller adds.

    A failure keeps its message, and what is documented to come with one. Raises ImagingError when a value is missing, or of another type than
    documented.
    """
    answer = printable_all(answer)
    result: dict[str, Any] = {"changed": answer.get("changed") is True}
    warnings = answer.get("warnings")
    if isinstance(warnings, list):
        result["warnings"] = [text for text in map(_warning, warnings) if text]
    of_laptop = {name: field for name, field in fields.items() if name not in not_of_laptop}
    if answer.get("failed"):
        kept = {
            name: field for name, field in of_laptop.items() if field.get("returned") in ON_FAILURE and name in answer
        }
        return dict(result, **_checked_fields(answer, kept, f"{module}: "), failed=True, msg=_message(answer))
    return dict(result, **_checked_fields(answer, of_laptop, f"{module}: "))


def _warning(warning: Any) -> str:
    """The text of a warning: a string, or what Ansible makes of it in transit; empty when it is neither."""
    text = warning if isinstance(warning, str) else getattr(getattr(warning, "event", None), "msg", None)
    return printable_lines(text) if isinstance(text, str) else ""


def _message(answer: Mapping[str, Any]) -> str:
    said = answer.get("msg")
    raised = _raised(answer.get("exception"))
    message = (
        f"The module on this laptop crashed: {raised}."
        if raised
        else "The module on this laptop failed without a message."
    )
    if isinstance(said, str) and said:
        message = said
    printed = [answer.get(name) for name in ("module_stderr", "module_stdout")]
    words = " ".join(" ".join(text.split()) for text in printed if isinstance(text, str))
    return f"{message} It printed: {words[-SHOWN:]}" if words else message


def _raised(exception: Any) -> str:
    """The last line of an exception's traceback, or what else Ansible keeps of it; empty when there is none."""
    event = getattr(exception, "event", None)
    for said in (exception, getattr(event, "formatted_traceback", None), getattr(event, "msg", None)):
        if isinstance(said, str) and said.strip():
            return printable(said.strip().splitlines()[-1])[:SHOWN].rstrip(".")
    return ""


def _checked_fields(value: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        name: _checked(value.get(name), field, f"{where}{name}")
        for name, field in fields.items()
        if name in value or not _may_be_missing(field)
    }


def _may_be_missing(field: Mapping[str, Any]) -> bool:
    return str(field.get("returned", ALWAYS)) != ALWAYS


def _checked(value: Any, field: Mapping[str, Any], where: str) -> Any:
    if value is None and _may_be_missing(field):
        return None
    kind = str(field["type"])
    if not _is(value, kind):
        raise ImagingError(
            f"This laptop's answer can't be right: {where} is {_shown(value)}, and a value of the type {kind} was expected. Its live system "
            "may be damaged or may have been changed: boot it from a medium that you trust, and run again."
        )
    contains = field.get("contains")
    if kind == "dict" and contains:
        return _checked_fields(value, contains, f"{where}.")
    if kind == "list" and "elements" in field:
        entry = {"type": field["elements"], "contains": contains}
        return [_checked(each, entry, f"{where}[{position}]") for position, each in enumerate(value)]
    return value


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, TYPES[kind]):
        return kind == "bool" and isinstance(value, bool)
    # JSON as Python reads it has NaN and Infinity, and integers of any length.
    in_bounds: bool = not isinstance(value, (int, float)) or -MAX_NUMBER < value < MAX_NUMBER
    return in_bounds


def _shown(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
