# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the tests: write every task's result, and what of laptops' answers does not become part of one, as lines of JSON to files."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import marshal
import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible import constants
from ansible.executor import module_common
from ansible.plugins.callback import CallbackBase

from ansible_collections.fleet.imaging.plugins.plugin_utils import laptop_answer

DOCUMENTATION = """
name: json_lines
type: notification
short_description: Results as lines of JSON
description:
  - Appends one line for each result to the file that E(FLEET_IMAGING_TEST_RESULTS) names; does nothing when it is not set.
  - A loop over a module of this collection has a line for each item.
"""


OF_A_LOOP = {"item", "ansible_loop_var"}
"""Fields that Ansible adds to the result of each item."""


UNCHECKED = (1).to_bytes(4, "little") + bytes(8)
"""Of the head of compiled code: it need not be compared with its source (PEP 552)."""


def note_what_is_dropped(path: str) -> None:
    """Have the names of fields that a laptop's answer has, and its module does not document, appended to a file."""
    checked = laptop_answer._checked_fields

    def checked_and_noted(value: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> dict[str, Any]:
        dropped = [f"{where}{name}" for name in value if name not in fields]
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(name) + "\n" for name in dropped)
        return checked(value, fields, where)

    laptop_answer._checked_fields = checked_and_noted


def share_packed_modules(folder: str) -> None:
    """Have Ansible keep the packages of modules that it makes for laptops in a folder that outlives this run, or find them there.

    It makes each once for a run (ansible.executor.module_common), which is a good part of a short run's work. They are stored compiled.
    """
    os.makedirs(folder, exist_ok=True)
    os.symlink(folder, os.path.join(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache"))
    dump = module_common._CachedModule.dump

    def dump_compiled(module: Any, path: str) -> None:
        dump(replace(module, zip_data=base64.b64encode(with_bytecode(base64.b64decode(module.zip_data)))), path)

    module_common._CachedModule.dump = dump_compiled


def with_bytecode(package: bytes) -> bytes:
    """Return a package of modules with each file compiled as well: compiling is most of the time that a module takes to start.

    A laptop with another version of Python than the controller's takes the sources, as it does without this (zipimport).
    """
    packed = io.BytesIO(package)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".py")]:
            code = compile(archive.read(name), name, "exec", dont_inherit=True)
            archive.writestr(f"{name}c", importlib.util.MAGIC_NUMBER + UNCHECKED + marshal.dumps(code))
    return packed.getvalue()


class CallbackModule(CallbackBase):
    """Writes the lines; loaded whenever its folder is on the path for callback plugins."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "json_lines"

    def _write(self, status: str, result: Any) -> None:
        path = os.environ.get("FLEET_IMAGING_TEST_RESULTS")
        if not path:
            return
        line = {
            "host": result.host.get_name(),
            "task": result.task.get_name(),
            "action": str(result.task.resolved_action or result.task.action),
            "check_mode": bool(result.task_fields.get("check_mode")),
        }
        found = [(status, result.result)]
        if result.task.loop and line["action"].startswith("fleet.imaging.") and status != "skipped":
            items = [
                {name: value for name, value in item.items() if name not in OF_A_LOOP}
                for item in result.result["results"]
            ]
            found = [(status if item.get("failed") else "ok", item) for item in items]
        with open(path, "a", encoding="utf-8") as file:
            for each, content in found:
                file.write(json.dumps({**line, "status": each, "result": content}, default=str) + "\n")

    def v2_playbook_on_start(self, playbook: object) -> None:
        """Workers are copies of this process, and do their checking by what is put in here."""
        path = os.environ.get("FLEET_IMAGING_TEST_RESULTS")
        if path:
            note_what_is_dropped(f"{path}.dropped")
        folder = os.environ.get("FLEET_IMAGING_TEST_MODULES")
        if folder:
            share_packed_modules(folder)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write("unreachable", result)
