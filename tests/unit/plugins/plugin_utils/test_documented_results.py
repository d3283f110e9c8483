# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The results of modules are documented as the types that they are built from: names, types, what may be null, at every depth.

What a laptop's module returns beside its documentation is lost on the way, and what it documents and does not return is refused.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action.image_capture import ActionModule as CaptureAction
from ansible_collections.fleet.imaging.plugins.action.image_probe import ActionModule as ProbeAction
from ansible_collections.fleet.imaging.plugins.action.image_restore import ActionModule as RestoreAction
from ansible_collections.fleet.imaging.plugins.module_utils import reasons, sources
from ansible_collections.fleet.imaging.plugins.module_utils.disk.devices import DescribedDisk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.findings import Finding, PartitionFacts
from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import Fitness
from ansible_collections.fleet.imaging.plugins.module_utils.disk.grow import Growth
from ansible_collections.fleet.imaging.plugins.module_utils.disk.identity import IDENTITY
from ansible_collections.fleet.imaging.plugins.module_utils.disk.systems import System
from ansible_collections.fleet.imaging.plugins.module_utils.disk.uefi import Boot
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import Captured, Examined
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.probe import Probed
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.restore_result import Restored
from ansible_collections.fleet.imaging.plugins.modules import disk_info
from ansible_collections.fleet.imaging.plugins.modules.disk_release import Released
from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import (
    ALWAYS,
    ON_FAILURE,
    documented_fields,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import TransferAction
from ansible_collections.fleet.imaging.tests.unit.plugins.modules.results import printed

Fields = Mapping[str, Any]

SCALARS = {str: "str", int: "int", float: "float", bool: "bool"}
OF_ANSIBLE = {"changed", "warnings"}
"""Fields of every result, which no module documents."""


def described(kind: Any) -> dict[str, Any]:
    """A type in the form of RETURN; ``null`` says that it may be None."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return {**described(inner), "null": True}
    if kind in SCALARS:
        return {"type": SCALARS[kind]}
    if origin in (list, tuple):
        element = described(arguments[0])
        return {"type": "list", "elements": element["type"], "contains": element.get("contains")}
    if is_dataclass(kind) or typing.is_typeddict(kind):
        return {"type": "dict", "contains": fields_of(kind)}
    assert origin is dict and arguments[0] is str, f"{kind} is nothing that JSON has"
    return {"type": "dict", "values": described(arguments[1])["type"]}


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass or TypedDict, in the form of RETURN."""
    return {name: described(hint) for name, hint in typing.get_type_hints(kind).items()}


def differences(documented: Fields, produced: Fields, where: str) -> list[str]:
    """In what a documentation is another than what is produced."""
    found = [f"{where}.{name} is not documented" for name in produced if name not in documented]
    found += [f"{where}.{name} is documented and never there" for name in documented if name not in produced]
    for name in documented.keys() & produced.keys():
        said, made, place = documented[name], produced[name], f"{where}.{name}"
        for key in ("type", "elements"):
            if said.get(key) != made.get(key):
                found.append(f"{place}: {key} is documented as {said.get(key)} and is {made.get(key)}")
        if made.get("null") and said.get("returned", ALWAYS) == ALWAYS:
            found.append(f"{place} may be null, and is documented as if it never were")
        inner = said.get("contains")
        if "values" in made:
            found += [f"{place}.{key}" for key, each in (inner or {}).items() if each["type"] != made["values"]]
        elif inner or made.get("contains"):
            found += differences(inner or {}, made.get("contains") or {}, place)
    return sorted(found)


def result_of(module: str) -> dict[str, Any]:
    """What a module documents of a result that is no failure, or is always there."""
    return without(documented_fields(module), {"codes"})


def without(fields: Fields, names: typing.Collection[str]) -> dict[str, Any]:
    return {name: field for name, field in fields.items() if name not in names}


@pytest.mark.parametrize(
    ("module", "kind"),
    [("partition_grow", Growth), ("uefi_boot", Boot), ("disk_release", Released)],
)
def test_a_result_is_documented_as_it_is_built(module: str, kind: Any) -> None:
    assert differences(result_of(module), without(fields_of(kind), OF_ANSIBLE), module) == []


@pytest.mark.parametrize(
    ("module", "kind", "action"),
    [
        ("image_capture", Captured, CaptureAction),
        ("image_restore", Restored, RestoreAction),
        ("image_probe", Probed, ProbeAction),
    ],
)
def test_what_a_laptop_says_of_a_transfer_is_documented_or_known_to_the_other_end(
    module: str, kind: Any, action: type[TransferAction]
) -> None:
    documented = result_of(module)
    believed = {**without(documented, action.ADDED), **action.UNDOCUMENTED}
    assert differences(believed, without(fields_of(kind), OF_ANSIBLE), module) == []
    # Else it would be asked for in vain, or what the other end adds would be taken from the laptop.
    assert not (action.UNDOCUMENTED.keys() & documented.keys())
    assert documented.keys() >= action.ADDED


def test_every_source_of_chunks_is_documented() -> None:
    """The bytes from one that is not documented would be lost on the way."""
    modules = (
        importlib.import_module(f"{sources.__name__}.{each.name}") for each in pkgutil.iter_modules(sources.__path__)
    )
    kinds: list[Any] = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    names = {
        name for kind in kinds if hasattr(kind, "max_requests") for name in getattr(kind, "names", None) or [kind.name]
    }
    assert names and names == result_of("image_restore")["frame_bytes"]["contains"].keys()


def test_what_check_mode_finds_of_a_capture_is_all_that_is_always_there() -> None:
    documented = without(result_of("image_capture"), CaptureAction.ADDED)
    always = {name: field for name, field in documented.items() if field["returned"] == ALWAYS}
    assert differences(always, fields_of(Examined), "image_capture") == []


def test_what_is_on_a_disk_is_documented() -> None:
    documented = result_of("source_info")
    assert documented.keys() == Fitness("").to_json().keys()
    for name, kind in (("partitions", PartitionFacts), ("systems", System)):
        assert differences(documented[name]["contains"], fields_of(kind), name) == []
    finding = {**fields_of(Finding), "sentence": {"type": "str"}}
    assert differences(documented["findings"]["contains"], finding, "findings") == []


def test_what_disks_there_are_is_documented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documented = result_of("disk_info")
    for name in ("disks", "selected"):
        assert differences(documented[name]["contains"], fields_of(DescribedDisk), name) == []
    identity = {name: {"type": kind} for name, kind in IDENTITY.items()}
    assert differences(documented["expect"]["contains"], identity, "expect") == []
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    result = printed(disk_info.main, {"device": str(tmp_path / "disk"), "purpose": "target"}, capsys)
    assert result.keys() - OF_ANSIBLE - {"invocation"} == set(documented)


def test_a_transfer_that_fails_says_what_is_left() -> None:
    on_failure = {
        module: {name for name, field in documented_fields(module).items() if field["returned"] in ON_FAILURE}
        for module in ("image_capture", "image_restore", "image_probe")
    }
    assert on_failure == {
        "image_capture": {"codes", "kept_bytes"},
        "image_restore": {"codes", "disk_state"},
        "image_probe": {"codes"},
    }


@pytest.mark.parametrize(
    "module", [path.stem for path in (Path(__file__).parents[4] / "plugins" / "modules").glob("*.py")]
)
def test_every_module_documents_the_codes_of_its_failures(module: str) -> None:
    result_of(module)


def test_every_code_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (Path(__file__).parents[4] / "docs" / "codes.md").read_text(), re.M)
    codes = [value for name, value in vars(reasons).items() if name.isupper()]
    assert rows == codes and len(set(codes)) == len(codes)
