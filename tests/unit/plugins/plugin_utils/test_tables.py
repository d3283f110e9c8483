# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the playbooks, when one laptop of several says something odd: it spoils its own row, and no other."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2
import pytest

from ansible_collections.fleet.imaging.plugins.filter import human, outcome

TEMPLATES = Path(__file__).parents[4] / "playbooks" / "templates"

GOOD: dict[str, Any] = {
    "select_disk_selected": {
        "path": "/dev/sdq",
        "model": "Good",
        "serial": "S1",
        "size": 1 << 30,
        "partitions": [{"fstype": "ntfs", "label": "Windows"}],
    },
    "stream_image_result": {
        "device": "/dev/sdq",
        "changed": True,
        "used_bytes": 1 << 20,
        "disk_size": 1 << 30,
        "sent_bytes": 1 << 19,
        "seconds": 61.5,
        "used_chunks": 7,
        "verified": False,
        "differing_chunks": 3,
    },
    "verify_target_result": {"verified": True},
    "probed": {
        "device": "/dev/sdq",
        "purpose": "restore",
        "image": "image",
        "used_bytes": 1 << 20,
        "sent_bytes": 1 << 19,
        "rates": {"read": 5e8, "compress": None, "decompress": 1e9},
        "alone": {"seconds": 5.5, "limit": "network", "advice": "Use a faster one."},
        "together": {"seconds": 5.5, "limit": "network", "advice": "Use a faster one."},
        "all_seconds": 10.0,
        "all_sent_bytes": 3 << 20,
        "notes": ["measured"],
    },
}
ODD: list[Any] = [None, 5, "odd", [], ["odd"], {}, {"odd": {"odd": 1}}, True, -1.5]


@functools.cache
def environment() -> jinja2.Environment:
    """Jinja as Ansible has it, whose own loader of plugins needs a process of its own."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    filters = {**human.FilterModule().filters(), **outcome.FilterModule().filters()}
    made.filters.update({f"fleet.imaging.{name}": form for name, form in filters.items()})
    return made


def rendered(template: str, odd: dict[str, Any], left_out: bool = False, check_mode: bool = False) -> str:
    """What a table says of three laptops, of which the second is odd."""
    hosts = ["lab-01", "lab-02", "lab-03"]
    variables = {
        "hostvars": {"lab-01": GOOD, "lab-02": {**GOOD, **odd}, "lab-03": GOOD},
        "ansible_play_hosts": ["lab-01", "lab-03"] if left_out else hosts,
        "ansible_play_hosts_all": hosts,
        "ansible_check_mode": check_mode,
        "store": {"store": "/store", "images": [{"name": "image", "error": None}]},
        "targets": hosts,
        "image": {"name": "image"},
        "named": "",
    }
    return environment().get_template(template).render(variables)


def odd_values(good: Any) -> list[Any]:
    """A value with everything in it replaced by odd ones, one after the other."""
    values = list(ODD)
    if isinstance(good, dict):
        for name, value in good.items():
            values += [{**good, name: other} for other in odd_values(value)]
    return values


@pytest.mark.parametrize(
    ("template", "variable", "left_out", "check_mode"),
    [
        ("erase.j2", "select_disk_selected", False, False),
        ("erase.j2", "select_disk_found", True, False),
        ("restored.j2", "stream_image_result", False, False),
        ("restored.j2", "stream_image_result", False, True),
        ("restored.j2", "stream_image_result", True, False),
        ("restored.j2", "verify_target_result", True, False),
    ],
)
def test_one_odd_laptop_spoils_no_other_row(template: str, variable: str, left_out: bool, check_mode: bool) -> None:
    expected = [line for line in rendered(template, {}, left_out, check_mode).split("\n") if "lab-02" not in line]
    for value in odd_values(GOOD.get(variable, {"msg": "It is odd.", "failed": True})):
        lines = rendered(template, {variable: value}, left_out, check_mode).split("\n")
        found = [line.split() for line in lines if "lab-02" not in line]
        assert found == [line.split() for line in expected], value


def test_an_odd_forecast_spoils_no_other() -> None:
    of_laptop = [{**GOOD["probed"], name: odd} for name in ("device", "used_bytes", "rates") for odd in ODD]
    for value in [*ODD, *of_laptop]:
        text = rendered("probe.j2", {"probed": value})
        assert sum(line.startswith("lab-01 ") for line in text.splitlines()) == 1, value
        assert sum(line.startswith("lab-03 ") for line in text.splitlines()) == 1, value


def row_of_restored(result: dict[str, Any], **circumstances: bool) -> list[str]:
    lines = rendered("restored.j2", {"stream_image_result": result}, **circumstances).splitlines()
    (row,) = [line for line in lines if line.startswith("lab-02 ")]
    return [cell.strip() for cell in row.split("  ") if cell][1:]


@pytest.mark.parametrize(
    ("changes", "circumstances", "cells"),
    [
        ({}, {}, ["restored and verified", "1.0 MiB used of 1.0 GiB", "sent 512.0 KiB", "1 min 02 s"]),
        (
            {"frame_bytes": {"peers": 1 << 20}},
            {},
            ["restored and verified", "1.0 MiB used of 1.0 GiB", "sent 512.0 KiB, 1.0 MiB from laptops", "1 min 02 s"],
        ),
        ({"changed": False}, {}, ["equal already", "1.0 MiB used of 1.0 GiB", "sent 512.0 KiB", "1 min 02 s"]),
        ({}, {"left_out": True}, ["restored and verified, but a later step FAILED, see above"]),
        ({}, {"check_mode": True}, ["would be restored", "3 of 7 chunks differ"]),
        (
            {"differing_chunks": 0, "seen_differences": ["no label"]},
            {"check_mode": True},
            ["would be restored", "no label"],
        ),
        ({"verified": True}, {"check_mode": True}, ["equal already"]),
    ],
)
def test_each_outcome_of_a_restore_has_its_words(
    changes: dict[str, Any], circumstances: dict[str, bool], cells: list[str]
) -> None:
    result = {**GOOD["stream_image_result"], **changes}
    assert row_of_restored(result, **circumstances) == ["/dev/sdq", *cells]


def test_a_restore_that_failed_or_answered_oddly_has_no_device() -> None:
    assert row_of_restored({}, left_out=True, check_mode=True) == ["-", "NOT COMPARED, see above"]
    odd = {**GOOD["stream_image_result"], "changed": "odd"}
    assert row_of_restored(odd) == ["-", "reported an invalid result: check the disk with verify.yml"]
