# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laptops whose sudo, su or start files of shells print what nobody asked for, on the connection that carries the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.plugin_utils.connection_errors import (
    NO_BECOME_PASSWORD,
    NO_LOGIN,
    WRONG_BECOME_PASSWORD,
)
from ansible_collections.fleet.imaging.tests.integration.faults import assert_nothing_remains
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.live_user import LIVE_USER, PASSWORD, VARIABLES, add_live_user
from ansible_collections.fleet.imaging.tests.integration.playbooks import CAPTURE_ONE, playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Plan

pytestmark = pytest.mark.skipif(
    not isolated(), reason="an ordinary user of a laptop's own needs namespaces, and so root"
)

# The laptops' names are not in /etc/hosts, so sudo complains of that as well.
WITHOUT_PASSWORD = {"sudoers": f"Defaults env_reset\n{LIVE_USER} ALL=(ALL) NOPASSWD: ALL\n"}
BY_PASSWORD = {"sudoers": f"Defaults env_reset, lecture=always\n{LIVE_USER} ALL=(ALL) ALL\n"}
DOAS = {"doas.conf": f"permit nopass {LIVE_USER} as root\n"}
DOAS_BY_PASSWORD = {"doas.conf": f"permit {LIVE_USER} as root\n"}
KNOWN = {"ansible_become_password": PASSWORD}
BY_DOAS = {"ansible_become_exe": "doas", "ansible_become_flags": "-n"}
"""There is no plugin for doas in ansible-core, and sudo's speaks to it as well."""
BY_SU = {"ansible_become_method": "su"}


def test_what_sudo_and_shells_print_is_no_answer(tiny_plan: Plan, store: Path) -> None:
    with running_lab(tiny_plan, laptops=5, disk_size=64 << 20) as lab:
        one, two, three, four, five = lab.targets
        add_live_user(one, WITHOUT_PASSWORD)
        add_live_user(two, {**BY_PASSWORD, **DOAS_BY_PASSWORD})
        add_live_user(three, {}, "echo 'Welcome!'", "echo '{ this is root }'; trap 'echo bye' EXIT")
        add_live_user(four, DOAS, "set -x; echo hello")
        add_live_user(five, WITHOUT_PASSWORD, "trap 'echo see you' EXIT")
        become: dict[str, dict[str, Any]] = {
            one.name: {},
            two.name: KNOWN,
            three.name: {**KNOWN, **BY_SU},
            four.name: BY_DOAS,
            five.name: {},
        }
        # By another name, as whoever forgot -K, mistyped or is not let in: none gets as far as the disk.
        shut_out: dict[str, dict[str, Any]] = {
            "no-sudo-password": {},
            "no-doas-password": BY_DOAS,
            "no-su-password": {**BY_SU, "ansible_timeout": 4},
            "wrong-sudo-password": {"ansible_become_password": "wrong"},
            "wrong-su-password": {"ansible_become_password": "wrong", **BY_SU},
            "no-such-user": {"ansible_user": "nobody"},
        }
        become |= {
            name: {"ansible_host": two.address, "imaging_disk": two.disk, **own} for name, own in shut_out.items()
        }
        more = lab.folder / "more.yml"
        hosts = {name: {**VARIABLES, **own} for name, own in become.items()}
        more.write_text(json.dumps({"lab_laptops": {"hosts": hosts}}))
        arguments = ("-i", more, "-l", "lab_laptops", "--become", "-e", f"imaging_store={store}")
        outcome = playbook(lab, CAPTURE_ONE, *arguments, "-e", "imaging_image={{ inventory_hostname }}")
        assert_nothing_remains(lab)
    changed = [result.host for result in outcome.of("image_capture") if result.result.get("changed")]
    assert sorted(changed) == [one.name, two.name, three.name, four.name], outcome.stdout
    # Ansible itself takes that for the path of its folder.
    failures = outcome.failures()
    assert sorted(failures) == sorted([five.name, *shut_out])
    assert f"no-sudo-password, no-doas-password, no-su-password: {NO_BECOME_PASSWORD.advice}." in outcome.stdout
    assert f"wrong-sudo-password, wrong-su-password: {WRONG_BECOME_PASSWORD.advice}." in outcome.stdout
    assert f"no-such-user: {NO_LOGIN.advice}." in outcome.stdout
    assert "'see you'" in failures[five.name] and "~/.bashrc" in failures[five.name]
