# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the playbooks: one list of them, and what is said of a wrong value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import SETTABLE
from ansible_collections.fleet.imaging.plugins.module_utils.disk.findings import CONTENT_CHECKS
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.settings import (
    SETTINGS,
    module_arguments,
    read_settings,
    replacement_of,
)

ROOT = Path(__file__).resolve().parents[4]


def problem(**given: Any) -> str:
    (said,) = read_settings({f"imaging_{name}": value for name, value in given.items()})[1]
    return said


def value(**given: Any) -> Any:
    values, problems = read_settings({f"imaging_{name}": value for name, value in given.items()})
    assert problems == []
    return values[f"imaging_{next(iter(given))}"]


def test_the_inventory_names_every_variable_with_its_default_in_the_same_order() -> None:
    inventory = yaml.safe_load((ROOT / "inventory/group_vars/all.yml").read_text())
    assert inventory == {name: setting.default for name, setting in SETTINGS.items()}


def test_the_readme_names_every_variable() -> None:
    named = set(re.findall(r"^\| `(imaging_[a-z_]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named == set(SETTINGS)


def test_the_playbooks_use_checked_values_alone_and_all_of_them() -> None:
    used = set()
    for path in ROOT.glob("playbooks/**/*.yml"):
        for before, name in re.findall(r"(.{0,8})\b(imaging_[a-z_]+)", path.read_text()):
            assert before.endswith(("checked.", "value.")), f"{path}: {before}{name}"
            used.add(name)
    handed_over = {f"imaging_{name}" for table in SETTABLE.values() for name in table}
    assert not used & handed_over, "these are handed over by module_defaults"
    assert used | handed_over | {"imaging_report", "imaging_confirm_erase"} == set(SETTINGS)


def test_what_is_for_modules_is_handed_over_by_who_takes_it() -> None:
    arguments = module_arguments(read_settings({"imaging_port": "0", "imaging_rewrite": "yes"})[0])
    assert arguments["transfer"] == {"port": 0, "transport": "tcp", "ssh_client": "paramiko", "link_timeout": 120}
    assert arguments["image_restore"] == {"unused": "discard", "rewrite": True, "mirror": "", "site": ""}
    assert arguments["relay"] == {"relay": "auto"}
    assert arguments["image_import"] == {"update": False}


def test_the_roles_take_the_same_choices() -> None:
    specs = yaml.safe_load((ROOT / "roles/prepare_source/meta/argument_specs.yml").read_text())["argument_specs"]
    option = specs["main"]["options"]["prepare_source_allow"]
    assert option["default"] == SETTINGS["imaging_allow"].default
    assert sorted(option["choices"]) == sorted(check.name for check in CONTENT_CHECKS)


def test_defaults_stand_where_nothing_is_given_or_a_value_is_empty() -> None:
    assert value(port=None) == 19000
    assert read_settings({}) == ({name: setting.default for name, setting in SETTINGS.items()}, [])


def test_an_unknown_name_is_named_with_the_closest_one() -> None:
    assert problem(compresion_level=19).endswith("did you mean imaging_compression_level?")
    assert problem(qqq=1) == "There is no variable imaging_qqq."


def test_a_former_variable_of_a_role_is_named_with_its_setting() -> None:
    _values, problems = read_settings({"stream_image_store": "/images"})
    assert problems == ["The roles have no variable stream_image_store any more: set imaging_store instead."]
    assert replacement_of("verify_target_unused") == "imaging_unused"
    assert not any(map(replacement_of, ("stream_image_name", "verify_target_image", "imaging_store", "my_store")))


@pytest.mark.parametrize(("given", "meant"), [("flase", "false"), ("ture", "true"), ("maybe", "")])
def test_a_truth_value_that_is_none_is_an_error_and_never_false(given: str, meant: str) -> None:
    said = problem(confirm_erase=given)
    assert f"imaging_confirm_erase is {given!r}, expected true or false" in said
    assert ("did you mean" in said) is bool(meant) and meant in said
    assert "capture, true or false" in problem(release=given)


def test_what_comes_as_text_is_read_as_what_it_is() -> None:
    assert value(confirm_erase="yes") is True and value(rewrite="0") is False
    assert value(port="0") == 0 and value(grow=3) == "3" and value(compression_level=-7) == "-7"
    assert value(recompress="9") == 9 and value(recompress="") == ""
    assert value(release="true") is True and value(release="capture") == "capture" and value(release=False) is False
    assert value(allow="dirty, encrypted") == ["dirty", "encrypted"] and value(allow=["dirty"]) == ["dirty"]
    assert value(disk={"model": "samsung*", "min_size": "200GB"}) == {"model": "samsung*", "min_size": "200GB"}


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("finish", "rebot", "none, reboot or poweroff (did you mean reboot?)"),
        ("unused", "dicard", "discard, leave or zero (did you mean discard?)"),
        ("transport", "shh", "tcp or ssh (did you mean ssh?)"),
        ("port", "70000", "from 0 to 65535"),
        ("recompress", "auto", "a whole number from 1 to 19"),
        ("port", True, "from 0 to 65535"),
        ("port", "many", "from 0 to 65535"),
        ("link_timeout", 1, "from 5 to 86400"),
        ("compression_level", "20", "auto, or a whole number from -7 to 19"),
        ("disk", "nvme0n1", "an absolute path"),
        ("disk", {"seral": "1"}, "did you mean serial?"),
        ("disk", {"min_size": "big"}, "200GB"),
        ("disk", {"serial": ""}, "serial is text"),
        ("disk", ["/dev/sda"], "an absolute path"),
        ("allow", "dirt", "did you mean dirty?"),
        ("remove_images", 5, "a list"),
        ("store", "", "the path of a folder"),
        ("image", ["a"], "text"),
    ],
)
def test_a_wrong_value_is_said_with_what_was_expected(name: str, wrong: Any, expected: str) -> None:
    said = problem(**{name: wrong})
    assert said.startswith(f"imaging_{name} is ") and expected in said
    assert "\n" not in said


