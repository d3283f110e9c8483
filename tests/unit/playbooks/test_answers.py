# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing but modules of this collection, whose answers are checked, and raw, whose answer is text, runs on a laptop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.yaml import yaml_load
from ansible.playbook.block import Block
from ansible.playbook.task import Task

from .test_hand_over import FILES, ROOT

KEYWORDS = ({*Task.fattributes} | {*Block.fattributes}) - {"action", "local_action"}
LISTS = ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always")

HARMLESS = {
    f"ansible.builtin.{name}"
    for name in ("assert", "debug", "import_role", "import_tasks", "include_tasks", "raw", "set_fact")
}
"""All but raw run on the controller alone."""


def tasks(found: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All tasks of a list of plays, blocks and tasks that are not of a play on the controller."""
    for each in found:
        if each.get("hosts") == "localhost":
            continue
        inner = [each[name] for name in LISTS if name in each]
        for listed in inner:
            yield from tasks(listed)
        if not inner and "hosts" not in each:
            yield each


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_on_a_laptop_gives_an_answer_that_is_checked(path: Path) -> None:
    used = {name for task in tasks(yaml_load(path.read_text(encoding="utf-8"))) for name in task.keys() - KEYWORDS}
    others = {name for name in used if not name.startswith("fleet.imaging.")} - HARMLESS
    assert not others, "an answer of a laptop could change what is done on others: docs/architecture.md, Safeguards"


def test_every_module_has_an_action_plugin() -> None:
    modules, actions = (
        {path.name for path in (ROOT / "plugins" / kind).glob("*.py")} for kind in ("modules", "action")
    )
    assert modules and modules <= actions
