# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What imports what, and how long functions and classes are, from the source alone. docs/architecture.md says why."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
PREFIX = "ansible_collections.fleet.imaging.plugins"
COMMON = "module_utils"
"""The modules that lie in module_utils itself."""

ROWS = (
    {COMMON},
    {"disk", "image", "stream"},
    {"engine"},
    {"serving", "sources"},
    {"arguments", "run_file", "ticket"},
    {"laptop", "plugin_utils"},
    {"action", "callback", "doc_fragments", "filter", "modules"},
)
"""The parts, from below: each imports from rows below its own alone."""

STRANGERS = {
    ("engine", "stream"): "the engine knows no link",
    ("modules", "plugin_utils"): "a module runs on a laptop",
    **{(part, "laptop"): "the controller has none of the laptop's" for part in ("action", "callback", "filter")},
}
"""What a part may not import although it lies below it."""

MAX_FUNCTION = 50
MAX_CLASS = 200


@functools.cache
def sources() -> dict[str, ast.Module]:
    """All modules of plugins/ by their names below it."""
    return {
        ".".join(path.relative_to(PLUGINS).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(PLUGINS.rglob("*.py"))
    }


def origin(module: str, node: ast.ImportFrom) -> str:
    """The full name of what a line of a module imports from."""
    above = [PREFIX, *module.split(".")[: -node.level]] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def imported(module: str, tree: ast.Module, known: frozenset[str]) -> set[str]:
    """Which of the known modules one imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name[len(PREFIX) + 1 :] for alias in node.names if alias.name.startswith(f"{PREFIX}.")}
        elif isinstance(node, ast.ImportFrom):
            full = origin(module, node)
            names = [full, *(f"{full}.{alias.name}" for alias in node.names)]
            found |= {name[len(PREFIX) + 1 :] for name in names if name.startswith(f"{PREFIX}.")}
    return found & known


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module of plugins/ imports of the others."""
    known = frozenset(sources())
    return {module: imported(module, tree, known) for module, tree in sources().items()}


def part(module: str) -> str:
    """The part that a module belongs to."""
    names = module.split(".")
    if names[0] != COMMON:
        return names[0]
    if len(names) > 2 or any(names[1] in row for row in ROWS):
        return names[1]
    return COMMON


def row(name: str) -> int:
    """The row of a part."""
    (found,) = [number for number, parts in enumerate(ROWS) if name in parts]
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The modules that import one another, also by way of others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    reach = {module: reached(module) for module in graph}
    found = {tuple(sorted(each for each in reach[module] if module in reach[each])) for module in graph}
    return sorted(list(circle) for circle in found if circle)


def arrows(graph: dict[str, set[str]]) -> list[str]:
    """The imports that go up or aside, or to where they may not go."""
    wrong = []
    for module, others in sorted(graph.items()):
        for other in sorted(others):
            pair = (part(module), part(other))
            if pair[0] != pair[1] and (row(pair[1]) >= row(pair[0]) or pair in STRANGERS):
                wrong.append(f"{module} imports {other}: {STRANGERS.get(pair, 'that is not below it')}")
    return wrong


def sizes() -> Iterator[tuple[str, int, int]]:
    """Each function and class: its name, how many lines it has, and how many it may have."""
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                most = MAX_CLASS if isinstance(node, ast.ClassDef) else MAX_FUNCTION
                yield f"{module}.{node.name}", (node.end_lineno or 0) - node.lineno + 1, most


def test_every_part_is_in_a_row() -> None:
    assert {part(module) for module in sources()} == set().union(*ROWS)


def test_no_modules_import_one_another() -> None:
    assert circles(imports()) == []


def test_every_import_goes_down() -> None:
    assert arrows(imports()) == []


def test_functions_and_classes_can_be_read_at_once() -> None:
    assert {f"{name} has {lines} lines" for name, lines, most in sizes() if lines > most} == set()


@pytest.mark.parametrize(
    ("module", "text", "fault"),
    [
        ("module_utils.disk.a", "from ..image import header", "not below"),
        ("module_utils.disk.a", "def late():\n    from ..image.header import ImageHeader", "not below"),
        ("module_utils.engine.a", "from ..stream.link import Link", "no link"),
        ("module_utils.errors", "from .arguments import TCP", "not below"),
        ("module_utils.stream.a", f"from {PREFIX}.plugin_utils.stores.folder import FolderStore", "not below"),
        ("plugin_utils.a", f"from {PREFIX}.module_utils.laptop.session import Session", "not below"),
        ("action.a", f"import {PREFIX}.module_utils.laptop.session", "none of the laptop's"),
        ("modules.a", f"from {PREFIX}.plugin_utils import run", "runs on a laptop"),
        ("action.a", f"from {PREFIX}.modules.confirm import main", "not below"),
    ],
)
def test_a_wrong_import_is_found(module: str, text: str, fault: str) -> None:
    graph = {module: imported(module, ast.parse(text), frozenset(sources()))}
    assert len(arrows(graph)) == 1 and fault in arrows(graph)[0]


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
