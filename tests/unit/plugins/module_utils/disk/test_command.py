# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import MissingTool, module_runner


class Module:
    """The two methods of AnsibleModule that are used."""

    def __init__(self) -> None:
        self.ran: list[Any] = []

    def get_bin_path(self, name: str, opt_dirs: Any) -> str | None:
        return f"/usr/sbin/{name}" if name == "blkid" and "/usr/sbin" in opt_dirs else None

    def run_command(self, arguments: Any, **options: Any) -> Any:
        self.ran.append((arguments, options))
        return 3, "out", "err"


def test_a_program_is_found_in_the_system_folders_and_speaks_english() -> None:
    module = Module()
    result = module_runner(module)(["blkid", "-p", "/dev/sda"])
    ((arguments, options),) = module.ran
    assert arguments == ["/usr/sbin/blkid", "-p", "/dev/sda"]
    assert options["environ_update"]["LC_ALL"] == "C"
    assert (result.rc, result.out, result.err) == (3, "out", "err")
    assert result.complaint() == "exit status 3, err"


@pytest.mark.parametrize(
    ("program", "package"),
    [("sfdisk", "fdisk on Debian"), ("lsblk", "util-linux"), ("partclone.ntfs", "partclone"), ("other", "other")],
)
def test_a_missing_program_is_named_with_its_package(program: str, package: str) -> None:
    with pytest.raises(MissingTool, match=f"{program} is not installed.*package {package}"):
        module_runner(Module())([program])
