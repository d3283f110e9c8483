# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the live system on the controller. The task's host is not contacted."""

from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.live import archive
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.authority import Authority, open_authority
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.build import (
    INITRD,
    ISO,
    KERNEL,
    SQUASHFS,
    BuildFolder,
    Inputs,
    build,
    check_root,
    make_inputs,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.packages import (
    COMPONENTS,
    FIRMWARE,
    FREE,
    package_list,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.programs import check_programs
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.public_keys import read_public_keys
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import local_path


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.live_build)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "files": {"type": "path", "required": True},
        "folder": {"type": "path", "default": "~/fleet-live"},
        "ca": {"type": "path", "default": "~/fleet-live-ca"},
        "authorized_keys": {"type": "list", "elements": "str", "default": []},
        "mirror": {"type": "list", "elements": "str", "default": []},
        "firmware": {"type": "str", "choices": list(FIRMWARE), "default": FREE},
        "packages": {"type": "list", "elements": "str", "default": []},
        "update": {"type": "bool", "default": False},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Build, unless the same was built before; raises ImagingError."""
        archive.check_distribution()
        check_programs(*([] if archive.KEYRING.exists() else ["debian-archive-keyring"]))
        keys = read_public_keys(arguments["authorized_keys"], Path.home())
        folder = BuildFolder(Path(local_path(arguments["folder"])))
        authority = Authority(Path(local_path(arguments["ca"])))
        record = folder.record()
        if self._task.check_mode and not authority.certificate.exists():
            return self.result(folder, authority, record, True)
        open_authority(authority.folder, run_command)
        inputs = self.inputs(arguments, authority, keys)
        changed = record.get("inputs") != inputs.fingerprint()
        if (changed or arguments["update"]) and not self._task.check_mode:
            check_root()
            record, changed = build(inputs, folder, archive.find_proxies(run_command))
        return self.result(folder, authority, record, changed)

    @staticmethod
    def inputs(arguments: dict[str, Any], authority: Authority, keys: list[str]) -> Inputs:
        """Return what the live system is made of."""
        suite = archive.find_suite()
        components = COMPONENTS[arguments["firmware"]]
        own = {f"etc/ssh/{name}": content for name, content in authority.host_files().items()}
        own["root/.ssh/authorized_keys"] = "".join(f"{key}\n" for key in keys).encode()
        return make_inputs(
            suite=suite,
            sources=archive.find_sources(arguments["mirror"], suite, components, run_command),
            packages=package_list(arguments["firmware"], arguments["packages"]),
            files=Path(arguments["files"]),
            own=own,
        )

    @staticmethod
    def result(folder: BuildFolder, authority: Authority, record: dict[str, Any], changed: bool) -> dict[str, Any]:
        """Return the result of the task."""
        return {
            "changed": changed,
            "iso": str(folder.path / ISO),
            "kernel": str(folder.path / KERNEL),
            "initrd": str(folder.path / INITRD),
            "squashfs": str(folder.path / SQUASHFS),
            "known_hosts": str(authority.known_hosts),
            "label": record.get("label", ""),
            "kernel_parameters": record.get("kernel_parameters", ""),
            "size": record["files"][ISO]["size"] if record else 0,
            "packages": record.get("packages", []),
        }
