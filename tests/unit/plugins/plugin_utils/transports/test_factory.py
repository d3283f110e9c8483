# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transports: what can be asked for can be made, and is in the README."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import SSH_CLIENTS, TRANSPORTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.factory import CLIENTS, MAKERS, connection_of
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.ssh_settings import SshSettings, settings_of

README = Path(__file__).resolve().parents[5] / "README.md"


def test_every_transport_and_every_client_that_can_be_asked_for_can_be_made() -> None:
    assert MAKERS.keys() == TRANSPORTS.keys()
    assert CLIENTS.keys() == set(SSH_CLIENTS)


def test_the_readme_names_every_transport_and_every_client() -> None:
    rows = {line.split("`")[1]: line for line in README.read_text().splitlines() if line.startswith("| `imaging_")}
    assert all(f"`{name}`" in rows["imaging_transport"] for name in TRANSPORTS)
    assert all(f"`{name}`" in rows["imaging_ssh_client"] for name in SSH_CLIENTS)


def settings_for(host: str, own: dict[str, Any], password: str) -> SshSettings:
    """How a task of lab-01 with these variables reaches another host."""
    others = {
        "reference": {"inventory_hostname": "reference", "ansible_host": "192.0.2.7", "ansible_port": 2222},
        "guarded": {"inventory_hostname": "guarded", "ansible_user": "live", "ansible_ssh_password": "its own"},
    }
    play = PlayContext(passwords={"conn_pass": password})
    action: Any = SimpleNamespace(
        _task=Task.load({"action": "fleet.imaging.image_restore", "connection": "ssh"}), _play_context=play
    )
    return settings_of(connection_of(host, action, {**own, "hostvars": others}))


def test_a_task_reaches_another_host_by_the_settings_of_that_host() -> None:
    own = {"ansible_host": "192.0.2.1", "ansible_user": "mine", "ansible_password": "mine"}
    reached = settings_for("reference", own, "mine")
    assert (reached.host, reached.password) == ("192.0.2.7", None)
    assert "Port=2222" in reached.arguments and 'User="mine"' not in reached.arguments
    guarded = settings_for("guarded", own, "mine")
    assert (guarded.host, guarded.password) == ("guarded", "its own") and 'User="live"' in guarded.arguments
    assert settings_for("reference", {}, "of the command line").password == "of the command line"
