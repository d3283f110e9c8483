# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures agree with each other, both ends go by the same, and whoever breaks that is told which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import Credentials
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import Ticket
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS, ORDER, Timeouts


def test_the_defaults_agree_with_each_other() -> None:
    assert DEFAULTS.contradictions() == []


@pytest.mark.parametrize("link_timeout", [20, 60, 120, 600, 24 * 3600])
def test_whoever_is_more_patient_breaks_no_other_rule(link_timeout: float) -> None:
    """A shorter patience is the user's to choose. What must fit into it then is cut short, and he is told."""
    broken = replace(DEFAULTS, link_timeout=link_timeout).contradictions()
    assert all("than link_timeout" in each for each in broken)
    assert broken == [] or link_timeout < DEFAULTS.log_in


@pytest.mark.parametrize(("shorter", "longer"), [rule[:2] for rule in ORDER])
def test_a_figure_that_breaks_a_rule_is_named(shorter: str, longer: str) -> None:
    """The longer wait, or what it is made of, is too short for the other."""
    changes = {
        "link_timeout": {"link_timeout": 1.0},
        "first_patience": {"first_link": DEFAULTS.first_attempt * 0.99},
    }
    changed = replace(DEFAULTS, **changes.get(longer, {longer: getattr(DEFAULTS, shorter) * 0.99}))
    assert any(each.startswith(f"{shorter} (") and f"than {longer} (" in each for each in changed.contradictions())


@pytest.mark.parametrize(
    ("link_timeout", "silence"), [(5, 8.0), (12, 8.0), (20, 10.0), (60, 30.0), (120, 30.0), (9999, 30.0)]
)
def test_the_silence_follows_the_link_timeout(link_timeout: float, silence: float) -> None:
    assert Timeouts(link_timeout=link_timeout).silence == silence


def test_the_port_is_waited_for_while_an_older_module_and_the_disk_are() -> None:
    """10 s for the older one's controller, 10 + 5 s for its end, 10 s for the disk."""
    assert Timeouts(link_timeout=5).port == 35 and DEFAULTS.port == 120


def test_a_module_is_left_alone_while_its_controller_may_make_its_last_attempt() -> None:
    """1 s to learn the port, 30 s of attempts, a pause of 5 s, 60 s to log in, 10 s for the handshake."""
    assert DEFAULTS.first_contact == 106 and Timeouts(link_timeout=5, log_in=1).first_contact == 23


def test_the_laptop_goes_by_the_controllers_figures() -> None:
    timeouts = Timeouts(link_timeout=12, first_link=3)
    assert timeouts.differing == {"link_timeout": 12, "first_link": 3}
    ticket = Ticket("run", Credentials("key", "certificate", "authority"), "lab-01", "", "", timeouts=timeouts)
    assert Ticket.unpack(ticket.pack()) == ticket


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"patience": 5}, "no timeout 'patience'"),
        ({"linger": True}, "linger must be"),
        ({"linger": "5"}, "linger must be"),
        ({"linger": 0}, "linger must be"),
        ({"linger": float("nan")}, "linger must be"),
        ({"linger": float("inf")}, "linger must be"),
    ],
)
def test_what_is_no_figure_is_refused(values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Timeouts.from_values(values)
