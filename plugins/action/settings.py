# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and checks all variables of a run on the controller. No host is contacted."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from ansible.errors import AnsibleError

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE, RESTORE
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.settings import (
    PREFIX,
    module_arguments,
    read_settings,
    replacement_of,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import check_name
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store

REQUIRED = {
    "import": (
        "imaging_source",
        "Say which file is imported: ansible-playbook import.yml -e imaging_source=/path/to/disk.img.gz.",
    ),
    "export": (
        "imaging_export",
        "Say which file is written: ansible-playbook export.yml -e imaging_export=/path/to/disk.img, or .img.gz, .img.xz, .qcow2.",
    ),
}
"""The setting that a playbook needs, and the message when it is empty."""

CLONE = "clone"

REFERENCE, LAPTOPS = "reference", "lab_laptops"
"""The groups of the inventory."""

SHOWN = 3
"""Maximum number of problems in one message."""


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.settings)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "pattern": {"type": "str"},
        "purpose": {"type": "str", "choices": [CAPTURE, RESTORE, CLONE, "images", "live", *REQUIRED], "required": True},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Read the settings of every host; raises ImagingError with what is wrong."""
        variables = self.task_vars
        check_tags(variables)
        found_reference = {"reference": reference(variables)} if arguments["purpose"] == CLONE else {}
        hosts = (
            matching_hosts(arguments["pattern"], variables)
            if arguments["pattern"]
            else [variables["inventory_hostname"]]
        )
        if not hosts:
            limit = variables.get("ansible_limit")
            raise ImagingError(
                f"No host is left to work on: expected at least one of {arguments['pattern']}, and "
                + (f"none of them is in -l {limit}." if limit else "the inventory has none of them.")
                + " Nothing was done."
            )
        settings: dict[str, dict[str, Any]] = {}
        problems: dict[str, list[str]] = {}
        for host in hosts:
            settings[host], found = read_settings(given_variables(variables["hostvars"][host], host))
            for problem in found:
                problems.setdefault(problem, []).append(host)
        said = [
            problem if len(names) == len(hosts) else f"For {', '.join(names)}: {problem}"
            for problem, names in problems.items()
        ]
        said = said or list(combinations(settings, arguments["purpose"]))
        if said:
            more = f" {len(said) - SHOWN} more are wrong." if len(said) > SHOWN else ""
            raise ImagingError(f"{' '.join(said[:SHOWN])}{more} No host was contacted.")
        arguments = {host: module_arguments(values) for host, values in settings.items()}
        return {"changed": False, "hosts": settings, "arguments": arguments, **found_reference}


def check_tags(variables: Mapping[str, Any]) -> None:
    """Raise ImagingError when tags leave tasks out: the playbooks have no tags, so nearly all tasks would be skipped silently."""
    if list(variables["ansible_run_tags"]) != ["all"] or variables["ansible_skip_tags"]:
        raise ImagingError(
            "The playbooks of this collection can't run in part: expected neither --tags nor --skip-tags. Run again without them. Nothing was "
            "done."
        )


def matching_hosts(pattern: str, variables: Mapping[str, Any]) -> list[str]:
    """Return the hosts of a play with this pattern (groups, and ``!`` before excluded ones) within the limit."""
    groups: Mapping[str, list[str]] = variables["groups"]
    wanted: set[str] = set()
    unwanted: set[str] = set()
    for name in pattern.split(":"):
        target = unwanted if name.startswith("!") else wanted
        target.update(groups.get(name.lstrip("!"), ()))
    return [host for host in variables["ansible_play_hosts_all"] if host in wanted - unwanted]


def reference(variables: Mapping[str, Any]) -> str:
    """Return the one host that the others become equal to; raises ImagingError unless there are one and others."""
    references, laptops = matching_hosts(REFERENCE, variables), matching_hosts(LAPTOPS, variables)
    limit = variables.get("ansible_limit")
    where = f"in -l {limit}" if limit else "in the inventory"
    both = [host for host in references if host in laptops]
    if len(references) != 1:
        raise ImagingError(
            f"All disks become equal to that of one reference: expected one host of the group {REFERENCE} {where}, found "
            f"{', '.join(references) or 'none'}. Run with -l REFERENCE,{LAPTOPS}, and the reference's name for REFERENCE. No host was contacted."
        )
    if both:
        raise ImagingError(
            f"{both[0]} is in the groups {REFERENCE} and {LAPTOPS}, so it can't be told whether its disk is to be read or erased. Leave it in one of "
            "them. No host was contacted."
        )
    if not laptops:
        raise ImagingError(
            f"No laptop is left to be made equal to {references[0]}: expected at least one host of the group {LAPTOPS}, and none is {where}. "
            f"Run with -l {references[0]},{LAPTOPS}. No host was contacted."
        )
    return references[0]


def given_variables(variables: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return the imaging_* variables of a host from inventory, group_vars and -e; raises ImagingError when one can't be read or is a fact."""
    names = [name for name in variables if name.startswith(PREFIX) or replacement_of(name)]
    facts = [name for name in variables.get("ansible_facts") or {} if name.startswith(PREFIX)]
    if facts:
        raise ImagingError(
            f"The facts of {host} contain {', '.join(facts)}. Facts come from the laptop, so no setting is taken from them: run without "
            "gathering facts before, and with --flush-cache where facts are cached. No host was contacted."
        )
    given = {}
    for name in names:
        try:
            given[name] = variables[name]
        except AnsibleError as error:
            raise ImagingError(f"{name} of {host} can't be read: {error} No host was contacted.") from error
    return given


def combinations(settings: Mapping[str, dict[str, Any]], purpose: str) -> list[str]:
    """Return the problems of settings that are valid one by one but not together. For captures it also fills in the names of images."""
    if purpose == CAPTURE:
        return _captures(settings)
    if purpose in REQUIRED:
        name, words = REQUIRED[purpose]
        return [words] if any(not values[name] for values in settings.values()) else []
    kept = [values for values in settings.values() if values["imaging_image"]] if purpose == CLONE else []
    return [*(_not_there(kept[0]) if kept else ()), *_same_for_all(settings)]


def _same_for_all(settings: Mapping[str, dict[str, Any]]) -> list[str]:
    return [
        f"{name} must be the same for all hosts of a run, and is "
        + ", ".join(f"{host}: {values[name]!r}" for host, values in list(settings.items())[:SHOWN])
        + ". Run once for each, with -l."
        for name in ("imaging_store", "imaging_image")
        if len({values[name] for values in settings.values()}) > 1
    ]


def _not_there(values: Mapping[str, Any]) -> list[str]:
    """Return why no image of this name can be made, if so."""
    name = values["imaging_image"]
    try:
        check_name(name)
        open_store(module_arguments(values)["store"]).existing(name, values["imaging_update"])
    except ImagingError as error:
        return [str(error)]
    return []


def _captures(settings: Mapping[str, dict[str, Any]]) -> list[str]:
    problems: list[str] = []
    hosts: dict[str, str] = {}
    for host, values in settings.items():
        name = values["imaging_image"] = values["imaging_image"] or f"{host}-{datetime.now(UTC):%Y-%m-%d}"
        if name in hosts:
            problems.append(
                f"{hosts[name]} and {host} would both be captured as {name}: set imaging_image for each of them, or capture one (-l {host})."
            )
        hosts[name] = host
        problems += _not_there(values)
    return problems