def test_a_long_value_is_cut() -> None:
    assert len(problem(finish="x" * 9999)) < 200


def test_a_problem_is_never_an_exception_of_another_kind() -> None:
    for name in SETTINGS:
        for odd in (object(), {"a": [1]}, [None], 1.5, "\x00", b"x"):
            try:
                read_settings({name: odd})
            except ImagingError:  # pragma: no cover
                pytest.fail(name)


@pytest.mark.parametrize(("given", "read"), [("auto", "auto"), ("off", "off"), (False, "off")])
def test_the_relay_can_be_off_as_yaml_reads_it(given: Any, read: str) -> None:
    assert value(relay=given) == read


@pytest.mark.parametrize("given", ["on", True, "", ["off"]])
def test_the_relay_is_nothing_else(given: Any) -> None:
    assert "auto or off" in problem(relay=given)


@pytest.mark.parametrize(
    "url", ["", "http://10.0.0.5/images", "https://mirror.lab:8443/a/b/", "http://[fe80::1]:8080/x%20y"]
)
def test_a_mirror_is_the_url_of_a_folder(url: str) -> None:
    assert value(mirror=url) == url


@pytest.mark.parametrize(
    "url",
    [
        "mirror.lab/images",
        "ftp://mirror.lab/images",
        "file:///images",
        "http:///images",
        "http://user:secret@mirror.lab/images",
        "http://mirror.lab/a?b=secret",
        "http://mirror.lab/a#b",
        "http://mirror.lab:99999/a",
        "http://mirror.lab/a b",
        "http://[fe80/a",
        "http://mirror.lab/\u00fc",
        7,
        ["http://mirror.lab"],
    ],
)
def test_what_is_no_such_url_is_refused(url: Any) -> None:
    assert "expected http://HOST/FOLDER" in problem(mirror=url) and "secret" not in problem(mirror=url)


def test_the_readme_has_every_check_of_what_is_captured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Fit to be captured")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \|$", readme, re.MULTILINE)
    assert sorted(rows) == sorted(check.name for check in CONTENT_CHECKS)


@pytest.mark.parametrize("location", ["~/images", "images", "https://images.lab/a/", "s3://bucket/a"])
def test_a_store_is_a_folder_or_on_a_server(location: str) -> None:
    assert value(store=location) == location


@pytest.mark.parametrize("location", ["", " ", "http://images.lab/a", "s3://Bucket", 7, ["images"]])
def test_what_is_no_store_is_refused(location: Any) -> None:
    expected = "expected the path of a folder, or https://HOST/FOLDER without user, password, query and fragment, or s3://BUCKET"
    assert expected in problem(store=location)
