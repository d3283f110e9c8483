# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An argument stands once: its table, its documentation, its action group and the playbooks that set it do not contradict one another."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.yaml import yaml_load

from ansible_collections.fleet.imaging.plugins.module_utils import arguments
from ansible_collections.fleet.imaging.plugins.module_utils.arguments import BOUNDS, SETTABLE
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import DISK_ARGUMENTS

from .test_hand_over import MODULES, ROOT, documented, tasks

GROUPS: dict[str, list[str]] = yaml_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
PREFIX = "fleet.imaging."
WITH_ACTION = [
    *("image_capture", "image_export", "image_import", "image_info"),
    *("image_probe", "image_recompress", "image_remove", "image_restore", "image_share", "image_upload"),
]
OF_TRANSFERS = ["image_capture", "image_probe", "image_restore", "image_share"]


def plugin(kind: str, name: str) -> Any:
    return importlib.import_module(f"ansible_collections.fleet.imaging.plugins.{kind}.{name}")


def taken(module: str) -> dict[str, Any]:
    """The arguments of a module, as its action plugin checks them."""
    table: dict[str, Any] = plugin("action", module).ActionModule.ARGUMENTS
    return table


def options(module: str) -> dict[str, Any]:
    """What a module documents of its options, with those of its fragments."""
    found = documented(module)
    said: dict[str, Any] = dict(found.get("options", {}))
    for fragment in found.get("extends_documentation_fragment", ()):
        text = plugin("doc_fragments", fragment.rpartition(".")[2]).ModuleDocFragment.DOCUMENTATION
        said.update(yaml_load(text).get("options", {}))
    return said


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_documents_the_codes_of_failures(module: str) -> None:
    assert "fleet.imaging.common" in documented(module)["extends_documentation_fragment"]


@pytest.mark.parametrize("module", WITH_ACTION)
def test_an_argument_is_documented_as_it_is_taken(module: str) -> None:
    said, table = options(module), taken(module)
    assert said.keys() == table.keys()
    for name, spec in table.items():
        for what in ("type", "default", "choices", "required"):
            assert said[name].get(what) == spec.get(what), f"{module}: {name}: {what}"


@pytest.mark.parametrize("module", OF_TRANSFERS)
def test_both_ends_of_a_transfer_take_the_same(module: str) -> None:
    table = module.replace("image_", "").upper() + "_ARGUMENTS"
    assert taken(module) is getattr(arguments, table) is getattr(plugin("modules", module), table)


def test_an_action_group_has_every_module_that_takes_its_arguments_and_no_other() -> None:
    for taker, table in SETTABLE.items():
        takers = {module for module in WITH_ACTION if table.items() <= taken(module).items()}
        if taker in MODULES:
            assert taker in takers
        else:
            assert sorted(takers) == GROUPS[taker]
    assert set(GROUPS) == {taker for taker in SETTABLE if taker not in MODULES} | {"imaging"}
    assert sorted(GROUPS["imaging"]) == sorted(MODULES)


def test_what_can_be_set_is_set_for_every_module_that_takes_it() -> None:
    for name, spec in {name: spec for table in SETTABLE.values() for name, spec in table.items()}.items():
        for module in WITH_ACTION:
            if name in taken(module):
                assert taken(module)[name] == spec
                assert any(name in SETTABLE[taker] for taker in takers_of(module)), f"{module}: {name}"


def test_bounds_are_of_numbers_that_can_be_set() -> None:
    numbers = {name for table in SETTABLE.values() for name, spec in table.items() if spec["type"] == "int"}
    assert numbers == set(BOUNDS)


def test_all_arguments_of_a_disk_are_documented() -> None:
    fragment = yaml_load(plugin("doc_fragments", "disk").ModuleDocFragment.DOCUMENTATION)["options"]
    assert fragment.keys() == DISK_ARGUMENTS.keys()
    assert {name: said["type"] for name, said in fragment["expect"]["suboptions"].items()} == {
        name: spec["type"] for name, spec in DISK_ARGUMENTS["expect"]["options"].items()
    }


def takers_of(module: str) -> set[str]:
    """What of SETTABLE is for a module: its groups, and itself."""
    return {taker for taker in SETTABLE if taker == module or module in GROUPS.get(taker, ())}


def calls(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The modules of this collection that a file runs, itself or in what it imports, with their arguments."""
    for task in tasks(yaml_load(path.read_text())):
        for name, given in task.items():
            if str(name).startswith(PREFIX) and isinstance(given, Mapping):
                yield str(name)[len(PREFIX) :], given
            elif name in ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks"):
                yield from calls(path.parent / given)
            elif name in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
                role = str(given["name"])[len(PREFIX) :]
                yield from calls(ROOT / "roles" / role / "tasks" / f"{given.get('tasks_from', 'main')}.yml")


IMAGE_OF_A_CLONE = "combine({'shared': checked.imaging_image == '', 'mirror': ''})"
"""Where clone.yml says that the image is the reference's disk."""


@pytest.mark.parametrize("playbook", sorted(path.name for path in ROOT.glob("playbooks/*.yml")))
def test_a_playbook_sets_the_arguments_of_every_module_that_it_runs_once(playbook: str) -> None:
    path = ROOT / "playbooks" / playbook
    plays = [play for play in yaml_load(path.read_text()) if play["name"] != "Check the settings"]
    called = list(calls(path))
    needed = {taker for module, _given in called for taker in takers_of(module)}
    for play in plays[-1:] if playbook != "clone.yml" else plays:
        defaults = {
            name: str(value).replace(f" | {IMAGE_OF_A_CLONE}", "")
            for name, value in play.get("module_defaults", {}).items()
        }
        assert defaults == {
            PREFIX + taker if taker in MODULES else f"group/{PREFIX}{taker}": f"{{{{ arguments.{taker} }}}}"
            for taker in needed
        }
        assert not needed or play["vars"]["arguments"] == "{{ checked_settings.arguments[inventory_hostname] }}"
    for module, given in called:
        by_hand = {name for taker in takers_of(module) for name in SETTABLE[taker]} & given.keys()
        assert by_hand <= {"mirror"}, f"{module}: {by_hand}"
