# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds the results of real tasks to what their modules document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import (
    ALWAYS,
    NOT_IN_CHECK_MODE,
    ON_FAILURE,
    TYPES,
    documented_fields,
)

PREFIX = "fleet.imaging."
OF_ANSIBLE = {
    "changed",
    "failed",
    "warnings",
    "deprecations",
    "invocation",
    "exception",
    "attempts",
    "failed_when_result",
}
"""Fields of any result."""

NEVER_RUN = ("Finalization of task args", "Error processing keyword", "Error while evaluating conditional")
"""What Ansible says of a task whose arguments or keywords have no value, so that it was not run."""

OF_A_MODULE = {
    "msg",
    "rc",
    "stdout",
    "stderr",
    "stdout_lines",
    "stderr_lines",
    "module_stdout",
    "module_stderr",
    "ansible_facts",
    "cmd",
    "data",
    "outdata",
}
"""Fields of any answer that become parts of messages, or that Ansible itself adds to an answer, as async_wrapper does to that of a killed module."""


def undocumented(action: str, result: Mapping[str, Any], failed: bool, check_mode: bool) -> list[str]:
    """In what the result of a task is not what its module documents; nothing for the modules of others."""
    failed = failed and "failed_when_result" not in result
    module = action.removeprefix(PREFIX)
    if module == action or any(words in str(result.get("msg")) for words in NEVER_RUN):
        return []
    fields = documented_fields(module)
    found = [
        f"{module}: {name} is not documented"
        for name in result
        if name not in fields and name not in OF_ANSIBLE and not name.startswith("_ansible_")
        if not (name == "msg" and failed) and not (name == "diff" and module == "image_restore")
        if not (name == "ansible_facts" and set(result[name]) <= {"discovered_interpreter_python"})
    ]
    for name, field in fields.items():
        when = str(field["returned"])
        there = name in result
        needed = (
            when == "always"
            or (when in ON_FAILURE and failed)
            or (when == ALWAYS and not failed)
            or (when == NOT_IN_CHECK_MODE and not failed and not check_mode)
        )
        excluded = (failed and when in (ALWAYS, NOT_IN_CHECK_MODE)) or (when == "failure" and not failed)
        if needed and not there:
            found.append(f"{module}: {name} is missing")
        elif there and (excluded or (when == NOT_IN_CHECK_MODE and check_mode)):
            found.append(f"{module}: {name} is there, and documented for {when}")
        elif there:
            found += _faults(result[name], field, f"{module}: {name}", may_be_null=not needed)
    return found


def dropped_on_purpose(path: str) -> bool:
    """Whether a field of an answer, written as "module: field", is meant not to become one of the result."""
    module, _colon, field = path.partition(": ")
    return field in OF_ANSIBLE | OF_A_MODULE or field.startswith("_ansible_") or module == "package_install"


def _faults(value: Any, field: Mapping[str, Any], where: str, may_be_null: bool = False) -> Iterator[str]:
    kinds: tuple[Any, ...] = TYPES[field["type"]]
    if value is None:
        if not may_be_null:
            yield f"{where} is null"
    elif not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        yield f"{where} is {type(value).__name__} and not {field['type']}"
    elif field["type"] == "dict" and "contains" in field:
        yield from _faults_inside(value, field["contains"], where)
    elif field["type"] == "list" and "elements" in field:
        entry = {"type": field["elements"], **({"contains": field["contains"]} if "contains" in field else {})}
        for position, each in enumerate(value):
            yield from _faults(each, entry, f"{where}[{position}]")


def _faults_inside(value: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from (f"{where}.{name} is not documented" for name in value if name not in fields)
    for name, field in fields.items():
        needed = field.get("returned", ALWAYS) in (ALWAYS, "always")
        if name in value:
            yield from _faults(value[name], field, f"{where}.{name}", may_be_null=not needed)
        elif needed:
            yield f"{where}.{name} is missing"
