# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of several hosts that must go together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action.settings import (
    combinations,
    given_variables,
    matching_hosts,
    reference,
)
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.settings import read_settings

VARIABLES = {
    "groups": {"reference": ["ref"], "lab_laptops": ["ref", "one", "two"], "all": ["ref", "one", "two", "other"]},
    "ansible_play_hosts_all": ["two", "one", "ref", "other"],
}


def settings(**hosts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        host: read_settings({f"imaging_{name}": value for name, value in given.items()})[0]
        for host, given in hosts.items()
    }


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("lab_laptops:!reference", ["two", "one"]),
        ("reference:lab_laptops", ["two", "one", "ref"]),
        ("reference", ["ref"]),
        ("absent", []),
    ],
)
def test_the_hosts_of_a_pattern_are_those_that_the_limit_leaves(pattern: str, hosts: list[str]) -> None:
    assert matching_hosts(pattern, VARIABLES) == hosts


def test_one_restore_is_of_one_image_from_one_store() -> None:
    assert combinations(settings(one={"image": "a"}, two={"image": "a"}), "restore") == []
    (said,) = combinations(settings(one={"image": "a"}, two={"image": "b"}), "restore")
    assert "imaging_image must be the same" in said and "one: 'a', two: 'b'" in said


def test_two_captures_never_have_the_same_name(tmp_path: Path) -> None:
    store = str(tmp_path)
    (said,) = combinations(settings(one={"image": "a", "store": store}, two={"image": "a", "store": store}), "capture")
    assert "one and two would both be captured as a" in said
    named = settings(one={"store": store}, two={"store": store})
    assert combinations(named, "capture") == []
    assert named["one"]["imaging_image"].startswith("one-2")


def test_an_image_that_exists_is_said_before_anything_is_contacted(tmp_path: Path) -> None:
    (tmp_path / "a.img.zst").write_bytes(b"x")
    (said,) = combinations(settings(one={"image": "a", "store": str(tmp_path)}), "capture")
    assert "imaging_update: true" in said
    (bad,) = combinations(settings(one={"image": "../a", "store": str(tmp_path)}), "capture")
    assert "not a valid image name" in bad


def test_what_a_playbook_can_not_do_without_is_asked_for() -> None:
    for purpose in ("import", "export"):
        (said,) = combinations(settings(localhost={}), purpose)
        assert f"{purpose}.yml -e imaging_" in said
    assert combinations(settings(localhost={"source": "/disk.img"}), "import") == []
    assert combinations(settings(localhost={}), "images") == []


def test_facts_are_no_settings() -> None:
    with pytest.raises(ImagingError, match="facts of one contain imaging_disk"):
        given_variables({"ansible_facts": {"imaging_disk": "/dev/sda"}, "imaging_disk": "/dev/sda"}, "one")
    assert given_variables({"imaging_port": 5, "ansible_port": 22}, "one") == {"imaging_port": 5}


def test_former_variables_of_roles_are_not_ignored() -> None:
    variables = {"stream_image_port": 1, "stream_image_name": "a", "imaging_port": 2, "other": 3}
    assert given_variables(variables, "one") == {"stream_image_port": 1, "imaging_port": 2}


def hosts(reference: list[str], laptops: list[str], limit: str | None = None) -> dict[str, Any]:
    """What a run sees of an inventory with these hosts in its groups."""
    found: dict[str, Any] = {
        "groups": {"reference": reference, "lab_laptops": laptops},
        "ansible_play_hosts_all": [*dict.fromkeys(reference + laptops)],
    }
    return {**found, **({"ansible_limit": limit} if limit else {})}


def test_a_clone_is_of_the_one_reference() -> None:
    assert reference(hosts(["ref"], ["one", "two"])) == "ref"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (hosts([], ["one"], "lab_laptops"), "in -l lab_laptops, found none. Run with -l REFERENCE,lab_laptops"),
        (hosts(["ref", "other"], ["one"]), "one host of the group reference in the inventory, found ref, other"),
        (hosts(["ref"], [], "ref"), "none is in -l ref. Run with -l ref,lab_laptops"),
        (hosts(["ref"], ["one", "ref"]), "ref is in the groups reference and lab_laptops"),
    ],
)
def test_a_clone_without_one_reference_and_others_is_refused(found: dict[str, Any], said: str) -> None:
    with pytest.raises(ImagingError, match=re.escape(said)) as error:
        reference(found)
    assert str(error.value).endswith("No host was contacted.")


def test_a_clone_that_can_not_be_is_refused(tmp_path: Path) -> None:
    assert combinations(settings(ref={}, one={}), "clone") == []
    (tmp_path / "a.img.zst").write_bytes(b"x")
    kept = {"image": "a", "store": str(tmp_path)}
    (said,) = combinations(settings(ref=kept, one=kept), "clone")
    assert "imaging_update: true" in said
