# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dataclass of more than four fields is filled by keyword. A table outside of functions may give its first four in their order."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from .test_layers import PREFIX, origin, sources

FEW = 4

Name = tuple[str, str]
"""A module, and a class in it."""


def classes(modules: dict[str, ast.Module]) -> dict[Name, ast.ClassDef]:
    """All classes of some modules."""
    return {
        (module, node.name): node
        for module, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def known_as(module: str, tree: ast.Module) -> dict[str, Name]:
    """What the names of a module's own classes, and of all that it imports, stand for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found[node.name] = (module, node.name)
        elif isinstance(node, ast.ImportFrom):
            full = origin(module, node).removeprefix(f"{PREFIX}.")
            for alias in node.names:
                found[alias.asname or alias.name] = (full, alias.name)
    return found


def fields(name: Name, known: dict[Name, ast.ClassDef], names: dict[str, dict[str, Name]]) -> int:
    """How many fields a dataclass is filled with, with those that it inherits; 0 for other classes."""
    node = known.get(name)
    if node is None or not any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        return 0
    bases = [names[name[0]].get(ast.unparse(base)) for base in node.bases]
    own = [each for each in node.body if isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each)]
    filled = [each for each in own if "init=False" not in ast.unparse(each)]
    return len(filled) + sum(fields(base, known, names) for base in bases if base)


def calls(node: ast.AST, inside: str = "", function: bool = False) -> Iterator[tuple[ast.Call, str, bool]]:
    """The calls in a module: in which class each is, and whether in a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, inside, function
        deeper = function or isinstance(child, (ast.FunctionDef, ast.Lambda))
        yield from calls(child, child.name if isinstance(child, ast.ClassDef) else inside, deeper)


def filled_in_order(modules: dict[str, ast.Module]) -> list[str]:
    """Where a dataclass of many fields is filled by the order of its fields."""
    known = classes(modules)
    names = {module: known_as(module, tree) for module, tree in modules.items()}
    found = []
    for module, tree in modules.items():
        for call, inside, function in calls(tree):
            called = inside if ast.unparse(call.func) == "cls" else ast.unparse(call.func)
            name = names[module].get(called)
            if name and fields(name, known, names) > FEW and len(call.args) > (0 if function else FEW):
                found.append(f"{module}:{call.lineno}: {called}")
    return found


def test_what_has_many_fields_is_filled_by_keyword() -> None:
    assert filled_in_order(sources()) == []


MANY = """
@dataclass
class Base:
    a: int
    b: int
@dataclass(frozen=True)
class Many(Base):
    c: int
    d: int
    e: int
    x: ClassVar[int] = 5
    @classmethod
    def read(cls): return {made}
TABLE = [{row}]
"""


@pytest.mark.parametrize(
    ("made", "row", "count"),
    [
        ("cls(a=1, b=2, c=3, d=4, e=5)", "Many(1, 2, 3, 4, e=5)", 0),
        ("cls(1, b=2, c=3, d=4, e=5)", "None", 1),
        ("[Many(*numbers)]", "None", 1),
        ("Base(1, 2)", "None", 0),
        ("other.Many(1)", "Many(1, 2, 3, 4, 5)", 1),
    ],
)
def test_a_call_that_goes_by_the_order_is_found(made: str, row: str, count: int) -> None:
    text = MANY.format(made=made, row=row)
    assert len(filled_in_order({"module_utils.a": ast.parse(text)})) == count
    use = f"from .a import Many as Lots\ndef make(): return {made.replace('cls', 'Lots').replace('Many', 'Lots')}"
    modules = {"module_utils.a": ast.parse(MANY.format(made="0", row="0")), "module_utils.b": ast.parse(use)}
    assert len(filled_in_order(modules)) == (count if row == "None" else 0)
