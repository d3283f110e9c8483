# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All processes of a run of ansible-playbook have one authority, and another run has another one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]

ACTION = """
import os
from ansible.plugins.action import ActionBase
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import run_authority

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        line = f"{os.getpid()} {run_authority().controller.authority.split()[5]}\\n"
        with open(os.environ["AUTHORITIES"], "a") as file:
            file.write(line)
        return {}
"""

PLAYBOOK = "".join(
    f"""
- hosts: all
  gather_facts: false
  strategy: {strategy}
  tasks:
    - show:
"""
    for strategy in ("linear", "free", "host_pinned")
)


def authorities(folder: Path) -> list[list[str]]:
    """Run a playbook on three hosts with each strategy; return the process, and what tells its authority from others, for each task."""
    found = folder / "found"
    found.write_text("")
    command: list[str | Path] = [
        Path(sys.executable).parent / "ansible-playbook",
        "-i",
        "a,b,c",
        "-f",
        "3",
        folder / "play.yml",
    ]
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".tree"), AUTHORITIES=str(found))
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    return [line.split() for line in found.read_text().splitlines()]


def test_all_processes_of_a_run_have_one_authority(tmp_path: Path) -> None:
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins/show.py").write_text(ACTION)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    first, second = authorities(tmp_path), authorities(tmp_path)
    for found in (first, second):
        assert len({process for process, _authority in found}) == 9
        assert len({authority for _process, authority in found}) == 1
    assert first[0][1] != second[0][1]
