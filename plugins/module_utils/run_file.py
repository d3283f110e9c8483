# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run file: what a laptop publishes of one transfer, in a folder that only its user can enter.

It is flat text, so that a shell can read it without a parser: one line ``name=value`` for each field of :class:`Run`, in their order. The run's
id comes last. A file that is cut anywhere is none: its last line is missing, or names another run.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any, Callable
from urllib.parse import quote, unquote_to_bytes

STARTING = "starting"
LISTENING = "listening"
CONNECTED = "connected"
WAITING = "waiting"

SUFFIX = ".run"
"""The file's name is the run's id and this."""

FOLDER_SCRIPT = (
    'if [ "$(id -u)" = 0 ]; then d=/run/fleet.imaging; else d="${TMPDIR:-/tmp}/fleet.imaging-$(id -u)"; fi; '
    'if [ -d "$d" ] && [ ! -L "$d" ] && [ -O "$d" ]; then echo "$d"; else echo /dev/null; fi'
)
"""The same choice as :func:`folder_path`, for a shell. Prints /dev/null, below which there are no files, when the folder is missing or is
another user's."""

PAYLOAD = "ansible_[A-Za-z0-9_.]*_payload_[A-Za-z0-9_]*"
"""The names of the folders that Ansible's wrapper makes for modules, in the folder for temporary files."""


def folder_path() -> str:
    """Where this user's run files lie."""
    if os.geteuid() == 0:
        return "/run/fleet.imaging"
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"fleet.imaging-{os.geteuid()}")


@dataclass
class Run:
    """One transfer of a laptop: its process, the disk it holds, the port it listens on, and whether it has a controller.

    ``started`` is the process's start time in clock ticks since boot (proc(5), /proc/PID/stat, field 22). ``state`` has changed last at
    ``since``, in seconds since boot. ``payload`` is the name of the folder that Ansible's wrapper has made for the module, and removes again
    unless it is killed; what does not match PAYLOAD is none. No file has a path that anything is removed by. ``networks`` are the laptop's, in the
    form 198.51.100.0/24, separated by commas.
    """

    pid: int
    started: int
    port: int
    state: str
    since: float
    payload: str
    device: str
    networks: str
    run_id: str

    def pack(self) -> str:
        """The file's content."""
        return "".join(f"{each.name}={FORMS[each.name][0](getattr(self, each.name))}\n" for each in fields(self))


def unpack_run(text: str) -> Run:
    """The run that a file's content tells of; raises ValueError when it tells of none."""
    lines = text.split("\n")
    names = [each.name for each in fields(Run)]
    if len(lines) != len(names) + 1 or lines[-1]:
        raise ValueError("not as many lines as a run file has")
    values = {}
    for name, line in zip(names, lines):
        given, mark, value = line.partition("=")
        _write, form, read = FORMS[name]
        if given != name or not mark or not form.fullmatch(value):
            raise ValueError(f"no {name}")
        values[name] = read(value)
    return Run(**values)


def _quoted(path: str) -> str:
    return quote(os.fsencode(path))


def _unquoted(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))


NUMBER = re.compile("[0-9]{1,18}")
WORD = re.compile("[A-Za-z0-9]{1,64}")

FORMS: dict[str, tuple[Callable[..., str], re.Pattern[str], Callable[..., Any]]] = {
    "pid": (str, NUMBER, int),
    "started": (str, NUMBER, int),
    "port": (str, NUMBER, int),
    "state": (str, WORD, str),
    "since": ("{:.3f}".format, re.compile(r"-?[0-9]{1,18}\.[0-9]{3}"), float),
    "payload": (str, re.compile("[!-~]*"), str),
    "device": (_quoted, re.compile("[!-~]+"), _unquoted),
    "networks": (str, re.compile("[0-9a-f.:/,]{0,2048}"), str),
    "run_id": (str, WORD, str),
}
"""Of each field: how it is written, what it looks like, and how it is read. A path may hold any byte, also a line feed."""
