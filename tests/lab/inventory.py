# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory file of a lab."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .laptop import Laptop, current_user
from .tools import LabError


class Inventory:
    """The inventory file of the lab in a folder; its first line says whose it is."""

    def __init__(self, path: Path, lab: Path) -> None:
        self.path = path
        self._lab = lab
        self._mark = f"# The inventory of the lab in {lab}, which removes this file when it goes down.\n"

    def check(self) -> None:
        """Raise LabError when the file exists and is not this lab's."""
        if self.path.exists() and not self._is_ours():
            raise LabError(f"{self.path} exists already and is not of this lab; move it away or name another file")

    def write(self, laptops: Sequence[Laptop], python: str) -> None:
        """Write it; the first laptop is the reference."""
        self.check()
        reference, *targets = laptops
        groups = {
            "all": {"vars": self._common_variables(reference.isolated, python)},
            "reference": {"hosts": {reference.name: reference.host_variables()}},
            "lab_laptops": {"hosts": {laptop.name: laptop.host_variables() for laptop in targets}},
        }
        self.path.write_text(self._mark + "\n".join(["---", *_yaml(groups), ""]))

    def remove(self) -> None:
        """Remove the file if it is this lab's."""
        if self._is_ours():
            self.path.unlink()

    def _is_ours(self) -> bool:
        try:
            return self.path.read_text().startswith(self._mark)
        except (OSError, UnicodeDecodeError):
            return False

    def _common_variables(self, isolated: bool, python: str) -> dict[str, str | int | bool]:
        # The user's own SSH configuration must change nothing here, and learn nothing.
        options = ["UserKnownHostsFile=" + str(self._lab / "known_hosts"), "GlobalKnownHostsFile=/dev/null"]
        options += ["StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
        variables: dict[str, str | int | bool] = {
            "ansible_user": current_user(),
            "ansible_ssh_private_key_file": str(self._lab / "client_key"),
            "ansible_ssh_common_args": " ".join(["-F /dev/null", *(f"-o {option}" for option in options)]),
            "ansible_control_path_dir": str(self._lab / "cp"),
            "ansible_python_interpreter": python,
            # The laptops' user owns their disks.
            "imaging_become": False,
        }
        if not isolated:
            # They share one address.
            variables["imaging_port"] = 0
            # Where /dev/pts is mounted without a group for terminals, an ordinary user's sshd can't hand one out.
            variables["ansible_ssh_use_tty"] = False
        return variables


def _yaml(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield the lines of a mapping of mappings and scalars; a scalar of JSON is one of YAML."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield f"{indent}{key}:"
            yield from _yaml(item, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(item)}"
