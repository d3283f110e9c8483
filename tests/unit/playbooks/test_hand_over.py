# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What says which disk and which image are meant goes from the selection through playbooks and roles to every module that takes it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.yaml import yaml_load
from jinja2 import Environment
from jinja2.meta import find_undeclared_variables

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted([*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")])
MODULES = {path.stem for path in ROOT.glob("plugins/modules/*.py")}


def documented(module: str) -> dict[str, Any]:
    """The documentation of a module of this collection."""
    found = importlib.import_module(f"ansible_collections.fleet.imaging.plugins.modules.{module}")
    documentation: dict[str, Any] = yaml_load(found.DOCUMENTATION)
    return documentation


def of_one_disk() -> set[str]:
    """The modules that work on one disk, which is recognised."""
    return {
        name for name in MODULES if "fleet.imaging.disk" in documented(name).get("extends_documentation_fragment", ())
    }


def tasks(found: Any) -> Iterator[Mapping[str, Any]]:
    """All plays, blocks and tasks of a file."""
    if isinstance(found, list):
        for each in found:
            yield from tasks(each)
    elif isinstance(found, Mapping):
        yield found
        for value in found.values():
            yield from tasks(value)


def calls(module: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The files that call a module, and with which arguments."""
    for path in FILES:
        for task in tasks(yaml_load(path.read_text())):
            arguments = task.get(f"fleet.imaging.{module}")
            if isinstance(arguments, Mapping):
                yield path.name, arguments


def roles(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The playbooks that have a role run, and with which variables."""
    for path in FILES:
        for task in tasks(yaml_load(path.read_text())):
            role = task.get("ansible.builtin.import_role")
            if isinstance(role, Mapping) and role["name"] == f"fleet.imaging.{name}" and "tasks_from" not in role:
                yield path.name, task["vars"]


def test_a_module_that_takes_a_disk_takes_what_it_is_recognised_by_except_the_one_that_says_it() -> None:
    assert {name for name in MODULES if "device" in documented(name).get("options", {})} == {"disk_info"}


@pytest.mark.parametrize("module", sorted(of_one_disk()))
def test_every_step_is_told_what_its_disk_is_recognised_by(module: str) -> None:
    found = list(calls(module))
    assert found and all("expect" in arguments for _file, arguments in found), found


@pytest.mark.parametrize("role", ["prepare_source", "stream_image", "verify_target"])
def test_every_role_is_told_what_its_disk_is_recognised_by(role: str) -> None:
    found = list(roles(role))
    assert found and all(f"{role}_expect" in variables for _file, variables in found), found


def test_all_laptops_of_a_run_are_held_against_one_image() -> None:
    assert all("root_digest" in arguments for _file, arguments in calls("image_restore"))
    restoring = [each for each in roles("stream_image") if each[1]["stream_image_action"] == "restore"]
    assert [file for file, _variables in restoring] == ["clone.yml", "restore.yml"]
    verifying = ["clone.yml", "restore.yml", "verify.yml"]
    assert sorted(file for file, _variables in roles("verify_target")) == verifying
    for role, found in (("stream_image", restoring), ("verify_target", list(roles("verify_target")))):
        assert all(
            variables[f"{role}_root_digest"] == "{{ store.images[0].root_digest }}" for _file, variables in found
        )


def test_whether_a_disk_is_released_is_said_by_the_checked_settings_alone() -> None:
    """And not by a variable of a play in between, which an extra variable of the same name would replace."""
    said = [
        (path.name, value)
        for path in ROOT.glob("playbooks/**/*.yml")
        for task in tasks(yaml_load(path.read_text()))
        for name, value in task.get("vars", {}).items()
        if name.endswith("_release")
    ]
    assert len(said) >= 4
    for playbook, value in said:
        read = find_undeclared_variables(Environment().parse(str(value)))
        assert read <= {"checked"}, f"{playbook}: {value}"
