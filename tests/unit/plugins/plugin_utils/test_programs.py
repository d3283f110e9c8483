# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that the code runs are those of which docs/programs.md says what their answers mean."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import PACKAGES
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.registry import FILE_SYSTEMS
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.decompress import ON_ALL_CORES
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.exporting import QEMU_IMG
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.programs import NEEDED

ROOT = Path(__file__).resolve().parents[4]
ON_LAPTOPS, ON_CONTROLLER = "On laptops", "On the controller"

TAKES_A_COMMAND = {"run_local", "run", "_run", "run_command", "Popen", "Checker", "Grower", "Step"}
"""Functions and classes, by their names, that are given commands as lists or tuples."""

SAME_NAME = {"cryptsetup", "efibootmgr", "mdadm"}
"""Programs whose package has their name."""


def programs_in(tree: ast.AST) -> Iterator[str]:
    """The first words of commands that are given to a runner, or returned as one."""
    for node in ast.walk(tree):
        inside: list[ast.AST] = []
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in TAKES_A_COMMAND:
            inside = [each for argument in node.args for each in ast.walk(argument)]
        elif isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) == "tuple[str, ...]":
            inside = [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
        for each in inside:
            if isinstance(each, (ast.List, ast.Tuple)) and each.elts and isinstance(each.elts[0], ast.Constant):
                yield str(each.elts[0].value)


def run_by(folder: str) -> set[str]:
    """The programs that the code in a folder runs, by what its commands begin with."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "plugins" / folder).rglob("*.py")]
    words = {word for tree in trees for word in programs_in(tree)}
    return {word for word in words if re.fullmatch(r"[a-z][a-z0-9._-]*", word)}


def documented(part: str) -> set[str]:
    """The programs in the first column of a part's table."""
    text = (ROOT / "docs/programs.md").read_text(encoding="utf-8").split(f"## {part}\n")[1].split("\n## ")[0]
    columns = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    words = [word.split()[0] for column in columns for word in re.findall(r"`([^`]+)`", column)]
    return {word for word in words if not word.startswith("-")} - {"trigger", "compare"}


def test_every_program_that_runs_on_laptops_is_documented() -> None:
    found = run_by("module_utils") | {"partclone.*", "python"}
    programs = [kind.free_space.map_program for kind in FILE_SYSTEMS if kind.free_space]
    assert len(programs) > 1 and all(program.startswith("partclone.") for program in programs)
    assert found - {"sh"} == documented(ON_LAPTOPS)


def test_every_program_that_runs_on_the_controller_is_documented() -> None:
    found = (
        run_by("plugin_utils") | {QEMU_IMG, "ssh"} | {command[0] for command in ON_ALL_CORES.values()} | NEEDED.keys()
    )
    assert found == documented(ON_CONTROLLER)


def test_a_missing_program_is_named_with_the_package_that_has_it() -> None:
    found = run_by("module_utils")
    assert found - {"sh"} == PACKAGES.keys() | SAME_NAME
