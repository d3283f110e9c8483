# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""That module_defaults reach modules whose action plugins are the collection's, in real plays without a laptop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.playbooks import BIN, ROOT, RunningPlaybook

PLAY = ROOT / "tests/integration/plays/module_defaults.yml"
TASKS = [{"name": "In a file", "fleet.imaging.image_info": {}}]


@pytest.mark.parametrize("given", ["inventory", "extra"])
def test_modules_have_the_values_that_were_read_first_wherever_they_are_called(tmp_path: Path, given: str) -> None:
    (tmp_path / "a_role/tasks").mkdir(parents=True)
    for path in (tmp_path / "tasks.yml", tmp_path / "a_role/tasks/main.yml"):
        path.write_text(json.dumps(TASKS))
    laptop = {"ansible_connection": "local", "imaging_store": "/of-the-inventory"}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"children": {"lab_laptops": {"hosts": {"lab-01": laptop}}}}}))
    more = ["-e", "imaging_store=/extra"] if given == "extra" else []
    command: list[str | Path] = [BIN / "ansible-playbook", PLAY, "-i", inventory, "-e", f"included={tmp_path}", *more]
    outcome = RunningPlaybook(command, tmp_path, {}).wait()
    assert outcome.status == 0, outcome.stdout
    stores = [each.result["store"] for each in outcome.of("image_info")]
    assert stores == [*["/extra" if given == "extra" else "/of-the-inventory"] * 4, "/of-the-task"]
    for module in ("image_capture", "image_restore", "image_probe"):
        (refused,) = outcome.of(module)
        assert "link_timeout is 1" in refused.result["msg"]
    (refused,) = outcome.of("image_import")
    assert "99" in refused.result["msg"]
