# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a restore."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action.image_restore import ActionModule
from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import STREAMING, Status
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.participant import Address

ARGUMENTS = {"relay": "auto", "transport": "tcp"}


def new_action() -> Any:
    action: Any = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(check_mode=False)
    action.running = SimpleNamespace(port=19000, networks="198.18.0.0/22")
    addresses = iter(["198.18.0.10"])
    action.address = lambda: next(addresses, "no such host.invalid")
    return action


def of_laptops(*names: str) -> dict[str, Any]:
    return {"inventory_hostname": names[0], "ansible_play_hosts_all": list(names)}


def test_a_laptop_takes_part_over_each_link_although_its_name_is_not_resolved_any_more() -> None:
    action = new_action()
    with action._relay(ARGUMENTS, of_laptops("lab-01", "lab-02"), "00", print) as relay:
        for link in (SimpleNamespace(handlers={}), SimpleNamespace(handlers={})):
            action._on_progress(link, SimpleNamespace(update=None), "lab-01", "", relay)
            assert Kind.LOST in link.handlers


def test_laptops_that_pass_an_image_on_do_not_share_the_network_of_the_controller() -> None:
    action = new_action()
    batch = {"ansible_play_batch": ["lab-01", "lab-02"]}
    assert action.sharing(batch) == 2
    with action._relay(ARGUMENTS, of_laptops("lab-01", "lab-02"), "00", print) as relay:
        assert action.sharing(batch) == 1
        relay.upstreams.leave(Loss(host="lab-02", reason="", reached=False, damage=False))
        assert action.sharing(batch) == 2


def test_a_failure_says_where_chunks_were_to_come_from() -> None:
    action = new_action()
    action.running.sent = 7
    with action._relay(ARGUMENTS, of_laptops("lab-01", "lab-02"), "00", print) as relay:
        relay.upstreams.name("lab-02")
    facts = action.facts_of_failure()
    assert facts["sent_bytes"] == 7 and facts["taken_from"] == [{"host": "lab-02", "bytes": None}]


@pytest.mark.parametrize(("named", "site"), [("", "198.18.0.0/22"), ("Wien", "Wien")])
def test_the_site_is_the_laptops_network_unless_it_has_a_name(named: str, site: str) -> None:
    reports: list[Address] = []
    relay = SimpleNamespace(attach=id, progress=lambda link, status, address: reports.append(address))
    action = new_action()
    action._ip = "198.18.0.10"
    on_progress = action._on_progress(None, SimpleNamespace(update=id), "lab-01", named, relay)
    on_progress(Status(STREAMING, 0, 100, 0, 100, 1.0, {}).pack())
    assert reports == [Address("lab-01", "198.18.0.10", 19000, site)]


@pytest.mark.parametrize(
    ("relay", "laptops"), [("auto", ["lab-01"]), ("off", ["lab-01", "lab-02"])], ids=["one laptop", "off"]
)
def test_nothing_is_passed_on_where_nobody_takes_it_or_it_is_off(relay: str, laptops: list[str]) -> None:
    with new_action()._relay({**ARGUMENTS, "relay": relay}, of_laptops(*laptops), "00", print) as participant:
        assert participant is None
